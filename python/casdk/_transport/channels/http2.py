"""grpc and grpcs: one call of gRPC per request on one HTTP/2 connection, whose bytes Rust reads and writes."""

from __future__ import annotations

import asyncio
from copy import copy
from functools import partial
from typing import Any, Final

from casdk._engine.steps import have_task
from casdk._rust import Failure, Head, Http2, Message
from casdk._transport.channels.base import LOG, Channel, Headers, overloaded
from casdk._transport.channels.http2_connection import LARGEST_MESSAGE_BYTES, Connection
from casdk._transport.channels.http2_direct import Begun, DirectConnection, TakenOver, greet
from casdk._transport.channels.inspection import Check, ConnectionEndedError, checked
from casdk._transport.channels.options import DEFAULTS, ExchangeOptions
from casdk._transport.channels.statuses import (
    CODES,
    DRY_RUN,
    LATE_CODES,
    STREAM,
    UNARY,
    broken,
    error_of,
    no_grpc,
    page_error,
)
from casdk._transport.connecting import Connector, authority_field
from casdk.errors import CasdkError, DeadlineError, ReplyError, TransportError

__all__ = ["CHANNEL", "Http2Channel"]

UNIMPLEMENTED: Final = "UNIMPLEMENTED"
CANCEL: Final = 8
ENHANCE_YOUR_CALM: Final = 11
"""Codes of HTTP/2 with which a server resets a stream, or sends GOAWAY."""
TOO_MANY_PINGS: Final = "too_many_pings"
"""gRPC's word in the GOAWAY of a server that, by default, allows a ping only every five minutes while it works at
requests. jina's server sends pings itself, so that a connection to it is checked without ours."""
MOST_MOVES: Final = 5
"""The most connections that a request is moved to, each time because the last one ended, or was full, before the server
had begun with the request."""
EARLY_SECONDS: Final = 0.05
"""The server has another clock, and may end a call by so much before its deadline."""


