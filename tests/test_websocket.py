"""Only for websockets: closing while a connection is being opened, floods, and idle connections that have ended."""

import asyncio
import socket
import threading
from contextlib import asynccontextmanager, suppress

import pytest
from casdk import TLS, AuthError, Limits, ReplyError, Timeouts, TransportError
from casdk._transport.address import Endpoint
from casdk._transport.channels.options import ExchangeOptions
from casdk._transport.channels.websocket import WebsocketChannel
from casdk.wire.jina_pb2 import DataRequestProto
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.sync.server import serve as serve_in_threads


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


class Ending:
    """A server that answers so many requests of each connection, and ends it under the next one; it counts both."""

    def __init__(self, answers, end):
        self.answers, self.end = answers, end
        self.connections = self.requests = 0

    async def speak(self, server):
        number, self.connections = self.connections, self.connections + 1
        left = self.answers[min(number, len(self.answers) - 1)]
        with suppress(ConnectionClosed):
            async for message in server:
                if len(message) == 1:
                    continue
                self.requests += 1
                left -= 1
                if left < 0:
                    await self.end(server)
                    return
                await server.send(message)


async def abort(server):
    server.transport.abort()


def closing(code):
    async def close(server):
        await server.close(code)

    return close


def request(name):
    message = DataRequestProto()
    message.header.request_id = name * 32
    return name * 32, message.SerializeToString(), ()


@asynccontextmanager
async def kept(ending):
    """A channel with a connection to a server on which one request was answered."""
    async with serve(ending.speak, "127.0.0.1", 0) as server:
        channel = channel_to(server)
        try:
            await channel.exchange(*request("a"))
            yield channel
        finally:
            await channel.aclose()


@pytest.mark.parametrize("end", [abort, closing(1000)])
async def test_an_idle_connection_that_ends_as_requests_are_sent(end):
    """Each is made once more, on one new connection that they share."""
    ending = Ending([1, 9], end)
    async with kept(ending) as channel:
        replies = await asyncio.gather(*[channel.exchange(*request(name)) for name in "bc"])
        assert [bytes(reply) for reply in replies] == [request(name)[1] for name in "bc"]
    assert ending.connections == 2


@pytest.mark.parametrize(
    ("end", "error"),
    [(closing(1001), TransportError), (closing(1008), AuthError), (closing(1011), TransportError)],
)
async def test_a_request_is_not_repeated_after_a_close_with_a_reason(end, error):
    ending = Ending([1, 9], end)
    async with kept(ending) as channel:
        with pytest.raises(error):
            await channel.exchange(*request("b"))
    assert (ending.connections, ending.requests) == (1, 2)


async def test_a_request_that_must_not_be_sent_twice_is_sent_once():
    ending = Ending([1, 9], abort)
    async with kept(ending) as channel:
        with pytest.raises(TransportError) as caught:
            await channel.exchange(*request("b"), ExchangeOptions(repeatable=False))
        assert caught.value.sent
    assert (ending.connections, ending.requests) == (1, 2)


async def test_a_new_connection_is_not_replaced():
    """Whatever ended it, it was the request's first one, or the second one that it was given."""
    ending = Ending([1, 0], closing(1000))
    async with kept(ending) as channel:
        for requests in (3, 4):
            with pytest.raises(TransportError, match="1000"):
                await channel.exchange(*request("b"))
            assert ending.requests == requests


@pytest.mark.parametrize("repeatable", [True, False])
async def test_the_end_of_an_idle_connection_is_noticed_before_an_index(repeatable):
    """An `index` has a look before it is sent."""
    ended, connections = threading.Event(), []

    def speak(server):
        connections.append(server)
        with suppress(ConnectionClosed):
            for message in server:
                if len(message) == 1:
                    continue
                server.send(message)
                if len(connections) == 1:
                    asked.wait(20)
                    server.socket.shutdown(socket.SHUT_RDWR)
                    ended.set()

    asked = threading.Event()
    with serve_in_threads(speak, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = Endpoint("websocket", *server.socket.getsockname())
        channel = WebsocketChannel(endpoint, TLS(), Timeouts(), Limits(), None)
        await channel.exchange(*request("a"))
        asked.set()
        ended.wait(20)  # this blocks the channel's loop, which notices nothing meanwhile
        await channel.exchange(*request("b"), ExchangeOptions(repeatable=repeatable))
        await channel.aclose()
        server.shutdown()
        thread.join()
    assert len(connections) == 2
