"""A connection of HTTP/2, on a transport that the test controls."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
from itertools import pairwise

import pytest
from casdk._rust import Message
from casdk._transport.address import parse_address
from casdk._transport.channels.http2 import Http2Channel
from casdk._transport.channels.http2_connection import Connection
from casdk.config import TLS, Limits, Timeouts
from casdk.errors import DeadlineError, ProtocolMismatchError, ServerError, TransportError
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import PingReceived, StreamEnded, StreamReset

ANSWER = [(":status", "200"), ("content-type", "application/grpc")]


class Wire(asyncio.Transport):
    """What asyncio would be: it keeps what is written, and has room or not."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.reading = True
        self.aborted = False
        self.unsent = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


class Place:
    """A connection on a wire, and the server at the other end."""

    def __init__(self, **timeouts: float) -> None:
        endpoint = parse_address("grpc://clip.example:1")
        self.channel = Http2Channel(endpoint, TLS(), Timeouts(**timeouts), Limits(), None)
        self.wire = Wire()
        self.connection = Connection(self.channel)
        self.channel.connection = self.connection
        self.connection.connection_made(self.wire)
        self.server = H2Connection(H2Configuration(client_side=False))
        self.server.initiate_connection()

    def carry(self) -> list[object]:
        """Carry bytes to the server and back; return what happened there."""
        data, self.wire.written = b"".join(self.wire.written), []
        events: list[object] = list(self.server.receive_data(data))
        if answer := self.server.data_to_send():
            self.connection.data_received(answer)
        return events

    def call(self, message: bytes = b"") -> asyncio.Task[Message]:
        return asyncio.ensure_future(self.channel.exchange("", message, ()))

    async def begin(self, message: bytes = b"") -> asyncio.Task[Message]:
        task = self.call(message)
        for _ in range(3):
            await asyncio.sleep(0)
        return task


async def test_requests_of_one_turn_are_written_together() -> None:
    place = Place()
    place.carry()
    await place.connection.greeted()
    place.wire.written.clear()
    calls = [place.call(b"x") for _ in range(5)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(place.wire.written) == 1
    streams = [event.stream_id for event in place.carry() if isinstance(event, StreamEnded)]
    assert streams == sorted(place.connection.waiting)
    for stream in streams:
        place.server.send_headers(stream, ANSWER)
        place.server.send_data(stream, b"\0\0\0\0\1y")
        place.server.send_headers(stream, [("grpc-status", "0")], end_stream=True)
    place.carry()
    replies = await asyncio.gather(*calls)
    assert [bytes(reply) for reply in replies] == [b"y"] * 5
    assert not place.connection.waiting


async def test_nothing_is_written_while_the_transport_is_full() -> None:
    place = Place()
    place.carry()
    place.carry()
    place.wire.written.clear()
    place.connection.pause_writing()
    task = await place.begin()
    place.server.ping(b"12345678")
    place.carry()
    assert place.wire.written == []
    place.connection.resume_writing()
    events = place.carry()
    assert any(isinstance(event, StreamEnded) for event in events)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_cancelled_call_resets_only_its_own_stream() -> None:
    place = Place()
    place.carry()
    task, other = await place.begin(), await place.begin()
    place.carry()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert any(isinstance(event, StreamReset) for event in place.carry())
    assert len(place.connection.waiting) == 1
    place.connection.close()
    with pytest.raises(TransportError, match="was closed"):
        await other
    assert place.wire.aborted


async def test_a_ping_is_sent_while_a_call_is_in_flight_and_its_answer_counts() -> None:
    place = Place()
    place.channel.ping_seconds, place.channel.pong_seconds = 0.05, 1.0  # a busy machine may take its time to answer
    place.carry()
    await asyncio.sleep(0.1)
    assert not any(isinstance(event, PingReceived) for event in place.carry())
    task = await place.begin()
    async with asyncio.timeout(20):
        pings = 0
        while pings < 2:
            pings += sum(isinstance(event, PingReceived) for event in place.carry())
            await asyncio.sleep(0.01)
        with pytest.raises(TransportError, match="did not answer a ping"):
            await task
    assert place.wire.aborted
    assert not place.connection.usable


class Jumping(selectors.DefaultSelector):
    """Waits for nothing: the time that it should have waited is over at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.now += max(timeout, 0.001)
        return ready


async def _pings(place: Place, until: float) -> list[float]:
    """Answer what comes up to a point of time; return when pings came."""
    pings = []
    while place.connection.loop.time() < until:
        if any(isinstance(event, PingReceived) for event in place.carry()):
            pings.append(place.connection.loop.time())
        await asyncio.sleep(0.1)
    return pings


async def _calls_of_a_day() -> list[float]:
    place = Place(read=10_000)
    place.carry()
    pings = await _pings(place, 100)
    assert pings == [], "nothing is in flight"
    for end in range(200, 300, 3):  # calls of three seconds, which are answered
        task = await place.begin()
        pings += await _pings(place, end)
        place.server.send_headers(max(place.connection.waiting), [*ANSWER, ("grpc-status", "13")], end_stream=True)
        place.carry()
        with contextlib.suppress(ServerError):
            await task
    task = await place.begin()
    pings += await _pings(place, 1000)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await _pings(place, 2000) == []
    return pings


def test_pings_are_seldom_and_only_while_a_call_is_in_flight() -> None:
    """jina's servers end a connection that is asked more often than every 10 s; here time is not waited for."""
    selector = Jumping()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    try:
        pings = loop.run_until_complete(_calls_of_a_day())
    finally:
        loop.close()
    apart = [later - earlier for earlier, later in pairwise(pings)]
    assert len(pings) > 30
    assert min(apart) >= 10


async def test_a_call_without_a_reply_in_time_is_late() -> None:
    place = Place(read=0.05)
    place.carry()
    with pytest.raises(DeadlineError):
        await (await place.begin())
    assert not place.connection.usable, "nothing was received since the request was sent"


@pytest.mark.parametrize("words", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_another_protocol(words: bytes) -> None:
    place = Place()
    place.connection.data_received(words)
    with pytest.raises(ProtocolMismatchError, match="does not speak gRPC"):
        await place.connection.greeted()
    assert place.wire.aborted


async def test_a_connection_that_ends_before_the_servers_first_frame() -> None:
    place = Place()
    place.connection.eof_received()
    place.connection.connection_lost(None)
    with pytest.raises(ConnectionResetError):
        await place.connection.greeted()
