"""The gRPC connections of the fault server, on the sans-I/O library h2."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from typing import Any, ClassVar, Final, cast
from urllib.parse import quote

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from google.protobuf.message import DecodeError

from casdk.testing._connection import Connection, Exchange, Family
from casdk.testing.faults import Page, Refuse
from casdk.testing.scripts import Request
from casdk.wire import jina_pb2

__all__ = ["GrpcConnection"]

UNARY: Final = "/jina.JinaSingleDataRequestRPC/process_single_data"
STREAM: Final = "/jina.JinaRPC/Call"
DRY_RUN: Final = "/jina.JinaGatewayDryRunRPC/dry_run"
WINDOW: Final = 2**24
FRAME: Final = 2**22
UNIMPLEMENTED: Final = 12
INVALID_ARGUMENT: Final = 3
NO_ERROR: Final = 0
HEADERS: Final = 1
"""HTTP/2's frame type."""


class GrpcConnection(Connection):
    """One HTTP/2 connection."""

    family: ClassVar[Family] = "grpc"
    alpn: ClassVar[list[str]] = ["h2"]

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_inbound_headers=False)
        self._h2 = h2.connection.H2Connection(config)
        self._streams: dict[int, Stream] = {}
        self._room = asyncio.Event()
        self._unread = b""

    def begin(self) -> None:
        codes = h2.settings.SettingCodes
        self._h2.initiate_connection()
        # If these were set before, h2 would send its defaults, use these values, and never update the client's window.
        self._h2.update_settings(
            {codes.INITIAL_WINDOW_SIZE: WINDOW, codes.MAX_CONCURRENT_STREAMS: 2**31 - 1, codes.MAX_FRAME_SIZE: FRAME}
        )
        # h2 checks the size of a frame before it processes the acknowledgement that came with it.
        self._h2.max_inbound_frame_size = FRAME
        self._h2.increment_flow_control_window(2**30)
        self.push()

    def push(self) -> None:
        """Write the bytes that h2 has produced."""
        if data := self._h2.data_to_send():
            self.transport.write(data)

    def take(self, data: bytes) -> None:
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError:
            self.push()
            self.cut("close")
            return
        for event in events:
            self._happened(event)
        self.push()

    def _happened(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._streams[event.stream_id] = Stream(self, event.stream_id, dict(cast(Any, event.headers)))
        elif isinstance(event, h2.events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if (stream := self._streams.get(event.stream_id)) is not None:
                stream.take(event.data)
        elif isinstance(event, h2.events.StreamEnded):
            if (stream := self._streams.get(event.stream_id)) is not None:
                stream.half_closed()
        elif isinstance(event, h2.events.StreamReset):
            if (stream := self._streams.pop(event.stream_id, None)) is not None:
                stream.reset()
        elif isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            self._room.set()

    async def send_headers(self, stream: int, headers: list[tuple[str, str]], last: bool = False) -> None:
        """Send a block of headers, unless the stream has ended."""
        if stream in self._streams:
            self._h2.send_headers(stream, headers, end_stream=last)
            await self.flush(self._h2.data_to_send())
        if last:
            self._close(stream)

    async def send_data(self, stream: int, data: bytes) -> None:
        """Send bytes, as far as the client's flow control window allows."""
        view = memoryview(data)
        while view and stream in self._streams:
            room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            if room <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            self._h2.send_data(stream, bytes(view[:room]))
            view = view[room:]
            await self.flush(self._h2.data_to_send())

    def _close(self, stream: int) -> None:
        """Remove a stream, and reset it if the client is still sending (RFC 9113, 8.1)."""
        closed = self._streams.pop(stream, None)
        if closed is not None and not closed.ended:
            self._h2.reset_stream(stream, NO_ERROR)
            self.push()

    def send_endless_headers(self, data: bytes) -> bool:
        if self.received == len(data):
            self._unread = data[24:]  # after the connection preface
        else:
            self._unread += data
        while len(self._unread) >= 9:
            length, kind = int.from_bytes(self._unread[:3]), self._unread[3]
            stream = int.from_bytes(self._unread[5:9])
            if kind == HEADERS:
                head = _frame(4, 1, 0, b"") + _frame(HEADERS, 0, stream, b"\x88")
                literal = b"\x00\x05x-pad\x7f\x81\x07" + b"y" * 262
                self.spawn(self.write_endlessly(head, _frame(9, 0, stream, literal * 50)))
                return True
            if len(self._unread) < 9 + length:
                break
            self._unread = self._unread[9 + length :]
        return True


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


class Stream:
    """One gRPC call, in which each message that arrives is answered by a task."""

    def __init__(self, connection: GrpcConnection, number: int, headers: Mapping[str, str]) -> None:
        self.connection = connection
        self.number = number
        self.headers = headers
        self.path = headers.get(":path", "")
        self.ended = False
        self.answering = False
        self._buffer = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen = 0

    def take(self, data: bytes) -> None:
        """Process bytes of messages."""
        self._buffer += data
        while len(self._buffer) >= 5:
            compressed, size = struct.unpack(">BI", self._buffer[:5])
            if len(self._buffer) < 5 + size:
                return
            message = bytes(self._buffer[5 : 5 + size])
            del self._buffer[: 5 + size]
            self._seen += 1
            self._spawn(self._message(message, compressed))

    def _spawn(self, work: Any) -> None:
        task = self.connection.spawn(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _message(self, message: bytes, compressed: int) -> None:
        served = (self.path == UNARY and self.connection.server.unary) or self.path == STREAM
        if self.path == DRY_RUN and self.connection.server.unready is not None:
            await GrpcReply(self).whole(self.connection.server.dry_run().SerializeToString())
            return
        if not served or compressed:
            await self.finish(UNIMPLEMENTED, f"Method not found: {self.path}")
            return
        request = jina_pb2.DataRequestProto()
        try:
            request.ParseFromString(message)
        except DecodeError as error:
            await self.finish(INVALID_ARGUMENT, str(error))
            return
        headers = {name: value for name, value in self.headers.items() if not name.startswith(":")}
        seen, plan = self.connection.server.arrived(self.connection, request, headers, len(message))
        exchange = GrpcExchange(self, request, seen)
        await exchange.respond(plan)
        # Out of the set before looking: of two that end in one turn of the loop, each would see the other in it.
        self._tasks.discard(cast(Any, asyncio.current_task()))
        if self.path == STREAM and self.ended and not self._tasks:
            await self.finish(0)

    def half_closed(self) -> None:
        """Note that the client sends no more."""
        self.ended = True
        if not self._tasks:
            # Answered already, but the last message's task did not know yet that it was the last.
            self._spawn(self.finish(0) if self._seen else self.finish(INVALID_ARGUMENT, "no message"))

    def reset(self) -> None:
        """Note that the client has cancelled the call."""
        self.connection.server.taken_back(self.connection)
        for task in tuple(self._tasks):
            task.cancel()

    async def finish(self, status: int, message: str = "", retry_after: float | str | None = None) -> None:
        """Send the trailers, which close the stream."""
        trailers = [("grpc-status", str(status))]
        if message:
            trailers.append(("grpc-message", quote(message, safe=" !#$&'()*+,/:;=?@[]")))
        if retry_after is not None:
            asked = retry_after if isinstance(retry_after, str) else str(int(retry_after * 1000))
            trailers.append(("grpc-retry-pushback-ms", asked))
        if not self.answering:
            trailers[:0] = [(":status", "200"), ("content-type", "application/grpc")]
        await self.connection.send_headers(self.number, trailers, last=True)


class GrpcReply:
    """The bytes of replies on a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def begin(self, size: int) -> None:
        stream = self._stream
        if not stream.answering:
            stream.answering = True
            headers = [(":status", "200"), ("content-type", "application/grpc")]
            await stream.connection.send_headers(stream.number, headers)
        await self.write(struct.pack(">BI", 0, size))

    async def write(self, data: bytes) -> None:
        await self._stream.connection.send_data(self._stream.number, data)

    async def whole(self, payload: bytes) -> None:
        await self.begin(len(payload))
        await self.write(payload)
        await self._stream.finish(0)


class GrpcExchange(Exchange):
    """One message of a stream."""

    def __init__(self, stream: Stream, message: jina_pb2.DataRequestProto, request: Request) -> None:
        super().__init__(stream.connection, message, request)
        self._stream = stream
        self._reply = GrpcReply(stream)
        self._turn = asyncio.Lock()

    def encode(self, reply: jina_pb2.DataRequestProto) -> bytes:
        return bytes(reply.SerializeToString())

    async def begin(self, size: int) -> None:
        await self._reply.begin(size)

    async def write(self, data: bytes) -> None:
        await self._reply.write(data)

    async def end(self) -> None:
        if self._stream.path == UNARY:
            await self._stream.finish(0)

    async def refuse(self, refusal: Refuse) -> None:
        await self._stream.finish(refusal.grpc, refusal.message, refusal.retry_after)

    async def abandon(self, payload: bytes, refusal: Refuse) -> None:
        await self.begin(len(payload))
        await self.write(payload)
        await self.refuse(refusal)

    async def send_page(self, page: Page) -> None:
        await self._send_html(page.status, page.html)

    async def send_text(self, text: str) -> None:
        await self._send_html(200, text)

    async def _send_html(self, status: int, html: str) -> None:
        stream = self._stream
        stream.answering = True
        headers = [(":status", str(status)), ("content-type", "text/html")]
        await stream.connection.send_headers(stream.number, headers)
        await self.write(html.encode())
        await stream.connection.send_headers(stream.number, [("x-end", "1")], last=True)
