"""A connection that the calling thread itself uses, at a socket whose other end a test holds in its hand."""

import asyncio
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from casdk._engine.waiting import run
from casdk._rust import Failure, Head, Http2, Message
from casdk._transport.address import parse_address
from casdk._transport.channels.http2 import Http2Channel
from casdk._transport.channels.http2_direct import Begun, DirectConnection, greet
from casdk._transport.channels.options import ExchangeOptions
from casdk.config import TLS, Limits, Timeouts
from casdk.errors import DeadlineError, TransportError
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded

ANSWER = [(":status", "200"), ("content-type", "application/grpc")]
READ_SECONDS = 30.0


class Ends:
    """Both ends of a connection that has been opened, and the channel that it belongs to."""

    def __init__(self, wait=READ_SECONDS):
        endpoint = parse_address("grpc://clip.example:1")
        self.channel = Http2Channel(endpoint, TLS(), Timeouts(read=READ_SECONDS), Limits(), None)
        listener = socket.create_server(("127.0.0.1", 0))
        mine = socket.create_connection(listener.getsockname())
        self.peer, _ = listener.accept()
        self.peer.settimeout(READ_SECONDS)
        listener.close()
        mine.setblocking(False)
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.send()
        http2 = Http2(1 << 20)
        run(lambda _: greet(mine, http2))
        head = Head(False, "clip.example:1", "/a/b", READ_SECONDS, [])
        self.connection = DirectConnection(mine, http2, head, (), wait)

    def send(self):
        self.peer.sendall(self.h2.data_to_send())

    def receive(self, last):
        """Read until an event of that kind has come; return all events."""
        events = []
        while not any(isinstance(event, last) for event in events):
            data = self.peer.recv(1 << 16)
            assert data, "the connection has ended"
            events += self.h2.receive_data(data)
        return events

    def answer(self, stream, body=b"reply"):
        self.h2.send_headers(stream, ANSWER)
        self.h2.send_data(stream, struct.pack(">BI", 0, len(body)) + body)
        self.h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)
        self.send()

    def go_on(self, begun, **options):
        """Return what the engine makes of a request that was begun here."""
        options = ExchangeOptions(begun=begun, **options)
        return run(lambda _: self.channel.exchange("id", b"again", (), options))

    def close(self):
        run(lambda _: self.channel.aclose())
        self.connection.close()
        self.peer.close()


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """A thread waits as long as a test says, however slow this machine is."""
    monkeypatch.setattr("casdk._transport.channels.http2_direct.WAIT_SECONDS", READ_SECONDS)


@pytest.fixture
def ends():
    """A function from how long the thread waits for a reply to both ends of a connection."""
    made = []

    def make(*arguments):
        made.append(Ends(*arguments))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_reply_that_is_there_when_the_request_is_sent(ends):
    """A server's answer to one request after the other; the numbers of the streams say which."""
    one = ends()
    for number, stream in enumerate((1, 3, 5)):
        one.h2.receive_data(b"")
        found = exchange_answered(one, stream, f"reply {number}".encode())
        assert type(found) is Message
        assert bytes(found) == f"reply {number}".encode()
        assert one.connection.stream == stream
        assert one.connection.is_usable


def exchange_answered(ends, stream, body):
    """Exchange a request with a peer in another thread."""

    def serve():
        ends.receive(StreamEnded)
        ends.answer(stream, body)

    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(serve)
        found = ends.connection.exchange("id", b"message", None)
        serving.result(READ_SECONDS)
    return found


def test_a_ping_that_came_meanwhile_is_answered(ends):
    one = ends()
    one.h2.ping(b"12345678")
    one.send()
    while not one.connection._poll.poll(0):
        pass
    assert type(exchange_answered(one, 1, b"reply")) is Message
    one.h2.ping(b"87654321")
    one.send()
    assert type(exchange_answered(one, 3, b"reply")) is Message


@pytest.mark.parametrize("end", ["close", "go away", "reset"])
def test_nothing_is_sent_on_a_connection_that_has_ended(ends, end):
    one = ends()
    if end == "go away":
        one.h2.close_connection(ErrorCodes.NO_ERROR, last_stream_id=0)
        one.send()
    elif end == "reset":
        one.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.peer.close()
    else:
        one.peer.shutdown(socket.SHUT_WR)
    one.connection._poll.poll(1000 * READ_SECONDS)
    assert one.connection.exchange("id", b"message", None) is None
    assert not one.connection.is_usable
    assert one.connection.stream == 0


