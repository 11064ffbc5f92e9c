"""One HTTP/2 connection on which the calling thread itself sends a request and receives its reply.

`casdk._transport.direct` keeps it for the calls of a transport, and `Http2Channel` opens it, on the engine. Whatever
else than a reply comes of a request, the engine takes over, as a `Begun` (`TakenOver`).
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from casdk._engine.waiter import Waiter
from casdk._rust import Failure, Head, Http2, Message, new_id
from casdk._transport.channels.http2_connection import Connection
from casdk._transport.channels.options import Headers

if TYPE_CHECKING:
    from casdk._transport.channels.http2 import Http2Channel

__all__ = ["Begun", "DirectConnection", "TakenOver", "greet"]

WAIT_SECONDS: Final = 0.02
"""How long the calling thread waits for a reply by itself. A server that takes longer saves nothing by it: the engine
goes on with the request."""
READ_BYTES: Final = 1 << 16
"""Bytes that are read at a time: more than the reply to a short request has."""

Events: TypeAlias = Sequence[tuple[int, Message | Failure]]
"""Requests that have ended, by their streams, as `Http2.step` returns them."""


class Begun:
    """A request that the calling thread has sent, and of which something else than a good reply has come, or nothing.

    For the engine it is the first attempt of the call: `Http2Channel.exchange` takes it instead of sending the request.

    Args:
        request_id: Its id.
        connection: The connection that it was sent on last.
        outcome: What came in the place of a good reply; ``None`` if nothing has come so far, and then nobody else uses
            the connection any more.

    Attributes:
        began: When it was sent, in the engine's time.
        received_at: When its connection last received anything.
        stream: Its stream there.
        is_taken: Whether an attempt has taken it: a later one sends the request again, by another id.
    """

    def __init__(self, request_id: str, connection: DirectConnection, outcome: Message | Failure | None) -> None:
        self.request_id: Final = request_id
        self.connection: Final = connection
        self.outcome: Final = outcome
        self.began: Final = connection.used_at
        self.received_at: Final = connection.received_at
        self.stream: Final = connection.stream
        self.is_taken = False

    def next_id(self) -> str:
        """Return the id of the next attempt: its own if that attempt takes it, else a new one."""
        return new_id() if self.is_taken else self.request_id

    def take(self) -> Begun | None:
        """Return itself, the first time."""
        if self.is_taken:
            return None
        self.is_taken = True
        return self


class DirectConnection:
    """An open connection with at most one request in flight; one thread at a time uses it, without a lock.

    The engine may call `shut_down` meanwhile, and nothing else.

    Args:
        sock: Its socket, which does not block.
        http2: The state of its protocol, after the server's greeting.
        head: The head of its requests.
        headers: The headers that the head was made from.
        seconds: How long the server has for a reply.

    Attributes:
        used_at: When it was last used, in the engine's time.
        received_at: When it last received anything, by the same clock.
        stream: The stream of its last request.
        is_left: Whether no more requests are begun on it.
        is_closed: Whether its socket is closed, or belongs to the engine.
        is_lost: Whether the server has ended it.
    """

    def __init__(self, sock: socket.socket, http2: Http2, head: Head, headers: Headers, seconds: float) -> None:
        self._socket = sock
        self._http2 = http2
        self._head = head
        self.headers: Final = headers
        self._wait_seconds: Final = min(WAIT_SECONDS, seconds)
        self.used_at = self.received_at = monotonic()
        self.stream = 0
        self.is_left = self.is_closed = self.is_lost = False
        self._unsent: bytes | memoryview = b""
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)

    @property
    def is_usable(self) -> bool:
        """Whether a request can be begun on it."""
        return not (self.is_left or self.is_closed or self.is_lost or self._unsent) and self._http2.state == "open"

    def exchange(self, request_id: str, message: bytes | memoryview, left: float | None) -> Message | Begun | None:
        """Send a request, and wait for its reply.

        Args:
            request_id: The request's id, which the reply repeats.
            message: The packed request.
            left: The seconds that are left for it, if they are fewer than ``timeouts.read``.

        Returns:
            The reply; what the engine has to go on with; or ``None`` if nothing was sent.
        """
        while self._poll.poll(0):  # pings and the like, or the end of the connection
            self._receive()
            if not self.is_usable:
                return None
        self.used_at = began = monotonic()
        try:
            self.stream = self._http2.request(self._head, message, left)
        except ConnectionError as error:
            if is_handlers(error):
                raise
            return None
        events = self._step(None)
        end = began + (self._wait_seconds if left is None else min(left, self._wait_seconds))
        while not (events or self._unsent or self.is_lost):
            wait = end - monotonic()
            if wait <= 0 or not self._poll.poll(1000 * wait):
                break
            events = self._receive()
        outcome = events[0][1] if events else None
        return outcome if type(outcome) is Message else Begun(request_id, self, outcome)

    def _receive(self) -> Events:
        """Read what has come; return the requests that have ended by it."""
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError as error:
            if is_handlers(error):
                raise
            return ()
        except OSError as error:
            if is_handlers(error):
                raise
            data = b""
        if not data:
            self.is_lost = True
            return self._http2.end_of_input()[0]
        self.received_at = monotonic()
        return self._step(data)

    def _step(self, data: bytes | None) -> Events:
        """Read received bytes, and write as many as the socket takes at once."""
        events, output, more, _ = self._http2.step(data, monotonic(), True)
        if output is not None:
            self._send(output)
        while more and not self._unsent:
            further, output, more, _ = self._http2.step(None, monotonic(), True)
            events += further
            if output is not None:
                self._send(output)
        return events

    def _send(self, output: bytes | memoryview) -> None:
        try:
            sent = self._socket.send(output)
        except BlockingIOError as error:
            if is_handlers(error):
                raise
            sent = 0
        except OSError as error:
            if is_handlers(error):
                raise
            return  # the connection has ended, which is noticed when it is read: the server may have said why
        if sent < len(output):
            self._unsent = output[sent:]

    def shut_down(self) -> None:
        """End the connection while a thread may use it, and that thread's wait; the thread then closes the socket."""
        self.is_left = True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended

    def close(self) -> None:
        """Close the socket, which is all that a forked child may do with it."""
        self.is_closed = True
        self._socket.close()

    def hand_over(self) -> tuple[socket.socket, Http2, bytes | memoryview]:
        """Return the socket, the state of the protocol and the bytes that were not sent: they are the engine's now."""
        self.is_closed = True
        return self._socket, self._http2, self._unsent


