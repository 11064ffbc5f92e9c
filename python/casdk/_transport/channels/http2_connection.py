"""One HTTP/2 connection, an asyncio protocol around the state machine in Rust, which reads and writes the frames.

`Http2Channel` opens and owns them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from copy import copy
from errno import ECONNRESET
from ssl import SSLObject
from typing import TYPE_CHECKING, Final, cast

from casdk._engine.waiter import Waiter
from casdk._rust import Failure, Head, Http2, Message
from casdk._transport.channels.base import LOG, TICK_SECONDS
from casdk._transport.channels.defects import defect
from casdk._transport.channels.statuses import broken, no_grpc
from casdk._transport.channels.unread import ReadToTheEnd
from casdk.errors import CasdkError, TransportError

if TYPE_CHECKING:
    from casdk._transport.channels.http2 import Http2Channel

__all__ = ["LARGEST_MESSAGE_BYTES", "Connection"]

LARGEST_MESSAGE_BYTES: Final = 2**32 - 1
"""The largest length of a message in gRPC, which has four bytes for it."""


class Connection(ReadToTheEnd):
    """A connection, with the requests that wait for a reply on it, the oldest first.

    Bytes are handed to the transport once in a turn of the loop, for all requests that began in it. While the
    transport's buffer is full, no more bytes are taken from Rust, which then does not read either.

    Attributes:
        loop: The engine's loop.
        waiting: The waiter and the deadline of each request in flight, by the number of its stream.
        usable: Whether a request can be begun on it.
        left: Whether no more requests are begun on it; it is closed when the last one in flight has ended.
    """

    def __init__(self, channel: Http2Channel) -> None:
        self.loop = asyncio.get_running_loop()
        self.waiting: dict[int, tuple[Waiter[Message | Failure], float]] = {}
        self.usable = self.left = False
        self._channel = channel
        self._http2 = Http2(min(channel.limits.max_reply_bytes, LARGEST_MESSAGE_BYTES))
        self._transport = cast(asyncio.Transport, None)
        self._greeting: asyncio.Future[None] = self.loop.create_future()
        self._received_at = 0.0
        self._busy_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._pinger: asyncio.TimerHandle | None = None
        self._state = "opening"
        self._used = self._flushing = self._full = self._paused = self._ended = False

    # called by the channel

    async def greeted(self) -> None:
        """Wait for the server's first frame, which shows that it speaks HTTP/2.

        Raises:
            CasdkError: The server does not speak HTTP/2.
            OSError: The connection ended.
        """
        await self._greeting

    def begin(
        self, head: Head, message: bytes | memoryview, left: float | None
    ) -> tuple[int, Waiter[Message | Failure]] | None:
        """Begin a call; return its stream, and the waiter that will get the outcome.

        The result is ``None`` if the connection takes no more requests. The waiter gets a `CasdkError` if no answer
        comes in time, or if the connection is closed here.

        Args:
            head: The head of the request.
            message: The message of the request.
            left: The timeout that the request sends to the server, in seconds, if it is shorter than ``timeouts.read``.
        """
        loop = self.loop
        try:
            stream = self._http2.request(head, message, left)
        except ConnectionError:
            return None
        channel, began = self._channel, loop.time()
        if not self.waiting:
            self._busy_since, self._used = began, stream > 1
            if self._pinger is None and not channel.pings_refused:
                self._pinger = loop.call_at(began + channel.ping_seconds, self._ping)
        deadline = began + channel.timeouts.read
        waiter: Waiter[Message | Failure] = Waiter()
        self.waiting[stream] = waiter, deadline
        # One timer for all requests, since a timer for each would cost more than all other steps here.
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._expire)
        if not self._flushing:
            self._flushing = True
            loop.call_soon(self._step)
        return stream, waiter

    def take_back(self, stream: int, answerless_since: float | None) -> None:
        """Cancel a call whose outcome is not waited for any more.

        Args:
            stream: The stream, as `begin` returned it.
            answerless_since: When the call began, if it had time for an answer: a connection that has received nothing
                since then is not used again.
        """
        if self.waiting.pop(stream, None) is not None:
            self._http2.cancel(stream)
            if not self._flushing:
                self._flushing = True
                self.loop.call_soon(self._step)
        if answerless_since is not None and self._received_at < answerless_since and self.usable:
            LOG.info("%s answered nothing: its connection is not used again", self._channel.endpoint)
            self.usable, self.left = False, True
        if self.left:
            self._channel.leave(self)

    @property
    def stale(self) -> bool:
        """Whether it was used before, and has received nothing since it was idle: it most likely had ended by then."""
        return self._used and self._received_at < self._busy_since

    def close(self) -> None:
        """Close the connection; requests in flight fail."""
        self._break(self._channel.was_closed(sent=self._greeting.done()), gently=True)

    # called by timers

    def _expire(self) -> None:
        self._timer = None
        now = self.loop.time()
        for waiter, deadline in self.waiting.values():
            if waiter.done:
                continue
            if deadline > now:
                self._timer = self.loop.call_at(deadline, self._expire)
                return
            waiter.set_exception(self._channel.late())

    def _ping(self) -> None:
        """Send a ping if nothing was received lately, to check the connection; set the timer of the next check."""
        self._pinger = None
        channel = self._channel
        if not self.waiting or self._ended or channel.pings_refused:
            return
        now, due = self.loop.time(), max(self._received_at, self._busy_since) + channel.ping_seconds
        if now < due - TICK_SECONDS:
            self._pinger = self.loop.call_at(due, self._ping)
            return
        self._http2.ping()
        self._step()
        unsent = self._transport.get_write_buffer_size()
        self._pinger = self.loop.call_later(channel.pong_seconds, self._expect_pong, now, unsent)

    def _expect_pong(self, asked_at: float, unsent: int) -> None:
        channel, left = self._channel, self._transport.get_write_buffer_size()
        if self._received_at >= asked_at:
            self._ping()
        elif left < unsent:  # the ping waits behind a large message, which the server is still reading
            self._pinger = self.loop.call_later(channel.pong_seconds, self._expect_pong, asked_at, left)
        else:
            said = f"{channel.endpoint} did not answer a ping within {channel.pong_seconds:g} s"
            self._break(TransportError(said))

    # called by asyncio: writing

    def pause_writing(self) -> None:
        """Note that the transport's buffer is full."""
        self._full = True

    def resume_writing(self) -> None:
        """Go on, since the transport's buffer has room."""
        self._full = False
        self._step()

    # called by asyncio: reading

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport, and send the client's preface."""
        self._transport = cast(asyncio.Transport, transport)
        secured: SSLObject | None = transport.get_extra_info("ssl_object")
        if secured is not None and secured.selected_alpn_protocol() != "h2":
            self._break(no_grpc(self._channel.endpoint))
        else:
            self._step()

    def eof_received(self) -> None:
        """Handle the end of what is received; before the greeting, `connection_lost` says more of it."""
        if self._greeting.done():
            super().eof_received()

    def _step(self, data: bytes | None = None) -> None:
        """Read received bytes, and write as many bytes as the transport has room for."""
        now = self.loop.time()
        if data is None:
            self._flushing = False
        else:
            self._received_at = now
        if self._ended:
            return
        arrived: list[tuple[Waiter[Message | Failure], Message | Failure]] = []
        try:
            http2, transport = self._http2, self._transport
            more = True
            while more:
                events, output, more, unread = http2.step(data, now, not self._full)
                data = None
                if output is not None:
                    transport.write(output)
                for stream, outcome in events:
                    arrived.append((self.waiting.pop(stream)[0], outcome))
                if unread is not self._paused:
                    self._paused = unread
                    (transport.pause_reading if unread else transport.resume_reading)()
                more = more and not self._full
            if (state := http2.state) != self._state:
                self._state = state
                self._changed(state)
            if self.left and not self.waiting:
                self._channel.leave(self)
            # Last of all, when the state is consistent: a resumed request may begin the next one, or close this.
            for waiter, outcome in arrived:
                if waiter.done:  # it was cancelled in this turn of the loop
                    continue
                if type(outcome) is Message:
                    waiter.reply(outcome)
                else:
                    waiter.set_result(outcome)
        except BaseException as error:
            self._give_up(error, arrived)

    data_received = _step

    def _changed(self, state: str) -> None:
        self.usable = state == "open"
        go_away = self._http2.go_away
        if (state != "closed" or go_away is not None) and not self._greeting.done():
            # Before the GOAWAY is noted: a server that closes its connections at some age may send one with its
            # greeting. No request was sent on this connection, so those who wait for it open another one.
            self._greeting.set_result(None)
        if go_away is not None:
            self._channel.note_go_away(self, *go_away)
        if state == "closed":
            failure, endpoint = self._http2.ended, self._channel.endpoint
            assert failure is not None
            is_known = self._greeting.done() or failure.kind == "lost"
            self._break(broken(endpoint) if is_known else no_grpc(endpoint))

    def _break(self, error: CasdkError, *, gently: bool = False) -> None:
        """End the connection, and its requests in flight with an error.

        Args:
            error: The error.
            gently: Whether the transport may first write the bytes that it can write at once.
        """
        if self._ended:
            return
        waiting = self._over(error)
        if gently:
            self._transport.close()
        self._transport.abort()
        for waiter, _ in waiting:
            if not waiter.done:
                waiter.set_exception(copy(error))  # one for each call, since the call adds to it

    def _take_end(self, error: Exception | None) -> None:
        if not self._ended:
            arrived = [(self.waiting[stream][0], outcome) for stream, outcome in self._http2.end_of_input()[0]]
            self._over(error or ConnectionResetError(ECONNRESET, "closed"))
            for waiter, outcome in arrived:
                if not waiter.done:
                    waiter.set_result(outcome)

    def _give_up(
        self, error: BaseException, arrived: Iterable[tuple[Waiter[Message | Failure], Message | Failure]] = ()
    ) -> None:
        """End the connection for an error of our own, and what is in flight, whether its outcome had come or not."""
        ours = defect(self._channel.endpoint, error)
        self._break(ours)
        for waiter, _ in arrived:
            if not waiter.done:
                waiter.set_exception(copy(ours))

    def _over(self, error: Exception) -> Iterable[tuple[Waiter[Message | Failure], float]]:
        """Note that the connection cannot be used any more; return the waiters of its requests."""
        self._ended, self.usable = True, False
        waiting, self.waiting = self.waiting.values(), {}
        for timer in (self._timer, self._pinger):
            if timer is not None:
                timer.cancel()
        if not self._greeting.done():
            self._greeting.set_exception(error)
        elif not self._channel.closed:
            LOG.info("the connection to %s has ended", self._channel.endpoint)
        self._channel.leave(self)
        return waiting
