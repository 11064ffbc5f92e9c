"""http and https on httpx: one POST per request, on connections that httpx keeps."""

from __future__ import annotations

import asyncio
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import httpx

from casdk._engine.logging import divert
from casdk._remarks import remark
from casdk._rust import first_id_of
from casdk._transport.channels.base import LOG, Headers, no_tunnel, run_out, ssl_context
from casdk._transport.channels.libraries.counting import CountingChannel
from casdk._transport.channels.options import DEFAULTS, ExchangeOptions
from casdk._transport.channels.pairing import HEADERS, IDLE_SECONDS, Asked, Pairing, PairingChannel
from casdk._transport.channels.refusals import NO_SUCH_PATH, refusal_of
from casdk._transport.connecting import not_connected
from casdk.errors import CasdkError, DeadlineError, ProtocolMismatchError, ReplyError, TransportError

__all__ = ["CHANNEL", "HttpChannel"]

divert("httpx", "httpcore")

PIECES_IN_A_TURN: Final = 64
"""Pieces of a reply that are read in one turn of the loop."""
NO_HEAD: Final = ("illegal status line", "illegal request line", "no response line", "Receive buffer too long")
"""Words of h11 for bytes that do not begin like a reply of HTTP/1.1."""
NO_ANSWER: Final = ("disconnected", "peer closed")
"""Words of httpcore and h11 for a connection that ended before the end of a reply."""


