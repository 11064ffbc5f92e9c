"""One websocket, an asyncio protocol around the state machine in Rust, which reads and writes the frames.

`WebsocketChannel` opens and owns them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable
from copy import copy
from math import inf
from typing import TYPE_CHECKING, Final, cast

from casdk._engine.waiter import Waiter
from casdk._rust import End, Message, Websocket
from casdk._transport.channels.base import LOG, TICK_SECONDS, Headers, too_large
from casdk._transport.channels.closes import (
    IDLE_CLOSES,
    SERVER_LIMIT,
    TOO_BIG,
    closed_with,
    handshake_refused,
    no_websocket,
)
from casdk._transport.channels.defects import defect
from casdk._transport.channels.unread import ReadToTheEnd
from casdk.errors import CasdkError, DeadlineError, ReplyError, TransportError

if TYPE_CHECKING:
    from casdk._transport.channels.websocket import WebsocketChannel

__all__ = ["REQUESTS", "Connection"]

SUBPROTOCOL: Final = "bytes"
"""The subprotocol that the handshake asks for: without it the gateway speaks JSON. The gateway does not confirm it."""
REQUESTS: Final = "/"
"""The path of a connection for requests; only on this path the end of input is sent."""
END_OF_INPUT: Final = b"\x00"
"""Jina's end of input, ``bytes(True)``: the server finishes what is in flight and closes."""
CLOSE_SECONDS: Final = 1.0
"""How long a connection that is closed waits until the server has read the last bytes."""
OUTPUTS_IN_A_TURN: Final = 8
"""Pieces of a large request that are written in one turn of the loop, so that other requests get their turn."""
TURNS_AT_THE_END: Final = 32
"""The most steps in which the bytes received before the end of the connection are read, all in one turn of the loop:
over TLS, asyncio reports the end at once."""
NOBODY: Final = (None, 0.0, 0)
"""The entry of a request that is not in flight any more: no waiter, no deadline, no size."""


