"""A connection of a websocket, on a transport that the test controls."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from casdk._rust import request_id_of
from casdk._transport.address import parse_address
from casdk._transport.channels.websocket import WebsocketChannel
from casdk._transport.channels.websocket_connection import CLOSE_SECONDS, END_OF_INPUT, Connection
from casdk.config import TLS, Limits, Timeouts
from casdk.errors import AuthError, CasdkError, DeadlineError, ProtocolMismatchError, ReplyError, TransportError
from casdk.wire.jina_pb2 import DataRequestProto
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

PONG_SECONDS = 1.0
"""Time for the answer to a ping, which a busy machine may need."""


class Wire(asyncio.Transport):
    """What asyncio would be: it keeps what is written, and has room or not."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.reading = True
        self.closed = False
        self.gone = asyncio.Event()
        self.unsent = 0

    @property
    def aborted(self) -> bool:
        return self.gone.is_set()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.gone.set()


def reply_to(request_id: str) -> bytes:
    reply = DataRequestProto()
    reply.header.request_id = request_id
    return reply.SerializeToString()


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Place:
    """A connection on a wire, and the server at the other end."""

    def __init__(self, path: str = "/", **timeouts: float) -> None:
        endpoint = parse_address("websocket://clip.example:1")
        self.channel = WebsocketChannel(endpoint, TLS(), Timeouts(**timeouts), Limits(), None)
        self.wire = Wire()
        headers = (("authorization", "Bearer token"),)
        self.connection = Connection(self.channel, headers, (("traceparent", "00-1"),), path, request_id_of)
        self.channel.connection = self.connection
        self.connection.connection_made(self.wire)
        self.server = ServerProtocol(max_size=None)

    def open(self) -> Place:
        """Answer the handshake."""
        self.server.receive_data(self.take())
        [request] = self.server.events_received()
        assert isinstance(request, Request)
        assert request.headers["Authorization"] == "Bearer token"
        assert request.headers["Traceparent"] == "00-1"
        assert request.headers["Host"] == "clip.example:1"
        self.server.send_response(self.server.accept(request))
        return self

    def take(self) -> bytes:
        data, self.wire.written = b"".join(self.wire.written), []
        return data

    def carry(self) -> list[Frame]:
        """Carry bytes to the server and back; return the frames that came there."""
        self.server.receive_data(self.take())
        if answer := b"".join(self.server.data_to_send()):
            self.connection.data_received(answer)
        return [frame for frame in self.server.events_received() if isinstance(frame, Frame)]

    def say(self, data: bytes) -> None:
        self.connection.data_received(data)

    async def begin(self, request_id: str, message: bytes = b"x") -> asyncio.Task[bytes]:
        async def call() -> bytes:
            return bytes(await self.connection.call(request_id, message, None))

        task = asyncio.ensure_future(call())
        await turns()
        return task


def opened(**timeouts: float) -> Place:
    place = Place(**timeouts).open()
    place.carry()
    assert place.connection.usable
    return place


async def test_requests_of_one_turn_are_written_together_and_replies_are_paired_by_id() -> None:
    place = opened()
    await place.connection.opened()
    ids = [f"{number}" * 32 for number in range(5)]
    calls = [asyncio.ensure_future(place.connection.call(each, each.encode(), None)) for each in ids]
    await turns()
    assert len(place.wire.written) == 1
    assert [frame.data.decode() for frame in place.carry()] == ids
    for each in reversed(ids):
        place.server.send_binary(reply_to(each))
    place.carry()
    assert [bytes(reply) for reply in await asyncio.gather(*calls)] == [reply_to(each) for each in ids]
    assert not place.connection.waiting


