"""The websocket's own: requests among the library's frames, replies told apart, closing while a socket is being opened.

Whatever the network cuts, what arrives is what the library would have read.
"""

import asyncio
from contextlib import asynccontextmanager, suppress
from itertools import pairwise

import pytest
from casdk import TLS, Limits, ReplyError, Timeouts, TransportError
from casdk._transport.address import Endpoint
from casdk._transport.channels.base import SLICE_BYTES
from casdk._transport.channels.websocket import SMALL_BYTES, Connection, WebsocketChannel
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

LARGEST = 70_000
SIZES = st.sampled_from([0, 1, 125, 126, 127, 65_535, 65_536, LARGEST])
FRAMES = st.one_of(
    SIZES.map(lambda size: [Frame(Opcode.BINARY, bytes(size))]),
    st.sampled_from([[Frame(Opcode.PING, b"x" * 125)], [Frame(Opcode.PONG, b"")]]),
    st.tuples(SIZES, SIZES).map(
        lambda sizes: [
            Frame(Opcode.BINARY, b"f" * (sizes[0] // 2), fin=False),
            Frame(Opcode.CONT, b"f" * (sizes[1] // 2)),
        ]
    ),
)


async def listen(server):
    with suppress(ConnectionClosed):
        async for _ in server:
            pass


@asynccontextmanager
async def connection_to(deliver):
    """A connection of the channel's to a real server that says nothing."""
    async with serve(listen, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        options = {"max_size": LARGEST, "compression": None, "proxy": None, "close_timeout": 1}
        async with connect(f"ws://127.0.0.1:{port}", create_connection=Connection, **options) as connection:
            connection.begin(deliver, pytest.fail, LARGEST)
            yield connection


def channel_to(server):
    """A channel of its own to a server."""
    endpoint = Endpoint("websocket", "127.0.0.1", server.sockets[0].getsockname()[1])
    return WebsocketChannel(endpoint, TLS(), Timeouts(), Limits(), None)


def messages_of(frames):
    messages = []
    for frame in frames:
        if frame.opcode is Opcode.BINARY:
            messages.append(frame.data)
        elif frame.opcode is Opcode.CONT:
            messages[-1] += frame.data
    return messages


@settings(deadline=None)
@given(groups=st.lists(FRAMES, min_size=1, max_size=6), cuts=st.lists(st.integers(0, 400_000), max_size=12))
def test_any_cut_of_any_frames(groups, cuts):
    frames = [frame for group in groups for frame in group]
    stream = b"".join(frame.serialize(mask=False) for frame in frames)
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    direct = []

    async def main():
        async with connection_to(direct.append) as connection:
            for start, end in pairwise(edges):
                connection.data_received(stream[start:end])

    asyncio.run(main())
    assert direct == messages_of(frames)


@pytest.mark.parametrize("cut", [1, 2, 3, 9, 10, 11])
def test_byte_by_byte_around_the_head(cut):
    stream = Frame(Opcode.BINARY, b"y" * 65_536).serialize(mask=False) * 2
    direct = []

    async def main():
        async with connection_to(direct.append) as connection:
            for start in range(cut):
                connection.data_received(stream[start : start + 1])
            connection.data_received(stream[cut:])

    asyncio.run(main())
    assert direct == [b"y" * 65_536] * 2


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (Frame(Opcode.BINARY, bytes(LARGEST + 1)).serialize(mask=False), 1009),
        (Frame(Opcode.BINARY, b"masked").serialize(mask=True), 1002),
        (b"\xc2\x01x", 1002),  # a reserved bit
        (b"\x80\x01x", 1002),  # goes on with what never began
        (b"\x88\x7e\x00\x7e" + bytes(126), 1002),  # closes at too great length
    ],
    ids=["too large", "masked", "reserved", "continuation", "long close"],
)
def test_what_the_library_refuses_is_refused(frame, code):
    async def main():
        async with connection_to(pytest.fail) as connection:
            connection.data_received(frame)
            with pytest.raises(ConnectionClosed) as caught:
                await connection.recv()
        return caught.value.sent.code

    assert asyncio.run(main()) == code


PING = 0
TURNS = st.lists(
    st.lists(
        st.sampled_from([PING, 2, 125, 126, 8_000, SMALL_BYTES - 2, SMALL_BYTES, SMALL_BYTES + 1, SLICE_BYTES + 1]),
        max_size=9,
    ),
    min_size=1,
    max_size=3,
)


@settings(deadline=None)
@given(turns=TURNS)
def test_frames_of_one_turn_arrive_in_their_order(turns):
    """Whoever writes them: the channel the small ones, the library pings and what is large."""
    arrived, opened = [], asyncio.Event()

    class Server(ServerConnection):
        def process_event(self, event):
            if isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.PING):
                arrived.append(bytes(event.data if event.opcode is Opcode.PING else event.data[:2]))
                opened.set()
            super().process_event(event)

    async def main():
        async with serve(listen, "127.0.0.1", 0, max_size=None, create_connection=Server) as server:
            channel = channel_to(server)
            asked = [asyncio.create_task(channel.exchange("opener", b"", ()))]
            await opened.wait()
            connection = channel.socket.connection
            for number, turn in enumerate(turns):
                await (await connection.ping())
                arrived.clear()
                names = [bytes([number, position]) for position in range(len(turn))]
                for name, size in zip(names, turn, strict=True):
                    frame = connection.ping(name) if size is PING else channel.exchange(name, name.ljust(size), ())
                    asked.append(asyncio.create_task(frame))
                await asyncio.sleep(0)
                while len(arrived) < len(turn):
                    await (await connection.ping())
                    arrived[:] = [name for name in arrived if name in names]
                # Pings come between fragments, and before what waits for their end.
                if max(turn, default=0) > SLICE_BYTES:
                    names.sort(key=lambda name: turn[name[1]] is PING)
                    arrived.sort(key=lambda name: turn[name[1]] is PING)
                assert arrived == names
            await channel.aclose()
            for outcome in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(outcome, TransportError | asyncio.Future)

    asyncio.run(main())


async def test_closed_at_any_turn_of_connecting():
    async with serve(listen, "127.0.0.1", 0) as server:
        running = asyncio.all_tasks()
        connected = set()
        for turns in range(80):
            channel = channel_to(server)
            asked = [asyncio.create_task(channel.exchange(name, b"", ())) for name in "ab"]
            for _ in range(turns):
                await asyncio.sleep(0)
            connected.add(channel.socket is not None)
            await channel.aclose()
            for outcome in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(outcome, TransportError)
            if left := asyncio.all_tasks() - running:
                _, stayed = await asyncio.wait(left, timeout=10)
                assert not stayed, turns
        assert connected == {False, True}


async def test_a_flood_of_pings_by_a_server_that_does_not_read():
    """The answers would take memory without end: the connection is given up, and its request says why."""
    flood = Frame(Opcode.PING, b"x" * 125).serialize(mask=False) * 1000

    async def ping(server):
        server.transport.pause_reading()
        while not server.transport.is_closing():
            if server.transport.get_write_buffer_size() < len(flood):
                server.transport.write(flood)
            await asyncio.sleep(0)

    async with serve(ping, "127.0.0.1", 0) as server:
        channel = channel_to(server)
        with pytest.raises(ReplyError, match="it sends pings"):
            await channel.exchange("a" * 32, b"x", ())
        await channel.aclose()
