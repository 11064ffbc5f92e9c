"""The websocket's own: closing while a connection is being opened, and floods."""

import asyncio
from contextlib import suppress

import pytest
from casdk import TLS, Limits, ReplyError, Timeouts, TransportError
from casdk._transport.address import Endpoint
from casdk._transport.channels.websocket import WebsocketChannel
from websockets.asyncio.server import serve
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


async def test_closed_at_any_turn_of_connecting():
    async with serve(listen, "127.0.0.1", 0) as server:
        running = asyncio.all_tasks()
        connected = set()
        for turns in range(80):
            channel = channel_to(server)
            asked = [asyncio.create_task(channel.exchange(name, b"", ())) for name in "ab"]
            for _ in range(turns):
                await asyncio.sleep(0)
            connected.add(channel.connection is not None)
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
