"""Frames of a websocket that are read here: what arrives is what the library would have read, however it is cut."""

import asyncio
from contextlib import asynccontextmanager, suppress
from itertools import pairwise

import pytest
from casdk._transport.channels.websocket import Connection
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
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