def is_handlers(error: BaseException) -> bool:
    """Whether a signal's handler has raised an error that a call into C is caught for.

    Python runs handlers between its own steps, so the handler's frame is in the traceback; an error of the call itself
    has only the frame that catches it.
    """
    traceback = error.__traceback__
    return traceback is not None and traceback.tb_next is not None


async def greet(sock: socket.socket, http2: Http2) -> None:
    """Exchange the greetings of the protocol on a socket that is connected; runs on the engine.

    Raises:
        OSError: The server has closed the connection, or takes no more requests.
    """
    loop = asyncio.get_running_loop()
    data: bytes | None = None
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            _, output, more, _ = http2.step(data, loop.time(), True)
            if output is not None:
                await loop.sock_sendall(sock, output)
            data = None
            if more:
                continue
            if http2.state == "open":
                return
            if http2.state != "opening" or not (data := await loop.sock_recv(sock, READ_BYTES)):
                raise ConnectionResetError("the server takes no requests on another connection")
    except BaseException:
        # Removed at once: asyncio does it a turn later, when the same descriptor may belong to another socket.
        loop.remove_reader(sock)
        loop.remove_writer(sock)
        raise


class TakenOver(Connection):
    """The connection of a `Begun` request, for the engine to go on with; it begins no other one.

    If the outcome has come already, it has ended from the beginning, and only says what came.

    Args:
        channel: The channel that it belongs to.
        begun: The request.
    """

    def __init__(self, channel: Http2Channel, begun: Begun) -> None:
        super().__init__(channel)
        self._greeting.set_result(None)
        self.left = True
        self._state = "open"
        # It was idle before, also if this is its first request: it is opened before there is one.
        self._used, self._busy_since, self._received_at = True, begun.began, begun.received_at
        self._begun = begun
        self._unsent: bytes | memoryview = b""
        self._waiter: Waiter[Message | Failure] = Waiter()
        if begun.outcome is None:
            self.waiting[begun.stream] = self._waiter, begun.began + channel.timeouts.read
        else:
            self._ended = True
            set_outcome = self._waiter.reply if isinstance(begun.outcome, Message) else self._waiter.set_result
            set_outcome(begun.outcome)

    async def connect(self) -> None:
        """Go on with the socket, unless the outcome is there already."""
        if self._ended:
            return
        sock, self._http2, self._unsent = self._begun.connection.hand_over()
        await self.loop.create_connection(lambda: self, sock=sock)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport, and go on with what the calling thread could not send at once."""
        self._timer = self.loop.call_at(self.waiting[self._begun.stream][1], self._expire)
        if self._unsent:
            cast(asyncio.Transport, transport).write(self._unsent)
        super().connection_made(transport)

    def begin(
        self, head: Head, message: bytes | memoryview, left: float | None
    ) -> tuple[int, Waiter[Message | Failure]] | None:
        """Return the stream and the waiter of the request that was begun already."""
        return self._begun.stream, self._waiter
