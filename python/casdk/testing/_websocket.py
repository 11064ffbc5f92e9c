"""The websocket connections of the fault server, on the sans-I/O part of the library websockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any, ClassVar, Final

from google.protobuf.message import DecodeError
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as Handshake
from websockets.server import ServerProtocol

from casdk.testing._connection import Connection, Exchange, Family
from casdk.testing.faults import Page, Refuse
from casdk.testing.scripts import Request
from casdk.wire import jina_pb2

__all__ = ["WebsocketConnection"]

END: Final = b"\x00"
DRY_RUN: Final = "/dry_run"
MOST_REASON: Final = 123


class WebsocketConnection(Connection):
    """One websocket, whose requests and replies are binary frames."""

    family: ClassVar[Family] = "websocket"
    alpn: ClassVar[list[str]] = ["http/1.1"]

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        # jina's gateway reads the subprotocol and does not echo it.
        self.protocol = ServerProtocol(select_subprotocol=lambda protocol, offered: None, max_size=None)
        self.lock = asyncio.Lock()
        self._headers: dict[str, str] = {}
        self._path = ""
        self._fragments: list[bytes] = []
        self._answering: set[asyncio.Task[None]] = set()
        self._ended = False
        self._stuck = False

    def take(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            if isinstance(event, Handshake):
                self._shake(event)
            elif isinstance(event, Frame):
                self._framed(event)
        self.push()

    def eof_received(self) -> None:
        self.protocol.receive_eof()
        self.push()

    def push(self) -> None:
        """Write the bytes that the library has produced, unless they would end up inside of a frame being written."""
        if self.lock.locked():
            return
        for piece in self.protocol.data_to_send():
            if self.transport.is_closing():  # over TLS, asyncio's write would fail
                continue
            if piece:
                self.transport.write(piece)
            else:
                self.cut("close")

    def _shake(self, request: Handshake) -> None:
        self._headers = {name.lower(): value for name, value in request.headers.raw_items()}
        self._path = request.path
        if not self.server.admits_token(self._headers.get("authorization")):
            self.protocol.send_response(self.protocol.reject(HTTPStatus.UNAUTHORIZED, "bad credential\n"))
        elif self._path == DRY_RUN and self.server.unready is None:
            # FastAPI refuses an unknown path in this way.
            self.protocol.send_response(self.protocol.reject(HTTPStatus.FORBIDDEN, ""))
        elif "bytes" not in self._headers.get("sec-websocket-protocol", "") and self._path != DRY_RUN:
            self.protocol.send_response(self.protocol.reject(HTTPStatus.BAD_REQUEST, "only the subprotocol bytes\n"))
        else:
            self.protocol.send_response(self.protocol.accept(request))

    def _framed(self, frame: Frame) -> None:
        if frame.opcode not in (Opcode.BINARY, Opcode.CONT, Opcode.TEXT):
            return  # the library has prepared answers to pings and closes
        self._fragments.append(bytes(frame.data))
        if not frame.fin:
            return
        message, self._fragments = b"".join(self._fragments), []
        if self._path == DRY_RUN:
            self.protocol.send_binary(self.server.dry_run().SerializeToString())
            self.protocol.send_close(1000)
        elif message == END:
            self._ended = True
            self._maybe_close()
        else:
            self._request(message)

    def _request(self, message: bytes) -> None:
        request = jina_pb2.DataRequestProto()
        try:
            request.ParseFromString(message)
        except DecodeError:
            self.cut("close")  # without a close frame, as jina does
            return
        seen, plan = self.server.arrived(self, request, self._headers, len(message))
        task = self.spawn(WebsocketExchange(self, request, seen).respond(plan))
        self._answering.add(task)
        task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._answering.discard(task)
        self._maybe_close()
        self.push()

    def _maybe_close(self) -> None:
        if self._ended and not self._answering and not self.transport.is_closing():
            self.close(1000)

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame."""
        if self.protocol.state.name == "OPEN":
            self.protocol.send_close(code, reason.encode()[:MOST_REASON].decode(errors="ignore"))
        self.push()

    def send_endless_headers(self, data: bytes) -> bool:
        if self.received == len(data):
            self.spawn(
                self.write_endlessly(b"HTTP/1.1 101 Switching Protocols\r\n", b"x-pad: " + b"y" * 1000 + b"\r\n")
            )
        return True


class WebsocketExchange(Exchange):
    """One request on a websocket."""

    def __init__(self, connection: WebsocketConnection, message: jina_pb2.DataRequestProto, request: Request) -> None:
        super().__init__(connection, message, request)
        self._socket = connection

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        async with self._socket.lock:
            yield
        self._socket.push()

    def encode(self, reply: jina_pb2.DataRequestProto) -> bytes:
        return bytes(reply.SerializeToString())

    async def begin(self, size: int) -> None:
        # The frame's head is written here, since faults send its payload slowly, in part, or not at all.
        if size < 126:
            length = bytes([size])
        else:
            length = b"\x7e" + size.to_bytes(2) if size < 2**16 else b"\x7f" + size.to_bytes(8)
        await self._socket.flush(b"\x82" + length)

    async def write(self, data: bytes) -> None:
        await self._socket.flush(data)

    async def end(self) -> None:
        return

    async def refuse(self, refusal: Refuse) -> None:
        self._socket.close(refusal.close, refusal.message)

    async def abandon(self, payload: bytes, refusal: Refuse) -> None:
        await self.refuse(refusal)

    async def send_page(self, page: Page) -> None:
        self._socket.close(page.close, page.html)

    async def send_text(self, text: str) -> None:
        frame = Frame(Opcode.TEXT, text.encode())
        await self._socket.flush(frame.serialize(mask=False))
