"""The websocket's own: requests among the library's frames, replies told apart, closing while a socket is being opened.

Whatever the network cuts, what arrives is what the library would have read.
"""

import asyncio
from contextlib import suppress

import pytest
from casdk import TLS, Limits, ReplyError, Timeouts, TransportError
from casdk._transport.address import Endpoint
from casdk._transport.channels.base import SLICE_BYTES
from casdk._transport.channels.websocket import SMALL_BYTES, WebsocketChannel
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode


async def listen(server):
    with suppress(ConnectionClosed):
        async for _ in server:
            pass


def channel_to(server):
    """A channel of its own to a server."""
    endpoint = Endpoint("websocket", "127.0.0.1", server.sockets[0].getsockname()[1])
    return WebsocketChannel(endpoint, TLS(), Timeouts(), Limits(), None)


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
