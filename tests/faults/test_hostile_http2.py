"""HTTP/2 frames that only cost work end the connection with a typed error, at once and in bounded memory."""

import struct

import pytest
from casdk import Client, DeadlineError, Limits, ReplyError, Retry
from casdk.testing import FaultServer
from hpack import Encoder
from peers import keep, peer

ONCE = Retry(attempts=1)
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK, PADDED = 1, 4, 1, 8
HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 3, 4, 5
PIECE_BYTES = 1 << 16
MOST_GROWN_BYTES = 16 << 20
"""The most unread bytes of a reply that a connection may hold; these servers send hundreds of megabytes."""


def frame(kind, payload=b"", flags=0, stream=0):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def setting(name, value):
    return struct.pack(">HI", name, value)


def headers(*pairs, flags=END_HEADERS, stream=1):
    return frame(HEADERS, Encoder().encode(pairs), flags, stream)


ANSWER = headers((":status", "200"), ("content-type", "application/grpc"))
GREETING = frame(SETTINGS)


ENDED = b"\0\1\0\0\0\1"
"""Kind, flags and stream of the frame that ends the first request."""
BEGUN = b"\1\4\0\0\0\1"
"""The same of the frame that begins it."""


def floods(*then, first=b"", greeting=GREETING, until=ENDED):
    """Return what greets, reads a request as far as is said, answers, and then sends these frames without end."""
    flood = b"".join(then)

    def answering(connection):
        connection.sendall(greeting)
        received = b""
        while until not in received:
            received += connection.recv(1 << 16) or until
        connection.sendall(first)
        while flood:
            connection.sendall(flood * (1 + PIECE_BYTES // len(flood)))
        keep(connection)

    return answering


FLOODS = {
    "pings": floods(frame(PING, bytes(8))),
    "answers to pings that nobody sent": floods(frame(PING, bytes(8), ACK)),
    "settings": floods(frame(SETTINGS, setting(MAX_FRAME_SIZE, 1 << 14))),
    "empty settings": floods(frame(SETTINGS)),
    "settings that move each window": floods(
        frame(SETTINGS, setting(INITIAL_WINDOW_SIZE, 1)), frame(SETTINGS, setting(INITIAL_WINDOW_SIZE, 1 << 20))
    ),
    "tables that grow and shrink": floods(
        frame(SETTINGS, setting(HEADER_TABLE_SIZE, 1 << 30)), frame(SETTINGS, setting(HEADER_TABLE_SIZE, 0))
    ),
    "priorities": floods(frame(PRIORITY, bytes(5), stream=3)),
    "windows by one byte": floods(frame(WINDOW_UPDATE, struct.pack(">I", 1))),
    "windows of a stream by one byte": floods(frame(WINDOW_UPDATE, struct.pack(">I", 1), stream=1)),
    "resets of a stream that has ended": floods(
        frame(RST_STREAM, bytes(4), stream=1), first=frame(RST_STREAM, struct.pack(">I", 7), stream=1)
    ),
    "continuations without end": floods(
        frame(CONTINUATION, b"\0\1x\1y", stream=1), first=headers((":status", "200"), flags=0)
    ),
    "empty continuations": floods(frame(CONTINUATION, stream=1), first=headers((":status", "200"), flags=0)),
    "trailers that are continued without end": floods(
        frame(CONTINUATION, b"\0\1x\1y", stream=1), first=ANSWER + headers(("grpc-status", "0"), flags=END_STREAM)
    ),
    "trailers after trailers": floods(headers(("x", "y")), first=ANSWER),
    "interim answers": floods(headers((":status", "103"))),
    "empty data": floods(frame(DATA, stream=1), first=ANSWER),
    "data that is padding alone": floods(frame(DATA, b"\xff" + bytes(255), PADDED, 1), first=ANSWER),
    "frames of unknown kinds": floods(frame(200, bytes(100))),
    "GOAWAYs": floods(frame(GOAWAY, struct.pack(">II", (1 << 31) - 1, 0))),
    "promises": floods(frame(PUSH_PROMISE, struct.pack(">I", 2) + Encoder().encode([(":path", "/")]), END_HEADERS, 1)),
    "a window of more than 31 bits": floods(first=frame(WINDOW_UPDATE, struct.pack(">I", (1 << 31) - 1)) * 2),
    "a window that grows by nothing": floods(first=frame(WINDOW_UPDATE, bytes(4))),
    "a frame of 16 MB": floods(bytes(1000), first=ANSWER + b"\xff\xff\xff\0\0\0\0\0\1"),
    "a header bomb": floods(
        first=frame(HEADERS, Encoder().encode([(":status", "200"), ("x", "y" * 4000)]) + b"\xbe" * 16_000, 4, 1)
    ),
    "a message of 2 GB": floods(
        frame(DATA, bytes(1 << 14), stream=1), first=ANSWER + frame(DATA, b"\0\x7f\xff\xff\xff", stream=1)
    ),
    "a window for streams of more than 31 bits": floods(first=frame(SETTINGS, setting(INITIAL_WINDOW_SIZE, 1 << 31))),
    "a window of a byte at a time, and nothing is read": floods(
        frame(WINDOW_UPDATE, struct.pack(">I", 1), stream=1),
        greeting=frame(SETTINGS, setting(INITIAL_WINDOW_SIZE, 0)),
        until=BEGUN,
    ),
    "an answer of a byte at a time": floods(
        frame(DATA, b"x", stream=1), first=ANSWER + frame(DATA, b"\0\0\x0f\xff\xff", stream=1)
    ),
    "frames of less than may be": floods(first=frame(SETTINGS, setting(MAX_FRAME_SIZE, 1))),
}
SAID = r"breaks the rules of HTTP/2|larger than Limits\.max_reply_bytes|more than one reply"


def connect(place, **options):
    limits = Limits(max_reply_bytes=1 << 20)
    return Client(f"grpc://{place}", retry=ONCE, limits=limits, transport="own", **options)


@pytest.fixture(scope="module", autouse=True)
def warm():
    """What a first call imports and builds is no flood's doing."""
    with FaultServer(width=8) as server, Client(server.address("grpc"), transport="own") as client:
        client.encode(["a"])


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_the_call_at_once(name, grown):
    """Long before its deadline; and none of it is kept."""
    with peer(FLOODS[name]) as place, connect(place, timeout=40) as client:
        with pytest.raises(ReplyError, match=SAID):
            client.encode(["a"])
        assert grown() < MOST_GROWN_BYTES


STALLS = {
    "no window": floods(greeting=frame(SETTINGS, setting(INITIAL_WINDOW_SIZE, 0)), until=b""),
    "no streams": floods(greeting=frame(SETTINGS, setting(MAX_CONCURRENT_STREAMS, 0)), until=b""),
}


@pytest.mark.parametrize("name", STALLS)
def test_a_stall_ends_at_the_deadline(name, grown):
    with peer(STALLS[name]) as place, connect(place, timeout=1) as client:
        with pytest.raises(DeadlineError):
            client.encode(["a"])
        assert grown() < MOST_GROWN_BYTES
