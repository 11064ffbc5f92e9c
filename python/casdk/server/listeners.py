"""One listening port of uvicorn for http or websocket, with limits against slow and hostile clients.

`gateway.py` makes a `Listener` for each port. The protocol classes extend those of uvicorn by its documented hooks;
they know connections and bytes, and nothing of CLIP.
"""

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

__all__ = ["BACKLOG", "HttpProtocol", "Listener", "SocketProtocol", "send_seconds"]

logger: logging.Logger = logging.getLogger(__name__)

BACKLOG = 2048
"""Connections that the system lets wait to be accepted."""
HANDSHAKE_SECONDS = 20.0
"""Time limit of a TLS handshake."""
HEAD_SECONDS = 30.0
"""Time limit for the head of a connection's next request."""
TICK_SECONDS = 1.0
"""Time between two renewals of the date in the headers of replies."""
RETRY_SECONDS = 1.0
"""Wait between two attempts to accept a connection when the system has no file descriptor for it."""
LOGGED_SECONDS = 60.0
"""Time between two log lines that say so."""
STALLED_SECONDS = 20
"""Time after which the system ends a connection whose client acknowledges nothing."""
SEND_BYTES_PER_SECOND = 256 * 1024
"""Rate at which a client has to read a reply, beyond `STALLED_SECONDS`, because the reply is in memory until then."""
MOST_FRAGMENTS = 4096
"""Frames of one websocket message; the library limits only their bytes, and empty frames have none."""
TOO_LARGE, LATER = 1009, 1013
"""Close codes of a websocket."""
BAD_HEAD = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
ARRIVING_BYTES = 1 << 20
"""Bytes of an incomplete message that a connection may keep while memory is short."""


def send_seconds(size: int) -> float:
    """Return how many seconds a reply of so many bytes may take to be sent."""
    return STALLED_SECONDS + size / SEND_BYTES_PER_SECOND


class HttpProtocol(H11Protocol):
    """uvicorn's HTTP protocol, which also closes connections that send no request, or a head without end."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection."""
        super().connection_made(transport)
        self._head = self.loop.call_later(HEAD_SECONDS, self._close_if_idle)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Pass the connection to the websocket protocol, with the bytes that came behind the request."""
        super().handle_websocket_upgrade(event)
        cast(Feeding, self.transport).unread(self.conn.trailing_data[0])

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._head.cancel()
        self._head = self.loop.call_later(HEAD_SECONDS, self._close_if_idle)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer of the next request."""
        self._head.cancel()
        super().connection_lost(exc)

    def _close_if_idle(self) -> None:
        if self.conn.their_state is h11.IDLE and self.transport.get_protocol() is self:
            self.transport.close()


class SocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's websocket protocol, which also limits the memory of clients that send and do not read."""

    def data_received(self, data: bytes) -> None:
        """Read bytes, and answer a head that the library cannot read, which it would leave without an answer."""
        super().data_received(data)
        if self.handshake_initiated and not self.handshake_complete:
            self.transport.pause_reading()  # the library reads no frames before it has answered the handshake
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self.handshake_initiated = True
            self.transport.write(BAD_HEAD)
            self.transport.close()

    def pause_writing(self) -> None:
        """Read no more from a client that does not read what is sent to it."""
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read again."""
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
        """Send, and return when the client has read nearly all of it; until then the reply is in memory."""
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
        """Drop the bytes that were received, because reference cycles keep the connection object alive."""
        self._forget()
        super().connection_lost(exc)

    def _forget(self) -> None:
        self.conn.reader.buffer.clear()
        self.frames: list[bytes] = []
        while not self.queue.empty():
            self.queue.get_nowait()

    @property
    def arriving(self) -> int:
        """Bytes of a message that is not complete yet."""
        return len(self.conn.reader.buffer) + sum(map(len, self.frames))

    def turn_away(self) -> None:
        """Close the connection because memory is short, and drop the bytes that were received."""
        if not self.close_sent:
            self.conn.fail(LATER, "the server has no memory for this now")
            self.handle_parser_exception()
            self.conn.reader.buffer.clear()

    def handle_cont(self, event: Any) -> None:
        """Take a fragment, unless the message has too many."""
        if len(self.frames) < MOST_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.fail(TOO_LARGE, f"more than {MOST_FRAGMENTS} fragments")
            self.handle_parser_exception()


class Listener(uvicorn.Server):
    """uvicorn on one listening port. It leaves signals to the gateway, which handles them for all ports.

    It accepts connections itself, because asyncio's server calls ``accept`` two thousand times a second when there are
    no file descriptors left, and logs a traceback each time.

    Args:
        config: Settings of uvicorn.
        listening: The socket that listens.
    """

    def __init__(self, config: uvicorn.Config, listening: socket.socket) -> None:
        super().__init__(config)
        self.ready: asyncio.Event = asyncio.Event()
        self._stopping = asyncio.Event()
        self._socket = listening
        self._opening: set[asyncio.Task[None]] = set()
        self._turns = Turns()
        listening.setblocking(False)
        # Accepted connections inherit both options; asyncio sets neither. uvicorn writes a reply's head and body
        # separately, and without TCP_NODELAY a client's delayed ACK would hold back the body for 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_SECONDS * 1000)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    def stop(self) -> None:
        """Have `serve` accept no more connections, and return when the open requests are answered."""
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Wait for `stop`. Meanwhile let uvicorn renew the date; its own loop wakes up ten times as often for that."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), TICK_SECONDS)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup([])
        self._accepting = asyncio.ensure_future(self._accept())
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting connections, and wait for the open requests."""
        self._accepting.cancel()
        self._socket.close()
        for opening in self._opening:
            opening.cancel()
        await super().shutdown([])

    def turn_away(self) -> None:
        """Close the connections with a large incomplete message."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, SocketProtocol) and connection.arriving > ARRIVING_BYTES:
                connection.turn_away()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        logged_at = -LOGGED_SECONDS
        while True:
            try:
                connection, _ = await loop.sock_accept(self._socket)
            except OSError as error:
                if loop.time() - logged_at >= LOGGED_SECONDS:
                    logged_at = loop.time()
                    logger.warning("no connection can be accepted until others end: %s", error.strerror)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            opening = asyncio.ensure_future(self._open(connection))
            self._opening.add(opening)
            opening.add_done_callback(partial(self._opened, connection))
            await asyncio.sleep(0)  # sock_accept does not suspend while connections wait; other tasks get a turn

    def _opened(self, connection: socket.socket, opening: asyncio.Task[None]) -> None:
        self._opening.discard(opening)
        if opening.cancelled():
            connection.close()

    async def _open(self, connection: socket.socket) -> None:
        tls = self.config.ssl
        timeout = HANDSHAKE_SECONDS if tls is not None else None
        with contextlib.suppress(OSError):  # the other end has left, or does not speak TLS
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol, connection, ssl=tls, ssl_handshake_timeout=timeout
            )

    def _protocol(self) -> Feeder:
        return Feeder(HttpProtocol(self.config, self.server_state, self.lifespan.state), self._turns)
