"""A websocket, at whose other end is the library websockets, which shares no line with it."""

from __future__ import annotations

import os
import threading
from itertools import pairwise

import pytest
from casdk import ReplyError
from casdk._rust import Message, Websocket, request_id_of, scan
from casdk.wire.jina_pb2 import DataRequestProto
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import NegotiationError
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

LARGEST = 70_000
SIZES = st.sampled_from([0, 1, 7, 8, 9, 125, 126, 127, 65_535, 65_536, LARGEST])
CUTS = st.lists(st.integers(0, 400_000), max_size=12)
FRAMES = st.one_of(
    SIZES.map(lambda size: [Frame(Opcode.BINARY, bytes(size))]),
    st.sampled_from([[Frame(Opcode.PING, b"x" * 125)], [Frame(Opcode.PONG, b"")]]),
    st.tuples(SIZES, SIZES).map(
        lambda sizes: [
            Frame(Opcode.BINARY, b"f" * (sizes[0] // 2), fin=False),
            Frame(Opcode.PING, b"between"),
            Frame(Opcode.CONT, b"g" * (sizes[1] // 2)),
        ]
    ),
)


def client() -> Websocket:
    return Websocket("clip:1", "/dry_run", "bytes", [("authorization", "secret")], LARGEST)


def output_of(websocket: Websocket) -> bytes:
    """Return all that is to be sent."""
    pieces = []
    while (output := websocket.output()) is not None:
        pieces.append(bytes(output))
    assert not websocket.has_output
    return b"".join(pieces)


def receive(websocket: Websocket, data: bytes) -> list[bytes]:
    messages, unread, _ = websocket.receive(data, 0.0)
    while unread:
        more, unread, _ = websocket.receive(None, 0.0)
        messages += more
    return [bytes(message) for message in messages]


def opened(subprotocols: list[Subprotocol] | None = None) -> tuple[Websocket, ServerProtocol]:
    """Return both ends of a websocket."""
    websocket, server = client(), ServerProtocol(subprotocols=subprotocols, max_size=None)
    server.receive_data(output_of(websocket))
    [request] = server.events_received()
    assert isinstance(request, Request)
    assert request.path == "/dry_run"
    assert request.headers["Host"] == "clip:1"
    assert request.headers["Authorization"] == "secret"
    assert request.headers["Sec-WebSocket-Protocol"] == "bytes"
    server.send_response(server.accept(request))
    assert server.state is OPEN
    assert websocket.state == "opening"
    assert receive(websocket, b"".join(server.data_to_send())) == []
    assert websocket.state == "open"
    return websocket, server


def sent_by(server: ServerProtocol) -> list[Frame]:
    return [frame for frame in server.events_received() if isinstance(frame, Frame)]


@given(groups=st.lists(FRAMES, min_size=1, max_size=6), cuts=CUTS)
def test_any_cut_of_any_frames(groups: list[list[Frame]], cuts: list[int]) -> None:
    frames = [frame for group in groups for frame in group]
    stream = b"".join(frame.serialize(mask=False) for frame in frames)
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    expected: list[bytes] = []
    for frame in frames:
        if frame.opcode is Opcode.BINARY:
            expected.append(bytes(frame.data))
        elif frame.opcode is Opcode.CONT:
            expected[-1] += frame.data
    websocket, _ = opened()
    found = []
    for start, end in pairwise(edges):
        found += receive(websocket, stream[start:end])
    assert found == expected
    assert websocket.ended is None


@pytest.mark.parametrize("cut", [1, 2, 3, 9, 10, 11])
def test_byte_by_byte_around_the_head(cut: int) -> None:
    stream = Frame(Opcode.BINARY, b"y" * 65_536).serialize(mask=False) * 2
    websocket, _ = opened()
    found = []
    for start in range(cut):
        found += receive(websocket, stream[start : start + 1])
    assert found + receive(websocket, stream[cut:]) == [b"y" * 65_536] * 2


@given(sizes=st.lists(st.sampled_from([0, 1, 125, 126, 65_536, 3 << 20]), max_size=4))
def test_what_is_sent_arrives_in_its_order(sizes: list[int]) -> None:
    websocket, server = opened()
    for size in sizes:
        websocket.send(bytes(at % 251 for at in range(100)) * (size // 100) + b"z" * (size % 100))
    websocket.ping()
    websocket.close()
    server.receive_data(output_of(websocket))
    first, *frames = sent_by(server)
    assert first.opcode is Opcode.PING
    *messages, last = frames
    assert last.opcode is Opcode.CLOSE
    assert last.data == b"\x03\xe8"
    found: list[int] = []
    for frame in messages:
        if frame.opcode is Opcode.BINARY:
            found.append(0)
        found[-1] += len(frame.data)
    assert found == sizes
    assert receive(websocket, b"".join(server.data_to_send())) == []
    assert websocket.state == "closed"
    ended = websocket.ended
    assert ended is not None
    assert (ended.kind, ended.code, ended.words, ended.asked) == ("closed", 1000, "", None)


def test_a_ping_is_answered() -> None:
    websocket, server = opened()
    server.send_ping(b"first")
    server.send_ping(b"last")
    receive(websocket, b"".join(server.data_to_send()))
    assert websocket.has_output
    server.receive_data(output_of(websocket))
    # The answer to the last one is one to those before it, too.
    assert [(frame.opcode, frame.data) for frame in sent_by(server)] == [(Opcode.PONG, b"last")]


@pytest.mark.parametrize(
    ("frame", "kind", "code"),
    [
        (Frame(Opcode.BINARY, bytes(LARGEST + 1)).serialize(mask=False), "too_large", 1009),
        (Frame(Opcode.BINARY, b"masked").serialize(mask=True), "rules", 1002),
        (b"\xc2\x01x", "rules", 1002),  # a reserved bit
        (b"\x80\x01x", "rules", 1002),  # goes on with what never began
        (b"\x88\x7e\x00\x7e" + bytes(126), "rules", 1002),  # closes at too great length
    ],
    ids=["too large", "masked", "reserved", "continuation", "long close"],
)
def test_what_is_refused_is_said(frame: bytes, kind: str, code: int) -> None:
    websocket, server = opened()
    assert receive(websocket, frame) == []
    ended = websocket.ended
    assert ended is not None
    assert ended.kind == kind
    server.receive_data(output_of(websocket))
    assert server.close_rcvd is not None
    assert server.close_rcvd.code == code
    with pytest.raises(ConnectionError):
        websocket.send(b"")


def test_a_server_says_why_it_goes() -> None:
    websocket, server = opened([Subprotocol("bytes")])
    server.send_close(1011, "no executor")
    receive(websocket, b"".join(server.data_to_send()))
    ended = websocket.ended
    assert ended is not None
    assert (ended.kind, ended.code, ended.words) == ("closed", 1011, "no executor")
    server.receive_data(output_of(websocket))
    assert server.close_rcvd is not None
    assert server.close_rcvd.code == 1011


def test_a_subprotocol_nobody_asked_for() -> None:
    websocket, server = client(), ServerProtocol(subprotocols=[Subprotocol("json")])
    server.receive_data(output_of(websocket))
    [request] = server.events_received()
    assert isinstance(request, Request)
    with pytest.raises(NegotiationError):
        server.select_subprotocol([Subprotocol("bytes")])
    answer = server.accept(request)
    assert answer.status_code == 400
    receive(websocket, b"HTTP/1.1 400 Bad Request\r\nretry-after: 3\r\n\r\n")
    ended = websocket.ended
    assert ended is not None
    assert (ended.kind, ended.code, ended.asked) == ("refused", 400, "3")


def test_a_message_is_read_where_it_lies() -> None:
    reply = DataRequestProto()
    reply.header.request_id = "a" * 32
    packed = reply.SerializeToString()
    websocket, _ = opened()
    [message], unread, changed = websocket.receive(Frame(Opcode.BINARY, packed).serialize(mask=False), 0.0)
    assert not unread
    assert not changed
    assert isinstance(message, Message)
    assert len(message) == len(packed)
    assert request_id_of(message) == request_id_of(packed) == scan("proto", message).request_id == "a" * 32
    [message], _, _ = websocket.receive(Frame(Opcode.BINARY, b"\xff").serialize(mask=False), 0.0)
    with pytest.raises(ReplyError):
        request_id_of(message)


def test_a_message_that_was_not_begun_is_taken_back() -> None:
    websocket, server = opened()
    websocket.cancel(websocket.send(b"first"))
    websocket.send(b"second")
    server.receive_data(output_of(websocket))
    assert [frame.data for frame in sent_by(server)] == [b"second"]


def test_a_header_that_cannot_be_sent_is_not_shown() -> None:
    with pytest.raises(ValueError, match="cannot be a field") as caught:
        Websocket("clip:1", "/", "bytes", [("a", "s3cret\r\nb: c")], LARGEST)
    assert "s3cret" not in str(caught.value)


def test_an_end_without_a_word() -> None:
    websocket, _ = opened()
    websocket.end_of_input()
    ended = websocket.ended
    assert ended is not None
    assert (websocket.state, ended.kind) == ("closed", "lost")
    assert receive(websocket, b"\x82\x00") == []


# masks


def masks_of(websocket: Websocket, count: int) -> list[bytes]:
    """Return the masks of so many frames."""
    masks = []
    for _ in range(count):
        websocket.send(b"")
        masks.append(output_of(websocket)[2:6])
    return masks


def test_no_two_masks_follow_from_each_other() -> None:
    masks: list[bytes] = []
    threads = [threading.Thread(target=lambda: masks.extend(masks_of(opened()[0], 1000))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Of 2,000 in 2^32, two are the same once in 2,000 runs, eleven never.
    assert len(set(masks)) > 1990
    # Each bit is as often set as not, give or take nine standard deviations; so is each that differs from the last.
    numbers = [int.from_bytes(mask, "big") for mask in masks]
    changes = [one ^ other for one, other in pairwise(numbers)]
    for drawn in (numbers, changes):
        for bit in range(32):
            assert sum(number >> bit & 1 for number in drawn) == pytest.approx(1000, abs=200)


def test_a_forked_child_draws_other_masks() -> None:
    websocket, _ = opened()
    masks_of(websocket, 1)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"".join(masks_of(websocket, 8)))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 32) != b"".join(masks_of(websocket, 8))
    os.close(reading)
    os.close(writing)
