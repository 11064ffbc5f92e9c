"""The base classes of the fault server's protocols: a `Connection`, and the `Exchange` of one request on it.

`_grpc.py`, `_http.py` and `_websocket.py` implement them; faults and `FaultServer` know only these classes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from casdk.testing._thread import end_socket
from casdk.testing.connections import ConnectionFault
from casdk.testing.faults import Page, Refuse
from casdk.testing.scripts import AnsweredError, Fault, Request
from casdk.wire import jina_pb2

if TYPE_CHECKING:
    from casdk.testing.server import FaultServer

__all__ = ["Connection", "Exchange", "Family", "Incoming"]

Family = Literal["grpc", "http", "websocket"]


class Incoming:
    """A connection just accepted, before TLS."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        self.sock = sock
        self._context = context
        self._loop = asyncio.get_running_loop()

    async def forever(self) -> None:
        """Wait until the client ends the connection; its bytes are read and ignored."""
        with contextlib.suppress(OSError):
            while await self._loop.sock_recv(self.sock, 65536):
                pass
        self.sock.close()

    async def stall_handshake(self) -> None:
        """Send the first half of the server's part of the handshake, then wait."""
        if self._context is not None:
            inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = self._context.wrap_bio(inward, outward, server_side=True)
            inward.write(await self._loop.sock_recv(self.sock, 65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            flight = outward.read()
            await self._loop.sock_sendall(self.sock, flight[: len(flight) // 2])
        await self.forever()

    def cut(self, how: str) -> None:
        """End the connection."""
        end_socket(self.sock, how)
        if how != "half-close":
            self.sock.close()


class Connection(asyncio.Protocol, ABC):
    """One client's connection.

    Attributes:
        number: Position among the server's connections, from 0.
        received: Bytes read, after TLS.
        last_reply: The reply to the last request, if a fault needs it.
    """

    family: ClassVar[Family]
    alpn: ClassVar[list[str]]
    transport: asyncio.Transport

    def __init__(
        self, server: FaultServer, scheme: str, number: int, sock: socket.socket, fault: ConnectionFault | None
    ) -> None:
        self.server = server
        self.scheme = scheme
        self.number = number
        self.received: int = 0
        self.last_reply: jina_pb2.DataRequestProto | None = None
        self._sock = sock
        self._secure = False
        self._fault = fault
        self._tasks: set[asyncio.Task[None]] = set()
        self._writable = asyncio.Event()
        self._writable.set()

    # called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._secure = transport.get_extra_info("ssl_object") is not None
        # With these limits, "not paused" means that the kernel has all bytes, which a fault in mid-reply has to know.
        transport.set_write_buffer_limits(high=1, low=0)
        self.server.connected(self)
        if self._fault is None or self._fault.greets:
            self.begin()
        if self._fault is not None:
            self._fault.opened(self)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if self._fault is None or not self._fault.received(self, data):
            self.take(data)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        for task in tuple(self._tasks):
            task.cancel()
        self.server.disconnected(self, self._sock)

    # implemented by the protocols

    def begin(self) -> None:
        """Send the first bytes, if the server's side begins in this protocol."""

    @abstractmethod
    def take(self, data: bytes) -> None:
        """Process bytes that were received."""

    @abstractmethod
    def send_endless_headers(self, data: bytes) -> bool:
        """Answer with endless headers; return whether the protocol must not process these bytes."""

    # shared by all protocols

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine as a task that is cancelled when the connection ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.server.failed(error)
            self.cut("reset")

    async def flush(self, data: bytes) -> None:
        """Write bytes, and wait until the kernel has all of them."""
        if not self.transport.is_closing():
            self.transport.write(data)
        await self._writable.wait()

    async def write_endlessly(self, head: bytes, piece: bytes) -> None:
        """Write the same bytes until the connection ends."""
        await self.flush(head)
        while not self.transport.is_closing():
            await self.flush(piece)
            await asyncio.sleep(0)

    def cut(self, how: str) -> None:
        """End the connection: FIN, RST, or FIN in the server's direction only."""
        if how == "close":
            self.transport.close()
            if self._secure:
                # asyncio would wait until the client ends TLS, too, before it ended the TCP connection.
                end_socket(self._sock, how)
            return
        end_socket(self._sock, how)
        if how == "reset":
            self.transport.abort()


class Exchange(ABC):
    """One request, and how its reply is sent.

    Attributes:
        message: The request.
        request: What scripts and tests can see of it.
    """

    def __init__(self, connection: Connection, message: jina_pb2.DataRequestProto, request: Request) -> None:
        self.connection = connection
        self.message = message
        self.request = request

    @property
    def family(self) -> Family:
        """The protocol: ``grpc``, ``http`` or ``websocket``, with or without TLS."""
        return self.connection.family

    async def respond(self, plan: tuple[Fault, ...]) -> None:
        """Answer the request, with the faults that its script asks for."""
        server = self.connection.server
        try:
            for fault in plan:
                await fault.wait(self)
            if not server.admits(self.request):
                await Refuse.unauthenticated().wait(self)
            reply = server.executor.answer(self.message)
            for fault in plan:
                fault.change(reply, self)
            payload = self.encode(reply)
            for fault in plan:
                payload = fault.corrupt(payload, self)
            for fault in plan:
                if await fault.deliver(self, payload):
                    return
            await self.send(payload)
        except AnsweredError:
            return
        finally:
            server.finished(self.request)

    async def send(self, payload: bytes) -> None:
        """Send a whole reply."""
        async with self.turn():
            await self.begin(len(payload))
            await self.write(payload)
            await self.end()
        self.connection.server.replied(self.request)

    async def forever(self) -> None:
        """Wait until the connection, or the request's stream, ends."""
        await asyncio.get_running_loop().create_future()

    def pen(self, fault: object) -> list[asyncio.Future[None]]:
        """Return the exchanges that a fault has gathered on this server so far."""
        return self.connection.server.pens.setdefault(fault, [])

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Reserve the connection, if replies cannot be mixed on it."""
        yield

    @abstractmethod
    def encode(self, reply: jina_pb2.DataRequestProto) -> bytes:
        """Return the reply's bytes."""

    @abstractmethod
    async def begin(self, size: int) -> None:
        """Send what precedes a reply of this many bytes."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Send some of the reply's bytes."""

    @abstractmethod
    async def end(self) -> None:
        """Send what follows a reply."""

    @abstractmethod
    async def refuse(self, refusal: Refuse) -> None:
        """Refuse the request."""

    @abstractmethod
    async def abandon(self, payload: bytes, refusal: Refuse) -> None:
        """Fail as jina's gateway does when its executor is gone: over gRPC, after an empty reply."""

    @abstractmethod
    async def send_page(self, page: Page) -> None:
        """Send a page of HTML instead of the reply."""

    @abstractmethod
    async def send_text(self, text: str) -> None:
        """Send text instead of the reply."""
