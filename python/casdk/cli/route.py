"""The doctor's connections to a server: it resolves the name, opens a socket, and asks a proxy for a tunnel."""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
from copy import copy
from typing import Final
from urllib.parse import SplitResult, urlsplit

from casdk._transport.address import SCHEMES, Endpoint
from casdk._transport.channels.base import proxy_headers
from casdk._transport.channels.causes import BEHIND, NO_LOOK_UP, NO_ROUTE
from casdk._transport.proxy import proxy_of
from casdk.cli.trouble import TroubleError

__all__ = ["CURE_OF_PROXY", "Route"]

CLIP_SERVER_PORT: Final = 51000
"""The port on which clip_server listens by default."""
CURE_OF_PROXY: Final = "put user and password into the proxy's URL: HTTPS_PROXY=http://user:password@host:port"
HURRIED_SECONDS: Final = 1.0
"""The longest wait for an answer that is only needed to give better advice."""
NO_WAY: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL})


class Route:
    """Opens plain sockets to a server, through a proxy if the environment names one.

    Args:
        endpoint: The server.
        seconds: How long a connection may take, and how long one may wait for bytes of it.
    """

    def __init__(self, endpoint: Endpoint, seconds: float) -> None:
        self.endpoint = endpoint
        self.seconds = seconds
        proxy = proxy_of(endpoint, None)
        self.proxy: SplitResult | None = None if proxy is None else urlsplit(proxy)
        self._addresses: list[tuple[str, int]] = []

    def hurried(self) -> Route:
        """Return a copy with a short timeout, for connections that are only made to give better advice."""
        hurried = copy(self)
        hurried.seconds = min(self.seconds, HURRIED_SECONDS)
        return hurried

    @property
    def forwarded(self) -> bool:
        """Whether requests are sent to the proxy, as those of plain http, and not through a tunnel."""
        return self.proxy is not None and self.endpoint.scheme == "http"

    @property
    def hop(self) -> tuple[str, int]:
        """Host and port of the first connection: those of the proxy, if there is one, or else of the server."""
        if self.proxy is not None:
            return self.proxy.hostname or "", self.proxy.port or 80
        return self.endpoint.host, self.endpoint.port

    def resolve(self) -> str:
        """Look up the name of the first hop; return a line with its addresses.

        Raises:
            TroubleError: The name has no address.
        """
        host, port = self.hop
        whose = f"the proxy {host}" if self.proxy is not None else host
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                cure = NO_LOOK_UP.cure
            else:
                cure = f"check the spelling of {host!r}, or name the server by its IP address"
            raise TroubleError(f"{whose} has no address: {error.strerror}", cure) from None
        except UnicodeError:
            raise TroubleError(f"{host!r} cannot be a host's name", "check its spelling") from None
        self._addresses = list(dict.fromkeys((str(entry[4][0]), port) for entry in found))
        return f"{whose} is {', '.join(address for address, _ in self._addresses)}"

    def connect(self) -> str:
        """Connect to the first hop, and close the connection; return a line that says so.

        Raises:
            TroubleError: No address accepts a connection.
        """
        self._dial().close()
        host, port = self.hop
        return f"{host} port {port} accepts connections"

    def _dial(self) -> socket.socket:
        failures: list[OSError] = []
        for address in self._addresses:
            try:
                sock = socket.create_connection(address, self.seconds)
            except OSError as error:
                failures.append(error)
                continue
            try:
                sock.getpeername()
            except OSError:  # the other end has reset the connection already
                sock.close()
                failures.append(ConnectionResetError())
                continue
            return sock
        raise self._unreached(failures[0])

    def _unreached(self, error: OSError) -> TroubleError:
        host, port = self.hop
        where = f"{'the proxy ' if self.proxy is not None else ''}{host} port {port}"
        if isinstance(error, ConnectionRefusedError):
            return TroubleError(f"nothing listens on {where}", self._cure_of_refusal())
        if isinstance(error, TimeoutError):
            return TroubleError(
                f"no answer from {where} within {self.seconds:g} s",
                "a firewall drops the connection, or the host is down: check both, and the address",
            )
        if isinstance(error, ConnectionResetError):
            return TroubleError(f"{where} resets connections as soon as they are made", BEHIND)
        if error.errno in NO_WAY:
            return TroubleError(f"no route to {where}: {error.strerror}", NO_ROUTE.cure)
        return TroubleError(f"no connection to {where}: {error.strerror or error}", "check the address and the network")

    def _cure_of_refusal(self) -> str:
        if self.proxy is not None:
            return "start the proxy, correct HTTPS_PROXY or HTTP_PROXY, or name the server in NO_PROXY"
        scheme, host, port = self.endpoint.scheme, self.endpoint.host, self.endpoint.port
        hint = "start the server, or correct the port"
        if port == SCHEMES[scheme].port:
            hint += f" ({port} is what an address without one means; clip_server's own is {scheme}://{host}:{CLIP_SERVER_PORT})"
        return f"{hint}; in a container, publish the port and listen on 0.0.0.0"

    def open(self) -> socket.socket:
        """Return a socket to the server; to the proxy, if requests are sent to the proxy itself.

        Raises:
            TroubleError: No connection can be made.
        """
        if self.proxy is None or self.forwarded:
            return self._dial()
        connection = http.client.HTTPConnection(*self.hop, timeout=self.seconds)
        connection.set_tunnel(self.endpoint.host, self.endpoint.port, dict(self.proxy_headers()))
        try:
            connection.connect()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._refused(error) from None
        return connection.sock

    def proxy_headers(self) -> list[tuple[str, str]]:
        """Return the headers for a proxy, with the password in its URL if there is one."""
        return [] if self.proxy is None else list(proxy_headers(self.proxy).items())

    def _refused(self, error: Exception) -> TroubleError:
        host, port = self.hop
        where = f"the proxy {host}:{port}"
        if isinstance(error, TimeoutError):
            return TroubleError(
                f"{where} does not answer within {self.seconds:g} s",
                "check the proxy, or name the server in NO_PROXY",
                step="proxy",
            )
        answer = str(error) or type(error).__name__
        if "407" in answer:
            cure = CURE_OF_PROXY
        elif "40" in answer:
            cure = f"have the proxy allow {self.endpoint.authority}, or name the server in NO_PROXY"
        else:
            cure = f"see why the proxy does not reach {self.endpoint.authority}, or name the server in NO_PROXY"
        return TroubleError(f"{where} opens no tunnel: {answer}", cure, step="proxy")

    def tunnel(self) -> str:
        """Ask the proxy for a tunnel, if one is needed; return a line with the result.

        Raises:
            TroubleError: The proxy refuses the tunnel.
        """
        with contextlib.closing(self.open()):
            return "requests go to it" if self.forwarded else f"it opens a tunnel to {self.endpoint.authority}"