@given(sizes=st.lists(st.sampled_from([0, 2, 125, 126, 65_536, (1 << 20) + 1, 3 << 20]), min_size=1, max_size=4))
def test_messages_arrive_in_order(sizes: list[int]) -> None:
    async def main() -> None:
        place = opened()
        calls = [await place.begin(f"{number}", bytes([number]) * size) for number, size in enumerate(sizes)]
        found: list[bytes] = []
        while len(found) < len(sizes):
            for frame in place.carry():
                if frame.opcode is Opcode.CONT:
                    found[-1] += frame.data
                else:
                    found.append(bytes(frame.data))
            await asyncio.sleep(0)
        while any(len(message) < size for message, size in zip(found, sizes, strict=True)):
            await asyncio.sleep(0)
            for frame in place.carry():
                found[-1] += frame.data
        assert found == [bytes([number]) * size for number, size in enumerate(sizes)]
        place.connection.close()
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(outcome, TransportError)

    asyncio.run(main())


async def test_nothing_is_written_while_the_transport_is_full() -> None:
    place = opened()
    place.connection.pause_writing()
    task = await place.begin("a")
    place.server.send_ping(b"1")
    place.server.send_ping(b"2")
    place.carry()
    assert place.wire.written == []
    place.connection.resume_writing()
    assert [frame.opcode for frame in place.carry()] == [Opcode.PONG, Opcode.BINARY]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_request_that_is_cancelled_before_it_is_written_is_not_sent() -> None:
    place = opened()
    place.connection.pause_writing()
    task, other = await place.begin("a", b"first"), await place.begin("b", b"second")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    place.connection.resume_writing()
    assert [frame.data for frame in place.carry()] == [b"second"]
    place.connection.close()
    with pytest.raises(TransportError, match="was closed"):
        await other
    assert place.wire.aborted


async def test_a_ping_is_sent_and_its_answer_counts() -> None:
    place = Place().open()
    place.channel.ping_seconds, place.channel.pong_seconds = 0.05, PONG_SECONDS
    place.carry()
    task = await place.begin("a")
    async with asyncio.timeout(20):
        pings = 0
        while pings < 2:
            pings += sum(frame.opcode is Opcode.PING for frame in place.carry())
            await asyncio.sleep(0.01)
        with pytest.raises(TransportError, match="did not answer a ping"):
            await task
    assert place.wire.aborted
    assert not place.connection.usable


async def test_pings_are_sent_only_while_requests_are_in_flight() -> None:
    idle, busy = Place().open(), Place().open()
    for place in (idle, busy):
        place.channel.ping_seconds, place.channel.pong_seconds = 0.05, PONG_SECONDS
        place.carry()
    answered = await idle.begin("a")
    idle.carry()
    idle.server.send_binary(reply_to("a"))
    idle.carry()
    await answered
    waiting = await busy.begin("b")
    async with asyncio.timeout(20):
        pings = 0
        while pings < 2:
            pings += sum(frame.opcode is Opcode.PING for frame in busy.carry())
            await asyncio.sleep(0.005)
        assert idle.wire.written == []
        # They begin again with the next request.
        again, opcodes = await idle.begin("c"), []
        while Opcode.PING not in opcodes:
            opcodes += [frame.opcode for frame in idle.carry()]
            await asyncio.sleep(0.005)
    for place, task in ((idle, again), (busy, waiting)):
        place.connection.close()
        with pytest.raises(TransportError):
            await task


async def test_a_ping_may_wait_behind_what_the_server_still_reads() -> None:
    place = Place().open()
    place.channel.ping_seconds, place.channel.pong_seconds = 0.05, 0.25
    place.carry()
    task = await place.begin("a")
    place.wire.unsent = 1_000_000
    async with asyncio.timeout(20):
        for _ in range(50):  # several turns for each look at what is unsent, since a busy machine may be late with one
            place.wire.unsent -= 1
            await asyncio.sleep(0.02)
            assert not place.wire.aborted
        with pytest.raises(TransportError, match="did not answer a ping"):
            await task


