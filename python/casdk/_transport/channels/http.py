"""http and https: one POST per request on kept connections (httpcore, the lower half of httpx)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterable
from socket import gaierror
from typing import Any, Final, TypeAlias, cast
from urllib.parse import urlsplit

import httpcore

from casdk._engine.logging import divert
from casdk._remarks import remark
from casdk._rust import first_id_of
from casdk._transport.channels.addresses import PROXY_PORT
from casdk._transport.channels.base import (
    LOG,
    Headers,
    Hidden,
    is_plain,
    no_tls,
    no_tunnel,
    proxy_headers,
    run_out,
    ssl_context,
)
from casdk._transport.channels.causes import cause_of
from casdk._transport.channels.network import Network
from casdk._transport.channels.pairing import HEADERS, IDLE_SECONDS, Asked, Pairing, PairingChannel
from casdk._transport.channels.refusals import NO_SUCH_PATH, refusal_of
from casdk._transport.connecting import ascii_host
from casdk.errors import (
    CasdkError,
    DeadlineError,
    ProtocolMismatchError,
    ReplyError,
    TLSError,
    TransportError,
)

__all__ = ["CHANNEL"]

divert("httpcore")

HttpcoreConnection: TypeAlias = "httpcore.AsyncHTTPConnection | httpcore.AsyncHTTPProxy"
RawHeaders: TypeAlias = "list[tuple[bytes, bytes]]"
FOREIGN: Final = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError)
PIECES_IN_A_TURN: Final = 64
"""Pieces of a reply that are read in one turn of the loop. Usually each read of the socket is one piece."""
NO_HEAD: Final = ("illegal status line", "illegal request line", "no response line", "Receive buffer too long")
"""Words of h11 for what does not begin as a reply of HTTP/1.1 does."""


class HttpChannel(PairingChannel):
    """JSON bodies to ``/post`` on at most ``limits.connections`` connections, the last one used first."""

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self._connections_open: set[Connection] = set()
        self._idle: list[Connection] = []
        self._context: ssl.SSLContext | None = None
        self._closed = False
        self._underway: set[asyncio.Timeout] = set()
        self._ended = asyncio.Event()
        # Waiting for a free connection is not waiting for the server, so it happens outside the timeout.
        self._free = asyncio.Semaphore(self.limits.connections)
        self._network = Network(self.connected, self.endpoint.tls)
        scheme, host = "https" if self.endpoint.tls else "http", ascii_host(self.endpoint.host)
        self._url = httpcore.URL(scheme=scheme, host=host, port=self.endpoint.port, target="/post")
        self._dry_run_url = httpcore.URL(scheme=scheme, host=host, port=self.endpoint.port, target="/dry_run")
        self._head = [(name.encode("ascii"), value.encode("ascii")) for name, value in (("host", self.host), *HEADERS)]
        # The whole exchange is timed below; connecting has a limit of its own.
        self._extensions: dict[str, Any] = {"timeout": {"connect": self.timeouts.connect}}
        if self.endpoint.tls and self.tls.server_name is not None:
            self._extensions["sni_hostname"] = self.tls.server_name

    def _open(self) -> Connection:
        if self.endpoint.tls and self._context is None:
            self._context = ssl_context(self.tls, ["http/1.1"])
        options: dict[str, Any] = {"ssl_context": self._context, "network_backend": self._network}
        if self.proxy is None:
            connection = Connection(
                httpcore.AsyncHTTPConnection(self._url.origin, keepalive_expiry=IDLE_SECONDS, **options)
            )
        else:
            proxy = urlsplit(self.proxy)
            host, port = ascii_host(proxy.hostname or ""), proxy.port or PROXY_PORT
            way = httpcore.AsyncHTTPProxy(
                httpcore.URL(scheme="http", host=host, port=port, target="/"),
                proxy_headers=[(name.encode(), Hidden(value, "ascii")) for name, value in proxy_headers(proxy).items()],
                max_connections=1,
                keepalive_expiry=IDLE_SECONDS,
                **options,
            )
            connection = Connection(way)
        self._connections_open.add(connection)
        return connection

    async def _end(self, connection: Connection) -> None:
        self._connections_open.discard(connection)
        await asyncio.shield(connection.transport.aclose())

    async def exchange(
        self,
        request_id: str,
        message: bytes,
        headers: Headers,
        context: Headers = (),
        answer_by: float | None = None,
        repeatable: bool = True,
    ) -> bytes:
        length = (b"content-length", b"%d" % len(message))
        asked = Asked(request_id, first_id_of(message))
        sent = [*self._head, length, *_raw(headers), *_raw(context)]
        response, body = await self._ask("POST", self._url, sent, message, asked, answer_by)
        if response.status != 200:
            raise self._refusal(response, body)
        return body

    async def dry_run(self, headers: Headers) -> bytes | None:
        response, body = await self._ask("GET", self._dry_run_url, [*self._head, *_raw(headers)])
        if response.status in NO_SUCH_PATH:
            return None
        if response.status != 200:
            raise self._refusal(response, body)
        return body

    def _refusal(self, response: httpcore.Response, body: bytes) -> CasdkError:
        readable = body if _encoding(response) == "identity" else b""
        return refusal_of(response.status, readable, _header(response, b"retry-after"), str(self.endpoint))

    async def _ask(
        self,
        method: str,
        url: httpcore.URL,
        headers: RawHeaders,
        content: bytes = b"",
        asked: Asked | None = None,
        answer_by: float | None = None,
    ) -> tuple[httpcore.Response, bytes]:
        loop = asyncio.get_running_loop()
        request = httpcore.Request(method, url, headers=headers, content=content, extensions=self._extensions)
        async with self._free:
            connection = await self._connection_for(asked)
            began = loop.time()
            try:
                response, body = await self._ask_on(connection.transport, request)
                named = asked is not None and response.status == 200 and self.pair(connection.pairing, asked, body)
            except BaseException as error:
                # httpcore may treat the connection of a cancelled request as busy for ever, so it is closed.
                await self._end(connection)
                given_up = isinstance(error, asyncio.CancelledError) and self.had_time(began, answer_by)
                if given_up or isinstance(error, DeadlineError):
                    await asyncio.gather(*map(self._end, self.take_silent(self._idle, began)))
                raise
            if asked is None or not (named and self.trusted):
                await self._end(connection)
            elif connection in self._connections_open:  # not closed meanwhile
                connection.pairing.note_answer(asked, loop.time())
                self._idle.append(connection)
            return response, body

    async def _connection_for(self, asked: Asked | None) -> Connection:
        while not self._closed:
            if not self._idle:
                return self._open()
            connection = self._idle.pop()
            if asked is not None and self.trusted and connection.pairing.can_pair(asked) and not connection.gone:
                return connection
            await self._end(connection)
        raise TransportError(f"the connections to {self.endpoint} were closed", sent=False)

    async def _ask_on(
        self, transport: HttpcoreConnection, request: httpcore.Request
    ) -> tuple[httpcore.Response, bytes]:
        begun = False
        try:
            async with asyncio.timeout(self.timeouts.read) as limit:
                self._underway.add(limit)
                try:
                    response = await transport.handle_async_request(request)
                    begun = True
                    try:
                        body = await self._read(response)
                    finally:
                        await response.aclose()
                finally:
                    self._underway.discard(limit)
                    # Breaks the reference cycle of the timeout, its task, the error raised here and this frame.
                    del limit
                    if self._closed and not self._underway:
                        self._ended.set()
        except TimeoutError:
            if self._closed:
                raise TransportError(f"the connections to {self.endpoint} were closed") from None
            raise DeadlineError(f"{self.endpoint} sent no reply within {self.timeouts.read:g} s") from None
        except FOREIGN as error:
            raise self._ours(error, begun) from error
        except OSError as error:  # httpcore imports something before it connects, for which there is no descriptor left
            raise TransportError(f"{self.endpoint}: {cause_of(str(error)) or error.strerror}", sent=False) from error
        return response, body

    async def _read(self, response: httpcore.Response) -> bytes:
        encoding = _encoding(response)
        if response.status == 200 and encoding != "identity":
            said = f"the reply has a Content-Encoding ({remark(encoding)!r}), which was not asked for"
            raise ReplyError(f"{self.endpoint}: {said}")
        most = self.limits.max_reply_bytes
        pieces: list[bytes] = []
        size = int(_header(response, b"content-length") or 0)
        if size <= most:
            size = 0
            async for piece in cast(AsyncIterable[bytes], response.stream):
                size += len(piece)
                if size > most:
                    break
                pieces.append(piece)
                if len(pieces) % PIECES_IN_A_TURN == 0:  # a server that sends a byte at a time would block the loop
                    await asyncio.sleep(0)
        if size > most:
            raise ReplyError(f"{self.endpoint}: the reply is larger than Limits.max_reply_bytes ({most})")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _ours(self, error: Exception, begun: bool) -> CasdkError:
        """Return our error for one of httpcore's; ``begun`` says whether the reply's head had been read."""
        where, text = str(self.endpoint), remark(str(error))
        if isinstance(error, httpcore.ConnectTimeout):
            return TransportError(f"no connection to {where} within {self.timeouts.connect:g} s", sent=False)
        if isinstance(error, httpcore.ProxyError):
            return no_tunnel(self.endpoint, text)
        if isinstance(error, httpcore.ConnectError):
            if is_plain(text):
                return no_tls(self.endpoint)
            if "SSL" in text or "TLS" in text or "certificate" in text:
                return TLSError(f"{where}: {cause_of(text) or text}", retryable="EOF" in text, sent=False)
            away = not isinstance(error.__cause__, gaierror)
            said = f"{where}: {cause_of(text) or text or 'the connection broke while it was made'}"
            return TransportError(said, sent=False, away=away)
        if isinstance(error, httpcore.RemoteProtocolError) and "disconnected" not in text and "peer closed" not in text:
            if begun or not text.startswith(NO_HEAD):
                return ReplyError(f"{where}: the reply breaks the rules of HTTP/1.1 ({text})")
            other = "grpcs" if self.endpoint.tls else "grpc"
            return ProtocolMismatchError(
                f"{where}: this port does not speak HTTP/1.1 ({text}); try {other}://", retryable=False
            )
        return TransportError(f"{where}: {text or type(error).__name__}")

    async def aclose(self) -> None:
        self._closed = True
        # First those that are still being made, which are not among the open ones yet.
        run_out(self._underway)
        if self._underway:
            await self._ended.wait()
        connections, self._connections_open, self._idle = self._connections_open, set(), []
        for connection in connections:
            await connection.transport.aclose()
        if connections:
            LOG.info("the connections to %s are closed", self.endpoint)


class Connection:
    """A connection of httpcore's; `HttpChannel` has a list of idle ones.

    httpcore's pool is not used: it looks at all its connections several times a request, which costs more than the
    request. Nor is httpx's client, whose redirects, cookies and auth flow cost as much and are not needed here.

    Attributes:
        pairing: Which requests were made on it.
    """

    __slots__ = ("pairing", "transport")

    def __init__(self, transport: HttpcoreConnection) -> None:
        self.transport = transport
        self.pairing = Pairing()

    @property
    def gone(self) -> bool:
        """Whether it was closed while it was idle; a connection through a proxy checks that itself."""
        transport = self.transport
        return isinstance(transport, httpcore.AsyncConnectionInterface) and (
            transport.is_closed() or transport.has_expired()
        )


CHANNEL = HttpChannel


def _raw(headers: Headers) -> RawHeaders:
    return [(name.encode("ascii"), Hidden(value, "ascii")) for name, value in headers]


def _encoding(response: httpcore.Response) -> str:
    return (_header(response, b"content-encoding") or "identity").strip().lower()


def _header(response: httpcore.Response, wanted: bytes) -> str | None:
    return next((value.decode("latin-1") for name, value in response.headers if name.lower() == wanted), None)