class Connection(ReadToTheEnd):
    """A connection, with the requests that wait for a reply on it, the oldest first.

    Bytes are handed to the transport once in a turn of the loop, for all requests that began in it. While the
    transport's buffer is full, no more bytes are taken from Rust. Bytes behind the answer to the handshake are read
    when the first request is sent, so that an error among them becomes the error of that request.

    Args:
        channel: The channel that owns it.
        headers: The headers of its requests, which its handshake sends.
        context: Further headers of the handshake.
        path: The path of the handshake.
        identify: Returns the id of the request that a message answers.

    Attributes:
        loop: The engine's loop.
        headers: The headers of its requests.
        waiting: The waiter, the deadline and the size of each request in flight, by the request's id.
        usable: Whether a request can be begun on it.
        stale: Whether it was used before, and the server ended it without an answer to any request since it was idle,
            and not because of a request. It may have been closed before the server saw these requests.
        lost: Done when its socket is closed.
    """

    def __init__(
        self,
        channel: WebsocketChannel,
        headers: Headers,
        context: Headers,
        path: str,
        identify: Callable[[Message], str],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.headers = headers
        self.waiting: dict[str, tuple[Waiter[Message], float, int]] = {}
        self.usable = self.stale = False
        self.lost: asyncio.Future[None] = self.loop.create_future()
        self._channel = channel
        self._identify = identify
        self._takes_requests = path == REQUESTS
        fields = [("user-agent", "casdk"), *headers, *context]
        self._websocket = Websocket(channel.host, path, SUBPROTOCOL, fields, channel.limits.max_reply_bytes)
        self._transport = cast(asyncio.Transport, None)
        self._opened: asyncio.Future[None] = self.loop.create_future()
        self._received_at = self.loop.time()
        self._answered_at, self._busy_since = inf, 0.0
        """When the last reply came, and when the first of the requests in flight began."""
        self._timer: asyncio.TimerHandle | None = None
        self._pinger: asyncio.TimerHandle | None = None
        self._written = 0
        """Bytes that were handed to the transport."""
        self._given_up = 0
        """Bytes of the largest cancelled request, which the server may still work at."""
        self._begun = self._flushing = self._full = self._unread = self._paused = False
        self._silent = self._closing = self._no_more = self._ended = False

    # called by the channel

    async def opened(self) -> None:
        """Wait until the server has answered the handshake.

        Raises:
            CasdkError: It does not speak websocket, or refuses.
            OSError: TLS failed.
        """
        await self._opened

    async def call(self, request_id: str, message: bytes | memoryview, answer_by: float | None) -> Message:
        """Send a request and return its reply.

        Args:
            request_id: What the reply is recognised by.
            message: What is sent.
            answer_by: As for `Channel.exchange`.

        Raises:
            CasdkError: No answer came in time, or the connection ended.
        """
        channel, loop = self._channel, self.loop
        began = loop.time()
        try:
            number = self._websocket.send(message)
        except ConnectionError:
            raise channel.was_closed(sent=False) from None
        if not self.waiting:
            self._busy_since = began
            if self._pinger is None:
                self._pinger = loop.call_at(began + channel.ping_seconds, self._ping)
        deadline = began + channel.timeouts.read
        waiter: Waiter[Message] = Waiter()
        self.waiting[request_id] = waiter, deadline, len(message)
        # One timer for all requests, since a timer for each would cost more than all other steps here.
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._expire)
        if not self._begun:
            self._begun = True
            loop.call_soon(self._go_on)
        self._flush_soon()
        try:
            await waiter
            return waiter.outcome if waiter.is_reply else waiter.result()
        except BaseException as error:
            if self.waiting.pop(request_id, None) is not None:
                self._websocket.cancel(number)
                self._given_up = max(self._given_up, len(message))
            is_given_up = isinstance(error, asyncio.CancelledError) and channel.had_time(began, answer_by)
            if is_given_up or isinstance(error, DeadlineError):
                self._leave_if_silent(began)
            raise
        finally:
            if not self.waiting and self is not channel.connection:
                channel.leave(self)

    def close(self) -> None:
        """Close the connection; requests in flight fail."""
        if self._ended or self._closing:
            return
        if self.waiting or self._silent or self._full:  # a server that does not read would not get it
            self._break(self._channel.was_closed(sent=True))
            return
        self._closing, self.usable = True, False
        try:
            if self._takes_requests:
                with contextlib.suppress(ConnectionError):
                    self._websocket.send(END_OF_INPUT)
            self._websocket.close()
        except BaseException as error:
            self._give_up(error)
            return
        self._flush()
        self.loop.call_later(CLOSE_SECONDS, self._transport.abort)
        if not self._begun:
            self._begun = True
            self._go_on()

    # called by timers

    def _expire(self) -> None:
        self._timer = None
        now = self.loop.time()
        for waiter, deadline, _ in self.waiting.values():
            if waiter.done:
                continue
            if deadline > now:
                self._timer = self.loop.call_at(deadline, self._expire)
                return
            waiter.set_exception(self._channel.late())

    def _leave_if_silent(self, began: float) -> None:
        if self._received_at < began and self.usable:
            LOG.info("%s answered nothing: its connection is not used again", self._channel.endpoint)
            self._silent, self.usable = True, False
            self._channel.leave(self)

    def _ping(self) -> None:
        """Send a ping if nothing was received lately, to check the connection; set the timer of the next check."""
        self._pinger = None
        if not self.waiting or self._ended:
            return
        now, due = self.loop.time(), max(self._received_at, self._busy_since) + self._channel.ping_seconds
        if now < due - TICK_SECONDS:
            self._pinger = self.loop.call_at(due, self._ping)
            return
        self._websocket.ping()
        self._flush()
        self._pinger = self.loop.call_later(self._channel.pong_seconds, self._expect_pong, now, self._sent_bytes())

    def _expect_pong(self, asked_at: float, sent_bytes: int) -> None:
        channel, now_sent = self._channel, self._sent_bytes()
        if self._received_at >= asked_at:
            self._ping()
        elif now_sent > sent_bytes:  # the ping waits behind a large message, which the server is still reading
            self._pinger = self.loop.call_later(channel.pong_seconds, self._expect_pong, asked_at, now_sent)
        else:
            said = f"{channel.endpoint} did not answer a ping within {channel.pong_seconds:g} s"
            self._break(TransportError(said))

    # what is sent

    def _sent_bytes(self) -> int:
        """Return how many bytes the system has taken."""
        return self._written - self._transport.get_write_buffer_size()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        websocket, transport = self._websocket, self._transport
        try:
            for _ in range(OUTPUTS_IN_A_TURN):
                if self._full or (output := websocket.output()) is None:
                    return
                self._written += len(output)
                transport.write(output)
        except BaseException as error:
            self._give_up(error)
            return
        self._flush_soon()

    def pause_writing(self) -> None:
        """Note that the transport's buffer is full."""
        self._full = True

    def resume_writing(self) -> None:
        """Go on, since the transport's buffer has room."""
        self._full = False
        self._flush()

    # what is received

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport, and send the handshake."""
        self._transport = cast(asyncio.Transport, transport)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Read received bytes."""
        self._received_at = self.loop.time()
        if not self._ended:
            self._take(data)

    def _note_closed(self) -> None:
        self.lost.set_result(None)  # the channel waits for it as it is closed
        self._channel.forget(self)

    def _go_on(self) -> None:
        """Read the bytes that were received and not read yet."""
        if not self._ended:
            self._take(None)
            if self._no_more:
                self.eof_received()

    def _take(self, data: bytes | None) -> None:
        arrived: list[tuple[Waiter[Message], Message]] = []
        try:
            messages, self._unread, changed = self._websocket.receive(data, self._received_at)
            if messages:
                self._answered_at = self._received_at
            for message in messages:
                try:
                    waiter, _, _ = self.waiting.pop(self._identify(message), NOBODY)
                except ReplyError as error:
                    self._break(error)
                    break
                if waiter is not None:
                    arrived.append((waiter, message))
            else:
                self._note(changed)
            # Last of all, when the state is consistent: a resumed request may send the next one, or close this.
            for waiter, message in arrived:
                if not waiter.done:  # it may have been cancelled in this turn of the loop
                    waiter.reply(message)
        except BaseException as error:
            self._give_up(error, arrived)

    def _note(self, changed: bool) -> None:
        if changed:
            self._look()
        unread = self._unread and not self._ended
        if unread is not self._paused and not self._transport.is_closing():
            self._paused = unread
            (self._transport.pause_reading if unread else self._transport.resume_reading)()
        if unread and self._begun:
            self.loop.call_soon(self._go_on)

    def _take_end(self, error: Exception | None) -> None:
        if self._ended:
            return
        if not self._begun and self._opened.done():  # the end becomes the error of the first request
            self._no_more = True
            return
        for _ in range(TURNS_AT_THE_END):
            if self._unread and not self._ended:
                self._take(None)
        if isinstance(error, ssl.SSLError) and not self._opened.done():
            self._over(error)
        elif not self._ended:
            self._websocket.end_of_input()
            self._look()

    def _look(self) -> None:
        """Write what can be written, and handle a change of the websocket's state."""
        self._flush()
        state = self._websocket.state
        if state == "open":
            if not self._opened.done():
                self.usable = True
                self._opened.set_result(None)
        elif state == "closed":
            end = self._websocket.ended
            assert end is not None
            is_idle_close = end.kind == "lost" or (end.kind == "closed" and end.code in IDLE_CLOSES)
            self.stale = is_idle_close and self._answered_at < self._busy_since
            self._over(self._meant(end), too_big=end.code == TOO_BIG and end.kind == "closed")
            # Aborted after a while, since the server may never close its end.
            self._transport.close()
            self.loop.call_later(CLOSE_SECONDS, self._transport.abort)

    def _meant(self, end: End) -> CasdkError:
        """Return our error for the end of the websocket."""
        channel, where, kind = self._channel, str(self._channel.endpoint), end.kind
        if self._closing:
            return channel.was_closed(sent=True)
        if kind == "closed":
            # A cancelled request counts, since the server may still work at it.
            shared = len(self.waiting) + (self._given_up > 0) > 1
            return closed_with(end.code, end.words, where, shared=shared)
        if kind == "refused":
            return handshake_refused(end.code, end.asked, where)
        if kind == "foreign":
            return no_websocket(end.words, where)
        if kind == "rules":
            return ReplyError(f"{where}: {end.words}")
        if kind == "too_large":
            most = channel.limits.max_reply_bytes
            return ReplyError(f"{where}: the reply is larger than Limits.max_reply_bytes ({most})")
        if self._opened.done():
            return TransportError(f"{where}: the connection was closed without a word")
        return TransportError(f"{where}: the connection was closed during the handshake", sent=False)

    def _break(self, error: CasdkError) -> None:
        """End the connection, and its requests in flight with an error."""
        if not self._ended:
            self._over(error)
            self._transport.abort()

    def _give_up(self, error: BaseException, arrived: Iterable[tuple[Waiter[Message], Message]] = ()) -> None:
        """End the connection for an error of our own, and what is in flight, whether its reply had come or not."""
        ours = defect(self._channel.endpoint, error)
        self._break(ours)
        self._transport.abort()
        for waiter, _ in arrived:
            if not waiter.done:
                waiter.set_exception(copy(ours))

    def _over(self, error: Exception, *, too_big: bool = False) -> None:
        """Note that the connection cannot be used any more, and end its requests in flight with an error.

        Args:
            error: The error.
            too_big: Whether the server has ended the connection because a request was too large.
        """
        self._ended, self.usable = True, False
        waiting, self.waiting = self.waiting, {}
        for timer in (self._timer, self._pinger):
            if timer is not None:
                timer.cancel()
        if not self._opened.done():
            self._opened.set_exception(error)
            return
        LOG.info("%s (%d requests were under way)", error, len(waiting))
        # The largest request is certainly too large, whichever one the server refused; smaller ones may not be.
        largest = max([self._given_up, *(size for _, _, size in waiting.values())])
        for waiter, _, size in waiting.values():
            if not waiter.done:
                is_largest = too_big and size == largest
                # A copy for each call, since each adds to its error how many items were done.
                waiter.set_exception(too_large(f"{error}: {SERVER_LIMIT}") if is_largest else copy(error))
        self._channel.leave(self)