async def test_a_request_without_a_reply_in_time_is_late() -> None:
    place = opened(read=0.05)
    with pytest.raises(DeadlineError):
        await (await place.begin("a"))
    assert not place.connection.usable, "nothing was received since the request was sent"
    assert place.wire.aborted


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", ProtocolMismatchError, "does not speak websocket"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", ProtocolMismatchError, "speaks HTTP but no websocket; use http://"),
        (b"HTTP/1.1 401 No\r\n\r\n", AuthError, "HTTP 401"),
        (b"HTTP/1.1 503 Busy\r\nretry-after: 9\r\n\r\n", TransportError, "'9'"),
    ],
)
async def test_other_answers_to_the_handshake(words: bytes, error: type[CasdkError], said: str) -> None:
    place = Place()
    place.connection.data_received(words)
    with pytest.raises(error, match=said) as caught:
        await place.connection.opened()
    assert not caught.value.sent
    assert place.wire.closed


async def test_a_connection_that_ends_before_the_answer_to_the_handshake() -> None:
    place = Place()
    place.connection.eof_received()
    place.connection.connection_lost(None)
    with pytest.raises(TransportError, match="closed during the handshake"):
        await place.connection.opened()
    assert place.connection.lost.done()


@pytest.mark.parametrize("end", [False, True])
async def test_bytes_behind_the_answer_to_the_handshake_are_for_the_first_request(end: bool) -> None:
    place = Place().open()
    place.server.send_binary(reply_to("a"))
    place.server.send_close(1008, "no")
    place.carry()
    if end:
        place.connection.eof_received()
        place.connection.connection_lost(None)
    assert not place.wire.reading
    first = await place.begin("a")
    assert await first == reply_to("a")
    assert not place.connection.usable
    with pytest.raises(TransportError) as caught:
        await (await place.begin("b"))
    assert not caught.value.sent


async def test_each_request_gets_the_servers_reason_for_closing() -> None:
    place = opened()
    one, other = await place.begin("a"), await place.begin("b")
    place.server.send_close(1008, "no")
    place.carry()
    errors = await asyncio.gather(one, other, return_exceptions=True)
    assert [type(error) for error in errors] == [AuthError] * 2
    assert errors[0] is not errors[1]
    assert all(isinstance(error, AuthError) and error.shared for error in errors)
    assert place.wire.closed
    assert place.channel.connection is None
    # It is told that this was heard.
    assert place.carry()[-1].opcode is Opcode.CLOSE


async def test_a_message_without_a_request_id_ends_the_connection() -> None:
    place = opened()
    task = await place.begin("a")
    place.say(Frame(Opcode.BINARY, b"\xff").serialize(mask=False))
    with pytest.raises(ReplyError):
        await task
    assert place.wire.aborted


async def test_small_messages_without_end_are_read_in_turns() -> None:
    place = opened()
    task = await place.begin("a")
    place.say(Frame(Opcode.BINARY, reply_to("b")).serialize(mask=False) * 5000)
    assert not place.wire.reading
    place.connection._go_on()
    assert not task.done()
    place.say(Frame(Opcode.BINARY, reply_to("a")).serialize(mask=False))
    assert await asyncio.wait_for(task, 10) == reply_to("a")
    assert place.wire.reading


async def test_closing_sends_the_end_of_input_and_a_close_frame() -> None:
    place = opened()
    place.connection.close()
    assert not place.connection.usable
    end, close = place.carry()
    assert end.data == END_OF_INPUT
    assert (close.opcode, close.data) == (Opcode.CLOSE, b"\x03\xe8")
    assert place.wire.closed
    assert not place.wire.aborted


async def test_the_end_of_input_is_sent_only_on_the_path_of_requests() -> None:
    place = Place("/dry_run").open()
    place.carry()
    place.connection.close()
    assert [frame.opcode for frame in place.carry()] == [Opcode.CLOSE]


async def test_a_close_frame_that_is_not_answered() -> None:
    place = opened()
    place.connection.close()
    await asyncio.wait_for(place.wire.gone.wait(), CLOSE_SECONDS + 10)
