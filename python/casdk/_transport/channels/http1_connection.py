"""One connection of HTTP/1.1, an asyncio protocol: a request is written, its answer is read, and another may follow.

`HttpChannel` opens and owns them; the answer is parsed in Rust.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from casdk._engine.waiter import Waiter
from casdk._remarks import remark
from casdk._rust import Http1Replies, Message
from casdk._transport.address import Endpoint, counterpart
from casdk._transport.channels.base import slices
from casdk._transport.channels.causes import cause_of
from casdk._transport.channels.defects import defect
from casdk._transport.channels.pairing import Pairing
from casdk._transport.channels.unread import ReadToTheEnd
from casdk.errors import CasdkError, ProtocolMismatchError, ReplyError, TransportError

__all__ = ["Answer", "Connection"]

AT_ONCE_BYTES: Final = 64 * 1024
"""A request with a smaller body is sent in one system call, head and body together."""


EARLY_BYTES: Final = 64 * 1024
"""The most bytes that a server may send before the first request."""


class Answer(NamedTuple):
    """The answer to one request.

    Attributes:
        status: Its status code.
        body: Its body, as it came; empty if it belongs to an error, and has a coding that cannot be read.
        retry_after: The header of that name, as it was sent, if the answer is an error.
    """

    status: int
    body: bytes | Message
    retry_after: str | None = None


class Connection(ReadToTheEnd):
    """An open connection, which carries one request at a time.

    Args:
        endpoint: The server.
        lost: Called when it has ended.

    Attributes:
        open: Whether another request may be sent on it.
        keep_alive: Whether the server keeps it open for another request, by all that is known.
        stale: Whether it was used before, and the server ended it without a byte of an answer to the last request; it
            may have been closed before the server saw that request.
        pairing: The requests that it has carried.
        lost: Done when its socket is closed.
    """

    def __init__(self, endpoint: Endpoint, lost: Callable[[Connection], None]) -> None:
        self.open = self.keep_alive = True
        self.stale = False
        self.pairing = Pairing()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._endpoint = endpoint
        self._note_loss = lost
        self._transport = cast(asyncio.Transport, None)
        self._replies = Http1Replies()
        self._waiter: Waiter[Answer] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._full = False
        self._sent = False
        """Whether bytes of a request were sent."""
        self._early = b""
        """Bytes that the server sent before the first request, e.g. an error or another protocol's greeting."""
        self._error: Exception | None = None

    async def ask(self, head: bytes, body: bytes | memoryview, most: int) -> Answer:
        """Send a request and wait for its answer. If the caller is cancelled, it has to call `end`.

        Args:
            head: The request's head.
            body: The request's body.
            most: The most bytes of the answer.

        Raises:
            CasdkError: The connection broke, or the bytes that came are no answer.
        """
        self._waiter = waiter = Waiter[Answer]()
        self._replies.ask(most)
        try:
            early, self._early = self._early, b""
            if early:
                self.data_received(early)
            if not self.open:
                self._take_end(self._error)
            elif not waiter.done:
                self._sent = True
                if len(body) <= AT_ONCE_BYTES:
                    self._transport.write(b"".join((head, body)))
                else:
                    self._transport.write(head)
                    await self._write(body, waiter)
            await waiter
            return waiter.outcome if waiter.is_reply else waiter.result()
        finally:
            self._waiter = None

    async def _write(self, body: bytes | memoryview, waiter: Waiter[Answer]) -> None:
        """Send a large body as fast as the server reads it, until its answer or the end of the connection."""
        # In slices, since asyncio copies bytes that the socket does not take at once.
        for piece in slices(body):
            if self._replies.status or waiter.done or self._transport.is_closing():
                self.open = False  # the server may still expect the rest of this body, so no request can follow
                return
            self._transport.write(piece)
            if self._full:
                self._writable = asyncio.get_running_loop().create_future()
                await self._writable

    def fail(self, error: CasdkError) -> None:
        """End the request in flight, if there is one, with an error."""
        if self._waiter is not None and not self._waiter.done:
            self._waiter.set_exception(error)
        self._wake_writer()

    def end(self) -> None:
        """Close the connection, without waiting for the server to close its end."""
        self.open = False
        self._transport.close()  # sends the closing alert of TLS
        self._transport.abort()

    # called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Read bytes of the answer. If no request is in flight, the connection cannot be used again after them."""
        waiter = self._waiter
        if waiter is None or waiter.done:
            if self._sent or len(self._early) > EARLY_BYTES:
                self.end()
            self._early += data
            return
        try:
            try:
                body = self._replies.receive(data)
            except CasdkError as error:
                self.fail(self._ours(error))
                self.end()
                return
            if body is not None:
                self._answer(waiter, body)
            elif self._replies.status:
                self._wake_writer()
        except BaseException as error:
            self._give_up(error)

    def _answer(self, waiter: Waiter[Answer], body: Message) -> None:
        replies = self._replies
        self.keep_alive = self.keep_alive and replies.keep_alive
        self.open = self.open and self.keep_alive
        self._wake_writer()
        if replies.status == 200:
            waiter.reply(Answer(200, body))
        else:
            waiter.set_result(Answer(replies.status, b"" if replies.coded else body, replies.retry_after))

    def _note_closed(self) -> None:
        self.lost.set_result(None)  # the channel waits for it as it is closed
        self._note_loss(self)

    def _take_end(self, error: Exception | None) -> None:
        self.open, self._error = False, error
        waiter = self._waiter
        if waiter is not None and not waiter.done:
            self.stale = self.pairing.used and not self._replies.begun
            # If the answer is a refusal, as much of it as has come is enough.
            if error is not None and self._replies.status in (0, 200):
                waiter.set_exception(self._broken(error))
            else:
                try:
                    body = self._replies.end()
                except TransportError as raised:
                    waiter.set_exception(self._ours(raised))
                else:
                    self._answer(waiter, body)
        self._wake_writer()

    def _give_up(self, error: BaseException) -> None:
        """End the connection, and the request that is under way, for an error of our own."""
        self.fail(defect(self._endpoint, error))
        self.end()

    def pause_writing(self) -> None:
        """Note that the write buffer is full, so that a large request waits."""
        self._full = True

    def resume_writing(self) -> None:
        """Note that the write buffer has room, and let a large request go on."""
        self._full = False
        self._wake_writer()

    def _wake_writer(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # errors

    def _ours(self, error: CasdkError) -> CasdkError:
        """Return the error of a request, from the one that Rust's parser has raised."""
        where, said = self._endpoint, str(error)
        if isinstance(error, ProtocolMismatchError):
            other = counterpart(where.scheme, channel="grpc")
            said = f"{where}: this port does not speak HTTP/1.1 ({remark(said)}); try {other}://"
            return ProtocolMismatchError(said, retryable=False)
        if isinstance(error, ReplyError):
            return ReplyError(f"{where}: {said}")
        return TransportError(f"{where}: {said}", sent=self._sent)

    def _broken(self, exc: Exception) -> TransportError:
        said = cause_of(str(exc)) if isinstance(exc, ssl.SSLError) else None
        return TransportError(f"{self._endpoint}: {said or 'the connection broke'}", sent=self._sent)
