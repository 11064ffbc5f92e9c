"""How a channel opens a connection: the addresses of a server, a tunnel through a proxy, TLS; and the errors of that.

Each of casdk's own channels has a `Connector`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar, cast
from urllib.parse import SplitResult, urlsplit

from casdk._transport.address import SCHEMES, Endpoint
from casdk._transport.channels.addresses import PROXY_PORT, Address, Addresses
from casdk._transport.channels.base import is_plain, no_tls, no_tunnel, proxy_headers, run_out, ssl_context
from casdk._transport.channels.causes import CLOSED_IN_TLS, cause_of
from casdk.config import TLS
from casdk.errors import CasdkError, ProxyError, TLSError, TransportError

__all__ = ["Connector", "ascii_authority", "ascii_host", "authority_field", "host_field", "not_connected"]

P = TypeVar("P", bound=asyncio.Protocol)

LONGEST_ANSWER_BYTES: Final = 64 * 1024
"""The most bytes of a proxy's answer to CONNECT."""
END_OF_HEAD: Final = b"\r\n\r\n"
HANDSHAKE_SECONDS: Final = 60.0
"""asyncio's own timeout of a TLS handshake, which must not end before the timeout of the whole connection."""


class Connector:
    """Opens the connections of one channel, each within the connect timeout.

    A connection goes to the server or to a proxy. The proxy is asked for a tunnel (CONNECT), except for plain http,
    whose requests the proxy passes on itself.

    Args:
        endpoint: The server; its scheme says whether there is TLS, and which protocol TLS asks for (ALPN).
        tls: How to verify the server.
        proxy: URL of the HTTP proxy to go through, if any.
        seconds: The timeout of one connection, from the look-up of the name to the end of the last handshake.
        tunnel: Whether the proxy is asked for a tunnel.
    """

    def __init__(self, endpoint: Endpoint, tls: TLS, proxy: str | None, seconds: float, *, tunnel: bool = True) -> None:
        self._endpoint = endpoint
        self._tls = tls
        self._proxy = None if proxy is None else urlsplit(proxy)
        self._seconds = seconds
        self._tunnel = tunnel
        self._addresses = Addresses()
        self._context: ssl.SSLContext | None = None
        self._underway: set[asyncio.Timeout] = set()
        self._closed = False

    async def connect(
        self, make_protocol: Callable[[], P], shake_hands: Callable[[P], Awaitable[object]] | None = None
    ) -> P:
        """Open a connection and return its protocol, which has its transport by then.

        If this fails or is cancelled, the connection is closed.

        Args:
            make_protocol: Makes the protocol of an open connection, after its TLS handshake.
            shake_hands: Waits until that protocol can be used, if it has a handshake of its own.

        Raises:
            ConfigError: A certificate of the client's cannot be used.
            ProxyError: The proxy refuses, or does not speak HTTP.
            TLSError: The handshake failed, or the server's certificate is wrong.
            ProtocolMismatchError: The port does not speak TLS.
            TransportError: The connection failed, or `close` was called meanwhile.
        """
        # A request without a task gets one here, since the timeout below belongs to the task that sets it.
        await asyncio.sleep(0)
        if self._closed:
            raise self._was_closed()
        if self._endpoint.tls and self._context is None:
            self._context = ssl_context(self._tls, [SCHEMES[self._endpoint.scheme].alpn])
        host, port = self._endpoint.host, self._endpoint.port
        if self._proxy is not None:
            host, port = self._proxy.hostname or "", self._proxy.port or PROXY_PORT
        address: Address | None = None
        try:
            async with self._limited():
                sock, address = await self._addresses.connect(host, port, self._seconds)
                return await self._open(sock, make_protocol, shake_hands)
        except CasdkError:
            raise
        except TimeoutError:
            if self._closed:
                raise self._was_closed() from None
            self._avoid(address)
            seconds = self._seconds
            raise TransportError(f"no connection to {self._endpoint} within {seconds:g} s", sent=False) from None
        except OSError as error:
            self._avoid(address)
            raise not_connected(self._endpoint, error) from error

    async def open_socket(self, greet: Callable[[socket.socket], Awaitable[object]]) -> socket.socket:
        """Return a socket that is connected to the server itself, for a protocol without TLS; see `connect`.

        Args:
            greet: Waits until the protocol can be used.

        Raises:
            OSError: The connection failed; a ``TimeoutError`` if `close` was called meanwhile.
        """
        async with self._limited():
            sock, _ = await self._addresses.connect(self._endpoint.host, self._endpoint.port, self._seconds)
            try:
                await greet(sock)
            except BaseException:
                sock.close()
                raise
            return sock

    @contextlib.asynccontextmanager
    async def _limited(self) -> AsyncIterator[None]:
        async with asyncio.timeout(self._seconds) as limit:
            self._underway.add(limit)
            try:
                yield
            finally:
                self._underway.discard(limit)

    def _avoid(self, address: Address | None) -> None:
        """Try another address first next time: this one took the connection, which then could not be used."""
        if address is not None:
            self._addresses.avoid(address)

    async def _open(
        self,
        sock: socket.socket,
        make_protocol: Callable[[], P],
        shake_hands: Callable[[P], Awaitable[object]] | None,
    ) -> P:
        beginning = Beginning()
        await asyncio.get_running_loop().create_connection(lambda: beginning, sock=sock)
        plain = beginning.transport
        try:
            if self._proxy is not None and self._tunnel:
                await self._open_tunnel(beginning, self._proxy)
            if self._context is not None:
                beginning.transport = await self._secure(beginning, self._context)
            protocol = beginning.hand_over(make_protocol())
            if shake_hands is not None:
                await shake_hands(protocol)
            if self._closed:  # closed in the same turn of the loop in which the connection was ready
                raise self._was_closed()
            return protocol
        except BaseException:
            plain.abort()
            raise

    async def _open_tunnel(self, beginning: Beginning, proxy: SplitResult) -> None:
        """Ask the proxy for a tunnel to the server.

        Raises:
            ProxyError: The proxy refuses, or does not speak HTTP.
            OSError: The connection broke.
        """
        endpoint = self._endpoint
        authority = ascii_authority(endpoint)
        head = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        head += [f"{name}: {value}" for name, value in proxy_headers(proxy).items()]
        beginning.transport.write("\r\n".join([*head, "", ""]).encode("ascii"))
        received = beginning.received
        while (end := received.find(END_OF_HEAD)) < 0:
            if beginning.error is not None:
                raise beginning.error
            if beginning.ended:
                raise ProxyError(f"{endpoint}: the proxy broke off its answer", sent=False)
            if len(received) > LONGEST_ANSWER_BYTES:
                raise ProxyError(f"{endpoint}: the proxy's answer has no end", retryable=False, sent=False)
            await beginning.more()
        version, _, status = received.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        del received[: end + len(END_OF_HEAD)]
        if not version.startswith("HTTP/1."):
            raise ProxyError(f"{endpoint}: the proxy does not speak HTTP", retryable=False, sent=False)
        if not status.startswith("2"):
            raise no_tunnel(endpoint, status)

    async def _secure(self, beginning: Beginning, context: ssl.SSLContext) -> asyncio.Transport:
        """Do the TLS handshake on an open connection.

        Raises:
            OSError: It failed; the error of a wrong certificate is an `ssl.SSLError`.
        """
        if beginning.received:  # a TLS server sends nothing before the client does
            raise no_tls(self._endpoint)
        if beginning.ended:
            raise beginning.error or ConnectionResetError
        secure = await asyncio.get_running_loop().start_tls(
            beginning.transport,
            beginning,
            context,
            server_hostname=self._tls.server_name or self._endpoint.host,
            ssl_handshake_timeout=max(HANDSHAKE_SECONDS, 2 * self._seconds),
        )
        if secure is None:  # the connection was closed in the handshake, without an error
            raise ConnectionResetError
        return secure

    def close(self) -> None:
        """Open no more connections, and close those that are being made."""
        self._closed = True
        run_out(self._underway)

    def _was_closed(self) -> TransportError:
        return TransportError(f"the connection to {self._endpoint} was closed", sent=False)