class Pool:
    """A client of httpx's, with the connections that it keeps; an `HttpChannel` sends its requests to one at a time.

    httpx does not let its caller choose the connection of a request. So the state of one connection in `HttpChannel` of
    our own is the state of a whole pool here, and a request that must not follow earlier ones gets another pool.

    Attributes:
        client: httpx's client.
        pairing: The requests that it has carried.
        requests: Number of requests in flight.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.pairing = Pairing()
        self.requests = 0


class Connecting:
    """Follows the steps in which httpx opens a connection for a request; httpx calls it with each (``trace``).

    Args:
        channel: The channel, which is notified when a connection is open, after its TLS handshake.
    """

    def __init__(self, channel: HttpChannel) -> None:
        self._channel = channel
        self._unfinished: Any = None

    async def __call__(self, step: str, details: dict[str, Any]) -> None:
        """Note a step."""
        opened, tls = step.endswith("connect_tcp.complete"), self._channel.endpoint.tls
        if opened and tls:
            self._unfinished = details["return_value"]
        elif opened or step.endswith("start_tls.complete"):
            self._unfinished = None
            self._channel.connected()

    async def aclose(self) -> None:
        """Close a connection that is not open yet: httpx does not close it if its TLS handshake is cancelled."""
        if self._unfinished is not None:
            await self._unfinished.aclose()


class HttpChannel(CountingChannel, PairingChannel):
    """JSON bodies to ``/post`` on at most ``limits.connections`` connections."""

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self._pool: Pool | None = None
        self._pools: set[Pool] = set()
        self._context: ssl.SSLContext | None = None
        self._closed = False
        self._underway: set[asyncio.Timeout] = set()
        self._ended = asyncio.Event()
        # Waiting for a free connection is not waiting for the server, so it has no timeout.
        self._free = asyncio.Semaphore(self.limits.connections)
        self._url = f"{'https' if self.endpoint.tls else 'http'}://{self.host}"
        self._extensions: dict[str, Any] = {}
        if self.endpoint.tls and self.tls.server_name is not None:
            self._extensions["sni_hostname"] = self.tls.server_name

    def _make_client(self) -> httpx.AsyncClient:
        if self.endpoint.tls and self._context is None:
            self._context = ssl_context(self.tls, ["http/1.1"])
        client = httpx.AsyncClient(
            verify=self._context or False,
            proxy=self.proxy,
            # Neither proxies from the environment nor a password of a .netrc: one place decides that for all schemes.
            trust_env=False,
            # The whole exchange has one timeout, and connecting has its own; the semaphore limits the connections.
            timeout=httpx.Timeout(None, connect=self.timeouts.connect),
            limits=httpx.Limits(max_keepalive_connections=None, keepalive_expiry=IDLE_SECONDS),
            headers=HEADERS,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )
        del client.headers["connection"]  # "keep-alive", which HTTP/1.1 means anyway
        return client

    async def _exchange(
        self,
        request_id: str,
        message: bytes,
        headers: Headers,
        options: ExchangeOptions = DEFAULTS,
    ) -> bytes:
        asked = Asked(request_id, first_id_of(message))
        response, body = await self._ask(
            "POST", "/post", (*headers, *options.context), message, asked, options.answer_by
        )
        if response.status_code != 200:
            raise self._refusal(response, body)
        return body

    async def dry_run(self, headers: Headers) -> bytes | None:
        response, body = await self._ask("GET", "/dry_run", headers)
        if response.status_code in NO_SUCH_PATH:
            return None
        if response.status_code != 200:
            raise self._refusal(response, body)
        return body

    def _refusal(self, response: httpx.Response, body: bytes) -> CasdkError:
        readable = body if _encoding(response) == "identity" else b""
        return refusal_of(response.status_code, readable, _header(response, "retry-after"), str(self.endpoint))

    async def _ask(
        self,
        method: str,
        path: str,
        headers: Headers,
        content: bytes = b"",
        asked: Asked | None = None,
        answer_by: float | None = None,
    ) -> tuple[httpx.Response, bytes]:
        loop = asyncio.get_running_loop()
        async with self._free:
            pool = self._pool_for(asked)
            pool.requests += 1
            began, keep_alive = loop.time(), True
            connecting = Connecting(self)
            try:
                request = pool.client.build_request(
                    method,
                    self._url + path,
                    headers=list(headers),
                    content=content,
                    extensions={**self._extensions, "trace": connecting},
                )
                response, body = await self._send(pool.client, request)
                keep_alive = asked is not None and response.status_code == 200 and self._is_paired(pool, asked, body)
                return response, body
            except (asyncio.CancelledError, DeadlineError) as error:
                if isinstance(error, DeadlineError) or self.had_time(began, answer_by):
                    keep_alive = not self.take_silent([pool], began)
                raise
            except ReplyError:
                keep_alive = False
                raise
            except httpx.InvalidURL as error:  # a host of numbers that is no address
                raise TransportError(f"{self.endpoint}: {remark(str(error))}", sent=False, away=False) from error
            finally:
                await connecting.aclose()
                pool.requests -= 1
                if pool is self._pool and not (keep_alive and self.trusted):
                    self._pool = None
                await self._close_unused()

    async def _close_unused(self) -> None:
        """Close the pools that have no request in flight, except the one for the next request."""
        for pool in [pool for pool in self._pools if pool is not self._pool and not pool.requests]:
            self._pools.discard(pool)
            await asyncio.shield(pool.client.aclose())

    def _is_paired(self, pool: Pool, asked: Asked, body: bytes) -> bool:
        named = self.pair(pool.pairing, asked, body)
        if named:
            pool.pairing.note_answer(asked, asyncio.get_running_loop().time())
        return named

    def _pool_for(self, asked: Asked | None) -> Pool:
        if self._closed:
            raise TransportError(f"the connections to {self.endpoint} were closed", sent=False)
        pool = self._pool
        if pool is not None and asked is not None and self.trusted and pool.pairing.can_pair(asked):
            return pool
        self._pools.add(new := Pool(self._make_client()))
        if asked is not None:
            self._pool = new
        return new

    async def _send(self, client: httpx.AsyncClient, request: httpx.Request) -> tuple[httpx.Response, bytes]:
        begun = False
        try:
            async with asyncio.timeout(self.timeouts.read) as limit:
                self._underway.add(limit)
                try:
                    response = await client.send(request, stream=True)
                    begun = True
                    try:
                        return response, await self._read(response)
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
            raise self.late() from None
        except httpx.HTTPError as error:
            raise self._ours(error, begun) from error
        except OSError as error:  # raised by an import of httpx, if there is no file descriptor left
            raise not_connected(self.endpoint, error) from error

    async def _read(self, response: httpx.Response) -> bytes:
        encoding = _encoding(response)
        if response.status_code == 200 and encoding != "identity":
            said = f"the reply has a Content-Encoding ({remark(encoding)!r}), which was not asked for"
            raise ReplyError(f"{self.endpoint}: {said}")
        most = self.limits.max_reply_bytes
        pieces: list[bytes] = []
        size = int(_header(response, "content-length") or 0)
        if size <= most:
            size = 0
            async for piece in response.aiter_raw():
                size += len(piece)
                if size > most:
                    break
                pieces.append(piece)
                if len(pieces) % PIECES_IN_A_TURN == 0:  # a server that sends a byte at a time would block the loop
                    await asyncio.sleep(0)
        if size > most:
            raise ReplyError(f"{self.endpoint}: the reply is larger than Limits.max_reply_bytes ({most})")
        return b"".join(pieces)

    def _ours(self, error: httpx.HTTPError, begun: bool) -> CasdkError:
        """Return our error for one of httpx's; ``begun`` says whether the reply's head was read."""
        where, text = str(self.endpoint), remark(str(error))
        if isinstance(error, httpx.ConnectTimeout):
            return TransportError(f"no connection to {where} within {self.timeouts.connect:g} s", sent=False)
        if isinstance(error, httpx.ProxyError):
            return no_tunnel(self.endpoint, text)
        if isinstance(error, httpx.ConnectError):
            return not_connected(self.endpoint, _reason(error))
        if isinstance(error, httpx.RemoteProtocolError) and not any(words in text for words in NO_ANSWER):
            if begun or not text.startswith(NO_HEAD):
                return ReplyError(f"{where}: the reply breaks the rules of HTTP/1.1 ({text})")
            other = "grpcs" if self.endpoint.tls else "grpc"
            return ProtocolMismatchError(
                f"{where}: this port does not speak HTTP/1.1 ({text}); try {other}://", retryable=False
            )
        return TransportError(f"{where}: {text or type(error).__name__}")

    async def aclose(self) -> None:
        self._closed = True
        run_out(self._underway)
        if self._underway:
            await self._ended.wait()
        self._pool = None
        pools, self._pools = self._pools, set()
        for pool in pools:
            await pool.client.aclose()
        if pools:
            LOG.info("the connections to %s are closed", self.endpoint)


CHANNEL = HttpChannel


def _reason(error: BaseException) -> OSError:
    """Return the error of the system or the TLS library, from which other libraries have made theirs.

    There is none if the connection was closed in the middle of the TLS handshake.
    """
    said: OSError = ConnectionResetError()
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError):
            said = below
        below = below.exceptions[0] if isinstance(below, BaseExceptionGroup) else below.__cause__ or below.__context__
    return said


def _encoding(response: httpx.Response) -> str:
    return (_header(response, "content-encoding") or "identity").strip().lower()


def _header(response: httpx.Response, name: str) -> str | None:
    return next(iter(response.headers.get_list(name)), None)
