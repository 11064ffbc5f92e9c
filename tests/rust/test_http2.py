"""gRPC over HTTP/2, spoken with the library h2 of Python, which shares no line with the crate of that name."""

from __future__ import annotations

import struct

import pytest
from casdk._rust import Failure, Head, Http2, Message, scan
from casdk.wire.jina_pb2 import DataRequestProto
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st

LARGEST = 1 << 22
OK = [("grpc-status", "0")]
ANSWER = [(":status", "200"), ("content-type", "application/grpc")]


class Server:
    """The other end."""

    def __init__(self) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
        self.h2.increment_flow_control_window(2**30)
        self.headers: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = {}
        self.ended: list[int] = []
        self.reset: list[int] = []

    def take(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            self._note(event)

    def _note(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self.headers[event.stream_id] = {str(name): str(value) for name, value in event.headers}
        elif isinstance(event, DataReceived):
            self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
        elif isinstance(event, StreamEnded):
            self.ended.append(event.stream_id)
        elif isinstance(event, StreamReset):
            self.reset.append(event.stream_id)

    def answer(self, stream: int, body: bytes, cut: int = 16_000) -> None:
        self.h2.send_headers(stream, ANSWER)
        for start in range(0, len(body), cut):
            self.h2.send_data(stream, body[start : start + cut])
        self.h2.send_headers(stream, OK, end_stream=True)


def head(path: str = "/a/b") -> Head:
    return Head(False, "clip.example:1", path, 60.0, [("authorization", "secret")])


def exchange(client: Http2, server: Server, cut: int = 1 << 16) -> list[tuple[int, Message | Failure]]:
    """Carry bytes to and fro until both ends are silent; return the calls that have ended."""
    ended = []
    silent = False
    while not silent:
        events, output, more, _ = client.step(None, 0.0, True)
        ended += events
        if output is not None:
            server.take(bytes(output))
        data = server.h2.data_to_send()
        silent = output is None and not data and not more
        for start in range(0, len(data), cut):
            events, output, _, _ = client.step(data[start : start + cut], 0.0, True)
            ended += events
            if output is not None:
                server.take(bytes(output))
    return ended


def prefixed(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


@given(
    messages=st.lists(st.binary(max_size=300) | st.integers(1, 300_000).map(bytes), min_size=1, max_size=6),
    cut=st.sampled_from([1, 7, 1000, 1 << 16]),
    order=st.randoms(use_true_random=False),
)
def test_messages_arrive_and_come_back(messages: list[bytes], cut: int, order: object) -> None:
    client, server = Http2(LARGEST), Server()
    exchange(client, server)
    assert client.state == "open"
    streams = [client.request(head(), message) for message in messages]
    assert exchange(client, server) == []
    assert sorted(server.ended) == streams
    for stream, message in zip(streams, messages, strict=True):
        assert server.bodies[stream] == prefixed(message)
        assert server.headers[stream] == {
            ":method": "POST",
            ":scheme": "http",
            ":authority": "clip.example:1",
            ":path": "/a/b",
            "te": "trailers",
            "content-type": "application/grpc",
            "user-agent": "casdk",
            "grpc-accept-encoding": "identity",
            "grpc-timeout": "60000m",
            "authorization": "secret",
        }
    order.shuffle(streams)  # type: ignore[attr-defined]
    for stream in streams:
        server.answer(stream, server.bodies[stream])
    replies = dict(exchange(client, server, cut))
    assert {stream: bytes(reply) for stream, reply in replies.items() if isinstance(reply, Message)} == {
        stream: server.bodies[stream][5:] for stream in streams
    }


def test_a_large_message_leaves_without_a_copy() -> None:
    client, server = Http2(LARGEST), Server()
    exchange(client, server)
    client.request(head(), bytes(1 << 20))
    _, output, _, _ = client.step(None, 0.0, True)
    assert isinstance(output, memoryview)
    assert len(output) > 1 << 19


def test_a_reply_is_scanned_where_it_lies() -> None:
    client, server = Http2(LARGEST), Server()
    exchange(client, server)
    stream = client.request(head(), b"")
    exchange(client, server)
    reply = DataRequestProto()
    reply.header.request_id = "7"
    server.answer(stream, prefixed(reply.SerializeToString()))
    [(_, message)] = exchange(client, server)
    assert isinstance(message, Message)
    assert len(message) == reply.ByteSize()
    assert scan("proto", message).request_id == "7"


def test_a_status_and_its_words() -> None:
    client, server = Http2(LARGEST), Server()
    exchange(client, server)
    stream = client.request(head(), b"")
    exchange(client, server)
    trailers = [("grpc-status", "14"), ("grpc-message", "gr%C3%BC%C3%9Fe %2"), ("grpc-retry-pushback-ms", "7")]
    server.h2.send_headers(stream, [*ANSWER, *trailers], end_stream=True)
    [(ended, failure)] = exchange(client, server)
    assert ended == stream
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.code, failure.words) == ("status", 14, "grüße %2")
    assert (failure.asked, failure.sent) == ("7", True)


def test_a_call_that_is_taken_back_is_reset() -> None:
    client, server = Http2(LARGEST), Server()
    exchange(client, server)
    stream = client.request(head(), b"")
    exchange(client, server)
    client.cancel(stream)
    assert exchange(client, server) == []
    assert server.reset == [stream]


def test_a_go_away() -> None:
    client, server = Http2(LARGEST), Server()
    exchange(client, server)
    begun = client.request(head(), b"")
    client.request(head(), b"")
    exchange(client, server)
    server.h2.close_connection(11, b"too_many_pings", last_stream_id=begun)
    [(_, failure)] = exchange(client, server)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.sent) == ("refused", False)
    assert client.state == "leaving"
    assert client.go_away == (11, "too_many_pings")
    with pytest.raises(ConnectionError):
        client.request(head(), b"")
    client.end_of_input()
    assert client.state == "closed"
    assert client.ended is not None
    assert client.ended.kind == "lost"


@pytest.mark.parametrize(("name", "value"), [("X", "y"), ("x", "secret\n"), ("x y", "z"), ("x", "\ud800")])
def test_a_header_that_cannot_be_sent(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"header|surrogates") as caught:
        Head(False, "clip.example:1", "/a/b", 60.0, [(name, value)])
    assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match=r"header|surrogates"):
        head().with_headers([(name, value)])
