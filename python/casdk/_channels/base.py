"""What every channel is: bytes of one request in, bytes of its reply out."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import SplitResult, unquote

from casdk._uri import Endpoint, counterpart
from casdk.config import TLS, Limits, Timeouts
from casdk.errors import ConfigError, ProtocolMismatchError, TransportError

__all__ = [
    "LOG",
    "SLICE",
    "Channel",
    "Connected",
    "Headers",
    "is_plain",
    "no_tls",
    "proxy_headers",
    "read_pem",
    "run_out",
    "secured",
    "slices",
    "ssl_context",
]

LOG: Final = logging.getLogger("casdk.connections")

Headers: TypeAlias = Sequence[tuple[str, str]]
"""Name in lower case and value; the credential is among them, so they are never shown."""


SLICE: Final = 1 << 20
"""Bytes of a large message handed to a library at once: each of them copies what it is given, more than once. Smaller
ones wake the server for each."""


def slices(message: bytes) -> Iterator[memoryview]:
    """Cut a large message without a copy, so that only a slice of it is in a library's buffers."""
    view = memoryview(message)
    for start in range(0, len(message), SLICE):
        yield view[start : start + SLICE]


class Channel(ABC):
    """A way to one server, shared by all calls of a client; lives on the engine's loop.

    Connections are opened when first needed, kept, and opened again when they broke. A channel never retries.

    Args:
        endpoint: The server.
        tls: How to verify a secure scheme.
        timeouts: ``connect`` and ``read`` are used here; a request's own deadline may be sooner.
        limits: ``max_reply_bytes`` and ``connections`` are used here.
        proxy: URL of the HTTP proxy to go through, if any.
    """

    def __init__(self, endpoint: Endpoint, tls: TLS, timeouts: Timeouts, limits: Limits, proxy: str | None) -> None:
        self.endpoint = endpoint
        self.tls = tls
        self.timeouts = timeouts
        self.limits = limits
        self.proxy = proxy
        self._connections = 0

    def connected(self) -> None:
        """Log that a connection was opened."""
        self._connections += 1
        LOG.info("connection %d to %s is open", self._connections, self.endpoint)

    def was_closed(self, *, sent: bool) -> TransportError:
        """Return the error of a request whose connection was closed, or that came too late for one.

        Args:
            sent: Whether its bytes may have reached the server.
        """
        return TransportError(f"the connection to {self.endpoint} was closed", sent=sent)

    @abstractmethod
    async def exchange(self, request_id: str, message: bytes, headers: Headers, context: Headers = ()) -> bytes:
        """Send one request and wait for its reply; cancelling takes the request back where the protocol can.

        Args:
            request_id: What the reply is paired by.
            message: The packed request.
            headers: Sent beside it, where the protocol has a place for them.
            context: W3C trace context of this one request, sent in the same place; a websocket has none for a
                message, so there it goes with the handshake of the request that opens the socket.

        Returns:
            The packed reply.

        Raises:
            TransportError: No connection, or it broke.
            DeadlineError: No reply within ``timeouts.read``.
            ServerError: The server refused, outside a reply.
        """

    @abstractmethod
    async def dry_run(self, headers: Headers) -> bytes | None:
        """Ask the gateway whether its executors answer, by an empty request of its own making.

        Args:
            headers: As for `exchange`.

        Returns:
            Its packed status; ``None`` where the gateway does not know the question.

        Raises:
            CasdkError: As `exchange`.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close every connection; what is in flight fails with `TransportError`."""

    @staticmethod
    async def settle() -> None:
        """Wait until nothing of the closed channels of this kind is left that a fork would break."""

    @abstractmethod
    def forget(self) -> None:
        """Drop every connection without a word to the server: they belong to the process this one was forked from."""


def run_out(limits: Iterable[asyncio.Timeout]) -> None:
    """End what waits under these timeouts, as if its time had run out."""
    for limit in limits:
        if not limit.expired():
            limit.reschedule(0)


def is_plain(text: str) -> bool:
    """Whether a TLS library says, in OpenSSL's words, that what answered was no TLS."""
    return "WRONG_VERSION_NUMBER" in text or "wrong version number" in text


def no_tls(endpoint: Endpoint) -> ProtocolMismatchError:
    """Return the error of a secure scheme at a port without TLS."""
    plain = counterpart(endpoint.scheme, tls=False)
    return ProtocolMismatchError(
        f"{endpoint}: this port does not speak TLS; use {plain}://", retryable=False, sent=False
    )


def read_pem(source: str | bytes | object, what: str) -> bytes:
    """Return PEM bytes, read from a file unless they are bytes already.

    Raises:
        ConfigError: The file cannot be read, or holds no PEM.
    """
    if isinstance(source, bytes):
        pem = source
    else:
        try:
            pem = Path(str(source)).expanduser().read_bytes()
        except OSError as error:
            raise ConfigError(f"TLS: {what}: {error.strerror}: {source}") from error
    if b"-----BEGIN" not in pem:
        raise ConfigError(f"TLS: {what} holds no PEM block")
    return pem


def ssl_context(tls: TLS, alpn: list[str]) -> ssl.SSLContext:
    """Return the context that the libraries on Python's own ssl module use.

    Raises:
        ConfigError: A certificate or key cannot be read or does not fit.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if tls.ca is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_verify_locations(cadata=read_pem(tls.ca, "ca").decode("ascii"))
        if tls.cert is not None and tls.key is not None:
            _load_chain(context, tls.cert, tls.key)
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise ConfigError(f"TLS: ca, cert or key cannot be used: {error}") from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(alpn)
    return context


class Connected(ssl.SSLSocket):
    """A TLS socket that is closed where the other end is gone before the handshake.

    Python's own leaves one that was reset by then to the garbage collector: no caller has seen it yet.
    """

    def getpeername(self) -> object:
        """Return the other end's address; the first that a handshake asks for."""
        try:
            return super().getpeername()
        except OSError:
            self.close()
            raise ConnectionResetError("closed before the handshake") from None


def secured(context: ssl.SSLContext, sock: socket.socket, host: str) -> ssl.SSLSocket:
    """Shake hands on a connected socket, which from then on belongs to the socket returned, or is closed."""
    context.sslsocket_class = Connected
    return context.wrap_socket(sock, server_hostname=host)


def proxy_headers(proxy: SplitResult) -> dict[str, str]:
    """Return what a proxy with a password in its URL is sent."""
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def _load_chain(context: ssl.SSLContext, cert: object, key: object) -> None:
    """Load a client certificate; ssl reads files only, so bytes go through a private one that is gone at once."""
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        paths = []
        for name, source in (("cert", cert), ("key", key)):
            path = Path(directory, name + ".pem")
            path.touch(mode=0o600)
            path.write_bytes(read_pem(source, name))
            paths.append(path)
        context.load_cert_chain(str(paths[0]), str(paths[1]), password=_no_password)


def _no_password() -> str:
    """Raise where OpenSSL would ask the terminal, and stop everything until somebody answers."""
    raise ConfigError("TLS: key is encrypted: give one without a pass phrase")