def test_the_engine_goes_on_where_the_thread_stops(ends):
    """The request is not sent again, and the connection is closed behind it."""
    one = ends(0.0)
    begun = one.connection.exchange("id", b"message", None)
    assert (type(begun), begun.outcome, begun.stream) == (Begun, None, 1)
    requests = [event for event in one.receive(StreamEnded) if isinstance(event, RequestReceived)]
    assert len(requests) == 1
    one.answer(1)
    assert bytes(one.go_on(begun)) == b"reply"
    assert one.connection.is_closed
    assert one.peer.recv(1 << 16) is not None
    assert begun.take() is None
    assert begun.next_id() != "id"


def test_what_the_socket_did_not_take_is_sent_by_the_engine(ends):
    """A message that is larger than all buffers on the way."""
    one = ends(0.0)
    large = bytes(1 << 15)
    one.connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    begun = one.connection.exchange("id", large, None)
    assert type(begun) is Begun

    def serve():
        events = one.receive(StreamEnded)
        one.answer(1)
        return b"".join(event.data for event in events if isinstance(event, DataReceived))

    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(serve)
        assert bytes(one.go_on(begun)) == b"reply"
        assert serving.result(READ_SECONDS)[5:] == large


def test_a_connection_that_is_lost_when_the_engine_has_it(ends):
    """It was idle before, and may have ended before the request, which is sent again; here nobody listens any more."""
    one = ends(0.0)
    begun = one.connection.exchange("id", b"message", None)
    assert begun.outcome is None
    one.peer.close()
    with pytest.raises(TransportError, match=r"clip\.example"):
        one.go_on(begun)


def test_a_connection_that_is_lost_when_it_is_used_again(ends):
    """The same, where the thread itself finds out."""
    one = ends()
    exchange_answered(one, 1, b"reply")

    def serve():
        one.receive(StreamEnded)
        one.peer.close()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(serve)
        begun = one.connection.exchange("id", b"message", None)
    assert begun.outcome.kind == "lost"
    assert not one.connection.is_usable
    with pytest.raises(TransportError, match=r"clip\.example"):
        one.go_on(begun)


def test_an_error_that_has_come_is_the_engines(ends):
    one = ends()

    def serve():
        one.receive(StreamEnded)
        one.h2.send_headers(1, [*ANSWER, ("grpc-status", "14"), ("grpc-message", "away")], end_stream=True)
        one.send()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(serve)
        begun = one.connection.exchange("id", b"message", None)
    assert isinstance(begun.outcome, Failure)
    assert one.connection.is_usable
    with pytest.raises(TransportError, match="away") as caught:
        one.go_on(begun)
    assert caught.value.code == "UNAVAILABLE"
    assert one.connection.is_usable


def test_the_time_of_a_request_begins_when_it_was_sent(ends):
    one = ends(0.0)
    one.channel.timeouts = Timeouts(read=0.05)
    begun = one.connection.exchange("id", b"message", None)
    with pytest.raises(DeadlineError, match=r"within 0\.05 s"):
        one.go_on(begun)
    while one.peer.recv(1 << 16):  # up to the end of the connection, by which the server takes the request back
        pass
    assert time.monotonic() - begun.began >= 0.05


def test_a_channel_that_is_closed_ends_what_it_has_taken_over(ends):
    one = ends(0.0)
    begun = one.connection.exchange("id", b"message", None)

    async def close(_):
        going_on = asyncio.ensure_future(one.channel.exchange("id", b"again", (), ExchangeOptions(begun=begun)))
        while not one.channel._others:  # noqa: ASYNC110 - nothing says when it is there
            await asyncio.sleep(0)
        await one.channel.aclose()
        await going_on

    with pytest.raises(TransportError, match="was closed"):
        run(close)


def test_shut_down_from_another_thread_ends_the_wait(ends):
    one = ends()
    with ThreadPoolExecutor(1) as pool:
        exchanging = pool.submit(one.connection.exchange, "id", b"message", None)
        one.receive(StreamEnded)
        one.connection.shut_down()
        begun = exchanging.result(READ_SECONDS)
    assert begun.outcome.kind == "lost"
    assert not one.connection.is_usable
    one.connection.shut_down()  # once more does nothing


def test_a_server_that_ends_the_greeting(ends):
    one, two = socket.socketpair()
    one.setblocking(False)
    two.close()
    with pytest.raises(OSError, match=r"pipe|takes no requests|not supported"):
        run(lambda _: partial(greet, http2=Http2(1))(one))
    one.close()
