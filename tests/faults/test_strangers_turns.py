"""A request that keeps the embedded server busy delays no other: it gives up the loop or its thread in turns."""

import contextlib
import io
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import grpc
import pytest
from casdk.server import serve
from casdk.wire.jina_pb2 import DataRequestProto
from PIL import Image

SINGLE = "/jina.JinaSingleDataRequestRPC/process_single_data"
SCHEMES = ("grpc", "http", "websocket")
WAIT = 60
HEAVY = 16


@pytest.fixture(scope="module")
def served():
    """A server with two threads, and an index in which a search takes some milliseconds."""
    with serve(schemes=SCHEMES, threads=2) as running:
        for _ in range(2):
            assert ask(running, "/index", *({"text": f"text {at}"} for at in range(2000))).header.status.code == 0
        yield running


def place(served, scheme):
    host, port = served.address(scheme).split("://")[1].split(":")
    return host, int(port)


def ask(served, endpoint, *documents, **parameters):
    """Send a request over a connection of its own, and return the reply."""
    request = DataRequestProto()
    request.header.exec_endpoint = endpoint
    for document in documents:
        request.data.docs.docs.add(**document)
    request.parameters.update(parameters)
    own = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(served.address("grpc").split("://")[1], own) as channel:
        call = channel.unary_unary(SINGLE, DataRequestProto.SerializeToString, DataRequestProto.FromString)
        return call(request, timeout=WAIT)


def look(served, scheme):
    """Return the status of a health check."""
    with contextlib.closing(HTTPConnection(*place(served, scheme), timeout=WAIT)) as connection:
        connection.request("GET", "/")
        return connection.getresponse().status


HEAD = b"POST /post HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def frame(kind, payload=b"", *, last=True):
    return struct.pack("BB4x", kind | (128 if last else 0), 128 | len(payload)) + payload


LAST = frame(1, b'{"data":[{"text":"the last"}]}')
FLOODS = {
    "http, chunks": ("http", HEAD, b"1\r\n \r\n", b'15\r\n{"data":[{"text":""}]\r\n1\r\n}\r\n0\r\n\r\n'),
    "websocket, pings": ("websocket", HANDSHAKE, frame(9), LAST),
    "websocket, pongs": ("websocket", HANDSHAKE, frame(10), LAST),
}
"""The scheme, and what is sent there: the beginning, the piece that comes thousands of times, the end."""
PIECES = 40_000
TRIES = 5


@pytest.mark.parametrize("name", FLOODS)
def test_what_comes_in_tiny_pieces_is_read_in_turns(served, name):
    """All schemes answer while one connection still sends thousands of tiny pieces, which take seconds to read.

    On a busy machine the answers may be seen only after everything has been read, which shows nothing, so the test
    tries again. If one connection kept the loop for itself, no try would succeed.
    """
    assert any(_answers_before_it_has_read(served, *FLOODS[name]) for _ in range(TRIES))


def _answers_before_it_has_read(served, scheme, beginning, piece, end):
    """Send a flood; return whether all schemes answered while the server was still reading it."""
    with (
        socket.create_connection(place(served, scheme), timeout=WAIT) as opened,
        opened.makefile("rb") as reading,
        ThreadPoolExecutor(1 + len(SCHEMES)) as threads,
    ):
        read = threads.submit(reading.read, 1) if scheme == "http" else threads.submit(_last_of, reading)
        opened.sendall(beginning + piece * PIECES + end)
        looks = [threads.submit(look, served, "http"), threads.submit(look, served, "websocket")]
        asked = threads.submit(ask, served, "/encode", {"text": "a"})
        answered = [each.result(WAIT) for each in looks]
        status = asked.result(WAIT).header.status.code
        unread = not read.done()
        read.result(WAIT)
    assert (answered, status) == ([200, 200], 0)
    return unread


def _last_of(reading):
    """Read until the reply to the last message."""
    while b"the last" not in reading.read1():
        pass


def picture(side):
    out = io.BytesIO()
    Image.new("RGB", (side, side)).save(out, "PNG")
    return out.getvalue()


LONG = {
    "images": ("/encode", [{"blob": picture(900)}] * 6, {"blob": picture(16)}),
    "queries": ("/search", [{"text": f"query {at}"} for at in range(6)], {"text": "a query"}),
}


@pytest.mark.parametrize("name", LONG)
def test_a_small_request_does_not_wait_for_large_ones(served, name):
    """All that had come before it were answered first."""
    endpoint, large, small = LONG[name]
    with ThreadPoolExecutor(HEAVY) as threads:
        waiting = [threads.submit(ask, served, endpoint, *large) for _ in range(HEAVY)]
        ask(served, endpoint, small)  # by when the others have begun to come
        reply = ask(served, endpoint, small)
        unanswered = sum(not each.done() for each in waiting)
        assert [each.result(WAIT).header.status.code for each in waiting] == [0] * HEAVY
    assert reply.header.status.code == 0
    assert unanswered >= HEAVY // 2


@pytest.mark.parametrize("limit", [float("inf"), float("nan"), -float("inf"), 1e308])
def test_a_limit_of_no_number_is_the_error_of_its_request(served, limit):
    """Of no documents at all, too: infinitely many times none is not a number."""
    assert ask(served, "/search", limit=limit).header.status.code == 1
    assert ask(served, "/search", {"text": "a"}, limit=limit).header.status.code == 1
    assert "Traceback" not in served.log()


def http2_frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def http2_header(name, value):
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value


@pytest.mark.soak
def test_calls_that_one_connection_opens_by_the_thousand_cancel_no_call_of_another(served):
    """gRPC cancels any of those that wait to be taken when they are more than a thousand."""
    fields = {b":method": b"POST", b":scheme": b"http", b":path": SINGLE.encode(), b":authority": b"localhost"}
    head = b"".join(http2_header(*each) for each in (fields | {b"content-type": b"application/grpc"}).items())
    begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + http2_frame(4, 0, 0)
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            opened = stack.enter_context(socket.create_connection(place(served, "grpc"), timeout=WAIT))
            with contextlib.suppress(ConnectionError):  # it is not fields how many it may open until it reads
                opened.sendall(begin + b"".join(http2_frame(1, 4, 1 + 2 * at, head) for at in range(20_000)))
        for _ in range(5):
            assert ask(served, "/encode", {"text": "a"}).header.status.code == 0
    assert "Traceback" not in served.log()
