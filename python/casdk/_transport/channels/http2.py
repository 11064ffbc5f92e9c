"""grpc and grpcs: one call of gRPC per request on one HTTP/2 connection, whose bytes Rust reads and writes."""

from __future__ import annotations

import asyncio
from copy import copy
from functools import partial
from typing import Any, Final

from casdk._rust import Failure, Head, Message
from casdk._transport.channels.base import LOG, Channel, Headers, overloaded
from casdk._transport.channels.http2_connection import Connection
from casdk._transport.channels.inspection import Check, ConnectionEndedError, checked
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
"""Codes of HTTP/2 with which a server resets a stream, or says GOAWAY."""
TOO_MANY_PINGS: Final = "too_many_pings"
"""gRPC's word in the GOAWAY of a server that allows pings only every five minutes, its default, while it works at
requests. jina's server sends pings itself, so that a connection to it is checked without ours."""
MOST_MOVES: Final = 5
"""Connections that a request is moved to at most because the one before ended, or had no room, before the server had
begun with it."""
EARLY_SECONDS: Final = 0.05
"""The server has another clock, and may end a call by so much before its time."""


class Http2Channel(Channel):
    """One connection for all calls; a new one when it broke, went silent or takes no more requests.

    Attributes:
        connection: The one that requests are begun on, once there is one.
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
        """Connections that no request is begun on any more, and that some are in flight on."""
        self.closed = False
        self._method = UNARY
        self._heads: dict[str, tuple[Headers, Head]] = {}
        """The head of each method, and the headers that it was made of."""

    @property
    def is_connected(self) -> bool:
        return self.connection is not None and self.connection.usable

    async def exchange(
        self,
        request_id: str,
        message: bytes | memoryview,
        headers: Headers,
        context: Headers = (),
        answer_by: float | None = None,
        repeatable: bool = True,
        check: Check | None = None,
        *,
        method: str | None = None,
        only: Connection | None = None,
    ) -> Message:
        # A call that the server has not begun with is made again on another connection: nobody is to blame for it.
        # All of it is one coroutine, since each one more would be entered twice for each request.
        method = method or self._method
        made_of, head = self._heads.get(method, (None, None))
        if head is None or made_of is not headers:
            head = self._make_head(method, headers)
        if context:
            head = head.with_headers(context)
        sent = False
        for _ in range(MOST_MOVES):
            connection = only or self.connection
            if check is not None:
                connection = await self._checked(check, headers, method, repeatable)
            elif connection is None or (not connection.usable and only is None):
                connection = await self._connect()
            elif not repeatable and not connection.waiting:
                # A turn of the loop, in which it learns of an end that has come already.
                await asyncio.sleep(0)
            began = connection.loop.time()
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
                    # Once alone, since the server may have begun with it, and may end each time that it does.
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
        took = connection.loop.time() - began
        late = is_late(outcome, took, self.timeouts.read if left is None else left)
        if late and left is not None:
            # The caller's own clock, which ends this in a moment, knows how far the call has come.
            await asyncio.sleep(left - took)
        error = self._ours(outcome, request_id) if not late else self.late(left)
        if outcome.kind == "status":
            error.code = CODES[outcome.code]
        elif outcome.kind == "http":
            error.code = str(outcome.code)
        if method is not UNARY or error.code != UNIMPLEMENTED:
            raise error
        # Old gateways have the method of streams alone, which is found out once.
        again = request_id, message, headers, context, answer_by, repeatable, check
        reply = await self.exchange(*again, method=STREAM, only=only)
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
        """Return the connection for a request that only one which was checked may take."""
        if not repeatable:
            await asyncio.sleep(0)  # as above
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
        """Return the connection that is usable; those who wait for it wait for the same one."""
        if self.closed:
            raise self.was_closed(sent=False)
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())
            self._opening.add_done_callback(self._opened)
        try:
            return await asyncio.shield(self._opening)
        except CasdkError as error:
            raise copy(error) from error.__cause__  # one for each call, since the call adds to it

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
            opening.exception()  # retrieved, or asyncio would log that nobody has

    def leave(self, connection: Connection) -> None:
        """Begin no request any more on a connection, which ends with those that are in flight there."""
        if connection is self.connection:
            self.connection = None
        connection.left = True
        if connection.waiting:
            self._others.add(connection)
        else:
            self._others.discard(connection)
            connection.close()

    def note_go_away(self, connection: Connection, code: int, words: str) -> None:
        """Take note of why the server lets no more requests be begun on a connection."""
        if code == ENHANCE_YOUR_CALM and TOO_MANY_PINGS in words and not self.pings_refused:
            LOG.warning("%s refuses pings while it works at a request: it gets none any more", self.endpoint)
            self.pings_refused = True
        self.leave(connection)

    def _ours(self, failure: Failure, request_id: str) -> CasdkError:
        """Return our error for what ended a call, unless its time was over."""
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
    """Whether a call that took so many seconds ran out of its own time; before that, the server means another one."""
    return failure.kind == "status" and CODES[failure.code] in LATE_CODES and took >= limit - EARLY_SECONDS


REFUSED_REPLIES: Final = {
    "foreign": ": what it answers with is no gRPC reply",
    "incomplete": " says that the request succeeded, and sent no whole message",
    "surplus": " sent more than one reply to one request",
    "compressed": ": the reply is compressed, which was not asked for",
}
"""What is wrong with an answer, by the kind of failure."""
