"""One port of uvicorn's, and what it needs to face strangers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from casdk.server.turns import Feeder, Feeding, Turns

__all__ = ["BACKLOG", "Door", "HttpProtocol", "SocketProtocol", "send_seconds"]

logger: logging.Logger = logging.getLogger(__name__)

BACKLOG = 2048
HANDSHAKE_SECONDS = 20.0
"""For TLS."""
HEAD_SECONDS = 30.0
"""For the head of a connection's next request."""
RETRY_SECONDS = 1.0
"""Between two attempts to accept a connection where the system has no room for another."""
LOGGED_SECONDS = 60.0
"""Between two lines in the log that say so."""
STALLED_SECONDS = 20
"""After which the system ends a connection whose other end takes nothing of what is sent."""
SEND_RATE = 256 * 1024
"""Bytes per second that a client has to take of a reply, on top of `STALLED_SECONDS`: it holds memory until then."""
FRAGMENTS = 4096
"""Frames that one message may come in; an empty one does not count in its size."""
TOO_LARGE, LATER = 1009, 1013
BAD_HEAD = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
LITTLE = 1 << 20
"""Bytes of a message that may be arriving on a connection while memory is short."""


def send_seconds(size: int) -> float:
    """Return how long a reply of this size may take to be sent."""
    return STALLED_SECONDS + size / SEND_RATE


class HttpProtocol(H11Protocol):
    """uvicorn's, for connections on which nothing comes, or a request's head never ends."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection."""
        super().connection_made(transport)
        self._head = self.loop.call_later(HEAD_SECONDS, self._close_if_idle)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection on, with what came behind the request."""
        super().handle_websocket_upgrade(event)
        cast(Feeding, self.transport).unread(self.conn.trailing_data[0])

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._head.cancel()
        self._head = self.loop.call_later(HEAD_SECONDS, self._close_if_idle)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._head.cancel()
        super().connection_lost(exc)

    def _close_if_idle(self) -> None:
        if self.conn.their_state is h11.IDLE and self.transport.get_protocol() is self:
            self.transport.close()


class SocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's, for clients that send and do not read."""

    def data_received(self, data: bytes) -> None:
        """Take what has come, and refuse a head that the library does not read: it says nothing to its sender."""
        super().data_received(data)
        if self.handshake_initiated and not self.handshake_complete:
            self.transport.pause_reading()  # the library reads no frames before it has answered the handshake
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self.handshake_initiated = True
            self.transport.write(BAD_HEAD)
            self.transport.close()

    def pause_writing(self) -> None:
        """Take no more from a client that does not take what is sent to it."""
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()

    async def receive(self) -> Any:
        """Return the next message."""
        message = await super().receive()
        if not self.writable.is_set():
            self.transport.pause_reading()
        return message

    async def send(self, message: Any) -> None:
        """Send, and return when the client has taken nearly all of it: until then the reply is held in memory."""
        await super().send(message)
        if message["type"] == "websocket.accept":
            self.transport.resume_reading()
        size = len(message.get("bytes") or message.get("text") or b"")
        try:
            async with asyncio.timeout(send_seconds(size)):
                await self.writable.wait()
        except TimeoutError:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what has come: the connection itself lives on in reference cycles."""
        self._forget()
        super().connection_lost(exc)

    def _forget(self) -> None:
        self.conn.reader.buffer.clear()
        self.frames: list[bytes] = []
        while not self.queue.empty():
            self.queue.get_nowait()

    @property
    def arriving(self) -> int:
        """Bytes of a message that is not all there."""
        return len(self.conn.reader.buffer) + sum(map(len, self.frames))

    def turn_away(self) -> None:
        """Close, and forget what has come."""
        if not self.close_sent:
            self.conn.fail(LATER, "the server has no memory for this now")
            self.handle_parser_exception()
            self.conn.reader.buffer.clear()

    def handle_cont(self, event: Any) -> None:
        """Take a fragment, if there are not too many."""
        if len(self.frames) < FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.fail(TOO_LARGE, f"more than {FRAGMENTS} fragments")
            self.handle_parser_exception()


class Door(uvicorn.Server):
    """One port; signals are the gateway's business.

    It accepts connections itself: when there are no descriptors left, asyncio's server calls ``accept`` two thousand
    times a second, and logs a traceback for each.

    Args:
        config: uvicorn's.
        listener: The socket that listens.
    """

    def __init__(self, config: uvicorn.Config, listener: socket.socket) -> None:
        super().__init__(config)
        self.ready: asyncio.Event = asyncio.Event()
        self._listener = listener
        self._opening: set[asyncio.Task[None]] = set()
        self._turns = Turns()
        listener.setblocking(False)
        # What it accepts inherits both, and asyncio sets them on none. uvicorn writes a reply's head and body apart,
        # and a client's delayed ACK would keep the body back for 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_SECONDS * 1000)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup([])
        self._accepting = asyncio.ensure_future(self._accept())
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, and wait for what is under way."""
        self._accepting.cancel()
        self._listener.close()
        for opening in self._opening:
            opening.cancel()
        await super().shutdown([])

    def turn_away(self) -> None:
        """Close the connections on which a message is arriving that takes much memory."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, SocketProtocol) and connection.arriving > LITTLE:
                connection.turn_away()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        logged_at = -LOGGED_SECONDS
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                if loop.time() - logged_at >= LOGGED_SECONDS:
                    logged_at = loop.time()
                    logger.warning("no connection can be accepted until others end: %s", error.strerror)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            opening = asyncio.ensure_future(self._open(connection))
            self._opening.add(opening)
            opening.add_done_callback(partial(self._opened, connection))
            await asyncio.sleep(0)  # while others wait to be accepted, accepting one does not give others a turn

    def _opened(self, connection: socket.socket, opening: asyncio.Task[None]) -> None:
        self._opening.discard(opening)
        if opening.cancelled():
            connection.close()

    async def _open(self, connection: socket.socket) -> None:
        tls = self.config.ssl
        timeout = HANDSHAKE_SECONDS if tls is not None else None
        with contextlib.suppress(OSError):  # the other end has left, or speaks no TLS
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol, connection, ssl=tls, ssl_handshake_timeout=timeout
            )

    def _protocol(self) -> Feeder:
        return Feeder(HttpProtocol(self.config, self.server_state, self.lifespan.state), self._turns)