class Http2Channel(Channel):
    """One connection for all calls; a new one when it broke, went silent or takes no more requests.

    Attributes:
        connection: The connection that requests are begun on, once there is one.
        pings_refused: Whether the server has ended a connection for the pings on it.
        closed: Whether it opens no connection any more.
    """

    has_waiters = True

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.connection: Connection | None = None
        self.pings_refused = False
        self._connector = Connector(self.endpoint, self.tls, self.proxy, self.timeouts.connect)
        self._opening: asyncio.Task[Connection] | None = None
        self._others: set[Connection] = set()
        """Connections that have requests in flight, and on which no more are begun."""
        self.closed = False
        self._method = UNARY
        self._heads: dict[str, tuple[Headers, Head]] = {}
        """For each method, the head of its requests, and the headers that the head was made from."""

    @property
    def is_connected(self) -> bool:
        return self.connection is not None and self.connection.usable

    async def exchange(
        self,
        request_id: str,
        message: bytes | memoryview,
        headers: Headers,
        options: ExchangeOptions = DEFAULTS,
        *,
        method: str | None = None,
        only: Connection | None = None,
    ) -> Message:
        # A call that the server has not begun with is made again on another connection, which counts as no attempt.
        # This is one coroutine, since each further coroutine would be entered twice for each request.
        method = method or self._method
        made_of, head = self._heads.get(method, (None, None))
        if head is None or made_of is not headers:
            head = self._make_head(method, headers)
        begun_before = None if options.begun is None else options.begun.take()
        if options.context:
            head = head.with_headers(options.context)
        answer_by, repeatable, check = options.answer_by, options.repeatable, options.check
        sent = False
        for _ in range(MOST_MOVES):
            connection = only or self.connection
            if begun_before is not None:
                connection = await self._take_over(begun_before)
            elif check is not None:
                connection = await self._checked(check, headers, method, repeatable)
            elif connection is None or (not connection.usable and only is None):
                connection = await self._connect()
            elif not repeatable and not connection.waiting:
                # One turn of the loop, so that an end of the connection that has come already is noticed.
                await asyncio.sleep(0)
            began = connection.loop.time() if begun_before is None else begun_before.began
            begun_before = None  # only the calling thread's connection is taken over; further ones are chosen here
            left = None if answer_by is None else self.time_left(began, answer_by)
            begun = connection.begin(head, message, left)
            if begun is not None:
                stream, waiter = begun
                try:
                    await waiter
                    outcome = waiter.outcome if waiter.is_reply else waiter.result()
                except (asyncio.CancelledError, DeadlineError) as end:
                    had_time = isinstance(end, DeadlineError) or self.had_time(began, answer_by)
                    connection.take_back(stream, began if had_time else None)
                    raise
                if isinstance(outcome, Message):
                    return outcome
                if outcome.kind == "lost" and connection.stale and repeatable and not sent:
                    # Only once, since the server may have begun with the request, and the request may be what ends it.
                    sent = True
                elif outcome.kind != "refused":
                    break
            if self.closed:
                raise self.was_closed(sent=sent)
            self.leave(connection)
            if only is not None:
                raise ConnectionEndedError
        else:
            raise TransportError(f"{self.endpoint} ends each connection before it begins with a request", sent=sent)
        error = await self._error_of(outcome, request_id, left, connection.loop.time() - began)
        if method is not UNARY or error.code != UNIMPLEMENTED:
            raise error
        # Old gateways have only the streaming method, which is found out once.
        reply = await self.exchange(request_id, message, headers, options, method=STREAM, only=only)
        self._method = STREAM
        return reply

    async def dry_run(self, headers: Headers) -> bytes | None:
        try:
            return bytes(await self.exchange("", b"", headers, method=DRY_RUN))
        except CasdkError as error:
            if error.code == UNIMPLEMENTED:
                return None
            raise

    async def _checked(self, check: Check, headers: Headers, method: str, repeatable: bool) -> Connection:
        ask = partial(self._ask_on, headers, method)
        return await checked(check, self.endpoint, partial(self._connected, repeatable), ask)

    async def _connected(self, repeatable: bool) -> Connection:
        """Return the connection for a request with a check."""
        if not repeatable:
            await asyncio.sleep(0)  # so that an end of the connection that has come already is noticed
        connection = self.connection
        return connection if connection is not None and connection.usable else await self._connect()

    async def _ask_on(
        self, headers: Headers, method: str, connection: Connection, request_id: str, message: bytes | memoryview
    ) -> Message:
        return await self.exchange(request_id, message, headers, method=method, only=connection)

    def _make_head(self, method: str, headers: Headers) -> Head:
        head = Head(self.endpoint.tls, authority_field(self.endpoint), method, self.timeouts.read, list(headers))
        self._heads[method] = headers, head
        return head

    async def _connect(self) -> Connection:
        """Return a usable connection; all requests that wait for one wait for the same one."""
        if self.closed:
            raise self.was_closed(sent=False)
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())
            self._opening.add_done_callback(self._opened)
        try:
            return await asyncio.shield(self._opening)
        except CasdkError as error:
            raise copy(error) from error.__cause__  # a copy for each call, since each adds details to its error

    async def _open(self) -> Connection:
        connection = await self._connector.connect(lambda: Connection(self), Connection.greeted)
        if self.connection is not None:
            self.leave(self.connection)
        self.connection = connection
        self.connected()
        return connection

    def _opened(self, opening: asyncio.Task[Connection]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # retrieved, since asyncio logs an exception that was never retrieved

    async def open_direct(self, headers: Headers) -> DirectConnection | None:
        """Open a connection on which the calling thread itself sends requests and receives their replies.

        Args:
            headers: Headers of its requests.

        Returns:
            ``None`` if the way to the server is none for a plain socket.

        Raises:
            OSError: It was not opened; a ``TimeoutError`` if that took too long.
        """
        if self.endpoint.tls or self.proxy is not None:
            return None
        http2 = Http2(min(self.limits.max_reply_bytes, LARGEST_MESSAGE_BYTES))
        sock = await self._connector.open_socket(partial(greet, http2=http2))
        head = self._make_head(self._method, headers)
        return DirectConnection(sock, http2, head, headers, self.timeouts.read)

    async def _take_over(self, begun: Begun) -> Connection:
        """Return the connection of a request that the calling thread has begun."""
        await have_task()  # since nothing that follows waits for a reply, if the outcome is there already
        connection = TakenOver(self, begun)
        await connection.connect()
        if connection.waiting:
            self._others.add(connection)
        kept, outcome = self.connection, begun.outcome
        if isinstance(outcome, Failure) and outcome.kind == "lost" and kept is not None and not kept.waiting:
            self.leave(kept)  # it was idle, too, and the server may have closed all of its connections
        if self.closed:  # meanwhile
            connection.close()
        return connection

    def leave(self, connection: Connection) -> None:
        """Begin no more requests on a connection; it is closed when those in flight on it have ended."""
        if connection is self.connection:
            self.connection = None
        connection.left = True
        if connection.waiting:
            self._others.add(connection)
        else:
            self._others.discard(connection)
            connection.close()

    def note_go_away(self, connection: Connection, code: int, words: str) -> None:
        """Note a GOAWAY: the server takes no more requests on a connection, and this is why."""
        if code == ENHANCE_YOUR_CALM and TOO_MANY_PINGS in words and not self.pings_refused:
            LOG.warning("%s refuses pings while it works at a request: it gets none any more", self.endpoint)
            self.pings_refused = True
        self.leave(connection)

    async def _error_of(self, failure: Failure, request_id: str, left: float | None, took: float) -> CasdkError:
        """Return the error of a call that failed after so many seconds; if it ran out of time, at its deadline."""
        late = is_late(failure, took, self.timeouts.read if left is None else left)
        if late and left is not None:
            # The call's own timeout ends this in a moment, with an error that says how many items were done.
            await asyncio.sleep(left - took)
        error = self.late(left) if late else self._ours(failure, request_id)
        if failure.kind == "status":
            error.code = CODES[failure.code]
        elif failure.kind == "http":
            error.code = str(failure.code)
        return error

    def _ours(self, failure: Failure, request_id: str) -> CasdkError:
        """Return our error for the failure of a call that did not end by its deadline."""
        kind, where = failure.kind, str(self.endpoint)
        if kind == "status":
            return error_of(self.endpoint, CODES[failure.code], failure.words, failure.asked, request_id)
        if kind == "http":
            return page_error(self.endpoint, failure.code, failure.asked, request_id)
        if kind == "reset":
            said = f"{where}: the server reset the stream with {failure.words}"
            if failure.code == ENHANCE_YOUR_CALM:
                return overloaded(said, request_id=request_id)
            return TransportError(said, away=failure.code == CANCEL)
        if kind in REFUSED_REPLIES:
            return ReplyError(f"{where}{REFUSED_REPLIES[kind]}")
        if kind == "too_large":
            most = self.limits.max_reply_bytes
            return ReplyError(f"{where}: the reply is larger than Limits.max_reply_bytes ({most})")
        if kind == "rules":
            return ReplyError(f"{where}: the reply breaks the rules of HTTP/2 ({failure.words})")
        if kind == "protocol":
            return no_grpc(self.endpoint)
        return broken(self.endpoint, sent=failure.sent)

    async def aclose(self) -> None:
        self.closed = True
        self._connector.close()
        if self._opening is not None:
            await asyncio.wait([self._opening])
        connection, self.connection = self.connection, None
        others, self._others = self._others, set()
        for one in others:
            one.close()
        if connection is not None:
            connection.close()
            LOG.info("the connection to %s is closed", self.endpoint)


CHANNEL = Http2Channel


def is_late(failure: Failure, took: float, limit: float) -> bool:
    """Whether a call ended by its own deadline; an earlier such status is of a deadline of the server's own."""
    return failure.kind == "status" and CODES[failure.code] in LATE_CODES and took >= limit - EARLY_SECONDS


REFUSED_REPLIES: Final = {
    "foreign": ": what it answers with is no gRPC reply",
    "incomplete": " says that the request succeeded, and sent no whole message",
    "surplus": " sent more than one reply to one request",
    "compressed": ": the reply is compressed, which was not asked for",
}
"""What is wrong with an answer, in words, by the kind of failure."""