class Beginning(asyncio.Protocol):
    """The first protocol of a connection: it stores bytes until the channel's own protocol takes over.

    The answer of a proxy is read from it. Behind that answer, or behind a TLS handshake, there may be first bytes of
    the server, which some servers send before the client does; the channel's protocol gets them.

    Attributes:
        transport: The connection's transport; after the TLS handshake, that of TLS.
        received: Bytes that were received and not read yet.
        ended: Whether the connection has ended, so that no more bytes will come.
        error: The error that ended the connection, if there was one.
    """

    def __init__(self) -> None:
        self.transport = cast(asyncio.Transport, None)
        self.received = bytearray()
        self.ended = False
        self.error: Exception | None = None
        self._lost = False
        self._more: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Store received bytes."""
        self.received += data
        self._wake()

    def eof_received(self) -> None:
        """Note the end of what is received; asyncio closes the transport."""
        self.ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end of the connection, and its error."""
        self.ended = self._lost = True
        self.error = exc
        self._wake()

    def _wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    async def more(self) -> None:
        """Wait until more bytes come, or the connection ends."""
        self._more = asyncio.get_running_loop().create_future()
        await self._more

    def hand_over(self, protocol: P) -> P:
        """Pass the connection to another protocol, with the bytes and the end that have come before."""
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if self.received:
            protocol.data_received(bytes(self.received))
        if self.ended:
            protocol.eof_received()
        if self._lost:
            protocol.connection_lost(self.error)
        return protocol


def ascii_authority(endpoint: Endpoint) -> str:
    """Return host and port of a server, the host in the ASCII form of DNS."""
    return Endpoint(endpoint.scheme, ascii_host(endpoint.host), endpoint.port).authority


def authority_field(endpoint: Endpoint) -> str:
    """Return the ``:authority`` of HTTP/2 requests: the server, by its name if a pool has looked up its address."""
    return ascii_authority(Endpoint(endpoint.scheme, endpoint.name or endpoint.host, endpoint.port))


def ascii_host(host: str) -> str:
    """Return a host in the ASCII form of DNS."""
    return host if host.isascii() else host.encode("idna").decode("ascii")


def host_field(endpoint: Endpoint) -> str:
    """Return the ``host`` of HTTP/1.1 requests: the server, with its port if that is not the scheme's default."""
    host = ascii_host(endpoint.name or endpoint.host)
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if endpoint.port == SCHEMES[endpoint.scheme].port else f"{bracketed}:{endpoint.port}"


def not_connected(endpoint: Endpoint, error: OSError) -> TransportError:
    """Return our error for a connection to a server that was not made.

    Args:
        endpoint: The server.
        error: The error of the system or of the TLS library.
    """
    where, text = str(endpoint), str(error)
    if is_plain(text):
        return no_tls(endpoint)
    if isinstance(error, ssl.SSLError):
        retryable = isinstance(error, ssl.SSLEOFError)
        return TLSError(f"{where}: {cause_of(text) or text}", retryable=retryable, sent=False)
    if endpoint.tls and isinstance(error, ConnectionError) and not error.errno:
        return TLSError(f"{where}: {CLOSED_IN_TLS}", sent=False)
    message = str(cause_of(text) or text) or "the connection broke while it was made"
    return TransportError(f"{where}: {message}", sent=False, away=not isinstance(error, socket.gaierror))
