"""The answer of a server that resets the connection under a large request is still read, by all three protocols."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from casdk import TLS, Limits, ServerError, Timeouts, TransportError
from casdk._rust import Failure, Head
from casdk._transport.address import parse_address
from casdk._transport.channels import unread
from casdk._transport.channels.http1_connection import Connection as Http1Connection
from casdk._transport.channels.http2 import Http2Channel
from casdk._transport.channels.http2_connection import Connection as Http2Connection
from casdk._transport.channels.websocket import ONLY, WebsocketChannel
from casdk._transport.channels.websocket_connection import REQUESTS
from casdk._transport.channels.websocket_connection import Connection as WebsocketConnection
from h2.config import H2Configuration
from h2.connection import H2Connection
from websockets.http11 import Request
from websockets.server import ServerProtocol

LARGE = b"x" * (4 << 20)
"""More than the system takes at once."""


class Ends:
    """The two ends of a connection: ours, on the loop's, and the server's."""

    def __init__(self, ours: socket.socket, server: socket.socket) -> None:
        self.ours, self.server = ours, server

    def take_leave(self, words: bytes) -> None:
        """Have the server say this and reset the connection, and return when both have arrived here, unread."""
        self.server.sendall(words)
        self.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.server.close()
        poll = select.poll()
        poll.register(self.ours, 0)  # only the events that are always reported: that it has broken
        assert poll.poll(10_000)


@pytest.fixture
def ends() -> Iterator[Ends]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    server.settimeout(10)
    with ours, server:
        yield Ends(ours, server)


async def connected(ends: Ends, connection: asyncio.Protocol) -> None:
    await asyncio.get_running_loop().create_connection(lambda: connection, sock=ends.ours)


def settings() -> tuple[Timeouts, Limits]:
    return Timeouts(read=10), Limits()


@pytest.mark.parametrize("length", [b"content-length: 2\r\n", b""])
async def test_http(ends: Ends, length: bytes) -> None:
    connection = Http1Connection(parse_address("http://clip.example:1"), lambda _: None)
    await connected(ends, connection)
    ends.take_leave(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\n" + length + b"\r\nno")
    answer = await connection.ask(b"POST /post HTTP/1.1\r\n\r\n", LARGE, 1 << 20)
    assert (answer.status, bytes(answer.body), answer.retry_after) == (413, b"no", None)
    assert connection.lost.done()


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 200 OK\r\n\r\n{", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"])
async def test_http_with_an_incomplete_reply(ends: Ends, words: bytes) -> None:
    """A reply that ends with the connection is not whole if that was reset."""
    connection = Http1Connection(parse_address("http://clip.example:1"), lambda _: None)
    await connected(ends, connection)
    ends.take_leave(words)
    with pytest.raises(TransportError, match="broke"):
        await connection.ask(b"POST /post HTTP/1.1\r\n\r\n", LARGE, 1 << 20)


async def test_http2(ends: Ends) -> None:
    channel = Http2Channel(parse_address("grpc://clip.example:1"), TLS(), *settings(), None)
    connection = Http2Connection(channel)
    await connected(ends, connection)
    peer = H2Connection(H2Configuration(client_side=False))
    peer.initiate_connection()
    ends.server.sendall(peer.data_to_send())
    await connection.greeted()
    head = Head(False, "clip.example:1", "/a/b", 10.0, [])
    outcomes = []
    for message in (b"a", b"b", LARGE):
        begun = connection.begin(head, message, None)
        assert begun is not None
        outcomes.append(begun[1])
        if message is not LARGE:
            await asyncio.sleep(0)
            peer.receive_data(ends.server.recv(1 << 16))
    peer.reset_stream(1, error_code=11)
    peer.close_connection(last_stream_id=1)
    ends.take_leave(peer.data_to_send())
    found = []
    for outcome in outcomes:
        await outcome
        found.append(outcome.result())
    assert [isinstance(each, Failure) and (each.kind, each.sent) for each in found] == [
        ("reset", True),
        ("refused", False),
        ("refused", False),
    ]


async def test_websocket(ends: Ends) -> None:
    channel = WebsocketChannel(parse_address("websocket://clip.example:1"), TLS(), *settings(), None)
    connection = WebsocketConnection(channel, (), (), REQUESTS, lambda _: ONLY)
    channel.connection = connection
    await connected(ends, connection)
    peer = ServerProtocol()
    peer.receive_data(ends.server.recv(1 << 16))
    [request] = peer.events_received()
    assert isinstance(request, Request)
    peer.send_response(peer.accept(request))
    ends.server.sendall(b"".join(peer.data_to_send()))
    await connection.opened()
    peer.send_close(1009, "too big")
    ends.take_leave(b"".join(peer.data_to_send()))
    with pytest.raises(ServerError, match="1009 too big") as caught:
        await connection.call(ONLY, LARGE, None)
    assert caught.value.too_large


@contextmanager
def lying(data: bytes, **extra: object) -> Iterator[asyncio.Transport]:
    """A transport on a socket in which these bytes lie."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(data)
        yield asyncio.Transport({"socket": asyncio.trsock.TransportSocket(ours), **extra})


def test_no_more_than_some_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "MOST_BYTES", 10)
    monkeypatch.setattr(unread, "PIECE_BYTES", 4)
    with lying(b"abcdefghijklmnop") as transport:
        assert list(unread.unread_bytes(transport)) == [b"abcd", b"efgh", b"ijkl"]


def test_nothing_is_waited_for() -> None:
    with lying(b"a") as transport:
        assert list(unread.unread_bytes(transport)) == [b"a"]
    assert list(unread.unread_bytes(transport)) == []  # its socket is closed


def test_nothing_is_read_over_tls() -> None:
    with lying(b"a", ssl_object=object()) as transport:
        assert list(unread.unread_bytes(transport)) == []
    assert list(unread.unread_bytes(asyncio.Transport())) == []
