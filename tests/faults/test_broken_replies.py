"""A reply that breaks the rules of its protocol is a precise error at once, whatever else the server does.

The servers write raw bytes and keep their connections open: who waits for their end waits for the deadline.
"""

from __future__ import annotations

import threading

import pytest
from casdk import (
    AuthError,
    CasdkError,
    Client,
    DeadlineError,
    Limits,
    OverloadedError,
    ProtocolMismatchError,
    ReplyError,
    Retry,
    ServerError,
    TransportError,
)
from h2.errors import ErrorCodes
from peers import closing, frame, frames, keep, message, peer, read_head, read_post, say, streams, trailers_only

ONCE = Retry(attempts=1)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
HTML = b"<html><body><h1>Hello</h1></body></html>"


def refused(reply: bytes, status: bytes = b"500 Error", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n%b\r\n%b" % (status, len(reply), headers, reply)


HTTP = {
    "a chunk of less than no bytes": (CHUNKED + b"-5\r\n", ReplyError, "illegal chunk header"),
    "a chunk of other size than said": (CHUNKED + b"3\r\nhello\r\n", ReplyError, "chunk"),
    "chunks after a head that is none": (b"HTTP/1.1 \xff\r\n\r\n", ProtocolMismatchError, "does not speak HTTP"),
    "a coding nobody asked for": (HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n", ReplyError, "Transfer-Encoding"),
    "two lengths": (HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\n", ReplyError, "Content-Length"),
    "a length with a sign": (HEAD + b"content-length: +5\r\n\r\n", ReplyError, "Content-Length"),
    "a length of 5000 digits": (HEAD + b"content-length: " + b"9" * 5000 + b"\r\n\r\n", ReplyError, "Content-Length"),
    "a header without a name": (HEAD + b": x\r\n\r\n", ReplyError, "illegal header line"),
    "another protocol from here on": (
        b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        ReplyError,
        "rules of HTTP/1.1",
    ),
    "no whole request in time": (refused(b"", b"408 Request Timeout"), TransportError, "HTTP 408"),
    "an error in another coding": (
        refused(b"\x1f\x8b" * 50, headers=b"content-encoding: gzip\r\n"),
        ServerError,
        "500$",
    ),
    "an error of many lists": (refused(b'{"detail": [' + b"[]," * 2_000_000 + b"[]]}"), ServerError, "HTTP 500"),
    "an error that is no UTF-8": (refused(b'{"detail": "\xff"}'), ServerError, "HTTP 500"),
    "a page where a wait belongs": (
        refused(b"", b"503 Busy", b"retry-after: " + HTML + b"\r\n"),
        TransportError,
        "a web page",
    ),
}
FLOODS = {
    "chunk words without end": (say(CHUNKED + b"1;", b"a" * 60_000), ReplyError, "beside the chunks"),
    "words of each chunk": (say(CHUNKED, b"1;xxxxxxxxxxxxx\r\ny\r\n" * 3000), ReplyError, "beside the chunks"),
    "digits of a chunk without end": (say(CHUNKED, b"0" * 60_000), ReplyError, "beside the chunks"),
    "a chunk of 63 bits": (say(CHUNKED + b"7" + b"f" * 15 + b"\r\n", bytes(60_000)), ReplyError, "larger than"),
    "chunks without end": (say(CHUNKED, b"ea60\r\n%b\r\n" % bytes(60_000)), ReplyError, "larger than"),
    "trailers without end": (say(CHUNKED + b"0\r\n", b"x: y\r\n" * 9000), ReplyError, "behind the chunks"),
    "a trailer without end": (say(CHUNKED + b"0\r\nx: ", b"y" * 60_000), ReplyError, "beside the chunks"),
    "headers without end": (say(HEAD, b"x: y\r\n" * 9000), ReplyError, "a head of more than 100 KiB"),
    "a header without end": (say(HEAD + b"x: ", b"y" * 60_000), ReplyError, "a head of more than 100 KiB"),
    "more headers than any server has": (say(HEAD + b"x: y\r\n" * 200 + b"\r\n"), ReplyError, "128 header lines"),
    "a status line without end": (say(b"HTTP/1.1 200 ", b"x" * 60_000), ProtocolMismatchError, "status line"),
    "a length of 63 bits": (say(HEAD + b"content-length: %d\r\n\r\n" % (2**63 - 1)), ReplyError, "larger than"),
    "a body without end": (say(HEAD + b"\r\n", bytes(60_000)), ReplyError, "larger than"),
}
"""Of HTTP/1.1: what has no end, or says that it has none."""
WEBSOCKET = {
    "a masked frame": (frames(frame(0x82, b"x", masked=True)), ReplyError, "masking"),
    "a reserved bit": (frames(frame(0xA2, b"x")), ReplyError, "reserved bits"),
    "an opcode of nothing": (frames(frame(0x83, b"x")), ReplyError, "opcode"),
    "a ping too long": (frames(frame(0x89, bytes(126))), ReplyError, "control frame too long"),
    "a ping in fragments": (frames(frame(0x09, b"x")), ReplyError, "fragmented control frame"),
    "an end without a beginning": (frames(frame(0x80, b"x")), ReplyError, "continuation"),
    "two beginnings": (frames(frame(0x02, b"x") + frame(0x82, b"y")), ReplyError, "before the end"),
    "a text": (frames(frame(0x81, b"\xff")), ReplyError, "text where a binary message belongs"),
    "a text's beginning": (frames(frame(0x01, b"x")), ReplyError, "text where a binary message belongs"),
    "a masked frame without end": (frames(b"\x82\xff" + bytes(7) + b"\xff", bytes(60_000)), ReplyError, "masking"),
    "a message too large": (frames(frame(0x82, bytes(2 << 20))), ReplyError, "larger than"),
    "fragments too large": (frames(frame(0x02), frame(0x00, bytes(60_000))), ReplyError, "larger than"),
    "a length of 63 bits": (frames(b"\x82\x7f\x7f" + b"\xff" * 7), ReplyError, "larger than"),
    "empty fragments without end": (frames(frame(0x02), frame(0x00) * 9000), ReplyError, "more pieces"),
    "pings without end": (frames(b"", frame(0x89) * 9000), ReplyError, "without end"),
    "pongs without end": (frames(b"", frame(0x8A, b"x" * 125) * 900), ReplyError, "without end"),
    "pings right behind the handshake": (
        frames(b"", frame(0x89) * 9000, with_handshake=True),
        ReplyError,
        "without end",
    ),
    "garbage right behind the handshake": (
        frames(b"\xff" * 99, with_handshake=True),
        ReplyError,
        "reserved bits|opcode",
    ),
    "closed with 1000": (frames(closing(1000)), TransportError, "was closed|1000"),
    "closed with 1000 right away": (frames(closing(1000), with_handshake=True), TransportError, "was closed|1000"),
    "closed with 1008": (frames(closing(1008, b"no")), AuthError, "1008 no"),
    "closed with 1011 and a page": (frames(closing(1011, HTML)), TransportError, "1011 a web page, 'Hello'"),
    "closed with 4999": (frames(closing(4999)), TransportError, "4999"),
    "closed with 1005": (frames(closing(1005)), ReplyError, "invalid status code"),
    "closed with 5000": (frames(closing(5000)), ReplyError, "invalid status code"),
    "closed with what is no UTF-8": (frames(closing(1000, b"\xff")), ReplyError, "no UTF-8"),
    "closed, and pings without end": (frames(closing(1000), frame(0x89) * 9000), TransportError, "was closed|1000"),
}


def reset(code: ErrorCodes):
    return streams(lambda h2, stream: h2.reset_stream(stream, code))


GRPC = {
    "success without a message": (trailers_only("0"), ReplyError, "no whole message"),
    "no message": (message(b""), ReplyError, "no whole message"),
    "half a prefix": (message(b"\0\0"), ReplyError, "no whole message"),
    "half a message": (message(b"\0\0\0\0\7abc"), ReplyError, "no whole message"),
    "a flag nobody knows": (message(b"\2\0\0\0\1a"), ReplyError, "no whole message"),
    "a deadline of its own": (trailers_only("4", "mine"), TransportError, r"mine \(DEADLINE_EXCEEDED\)"),
    "a status that is no number": (trailers_only("none"), ReplyError, "no gRPC reply"),
    "a stream that was reset": (reset(ErrorCodes.INTERNAL_ERROR), TransportError, "with INTERNAL_ERROR"),
    "a stream that was cancelled": (reset(ErrorCodes.CANCEL), TransportError, "with CANCEL"),
    "calm asked for": (reset(ErrorCodes.ENHANCE_YOUR_CALM), OverloadedError, "with ENHANCE_YOUR_CALM"),
}
GRPCIO = {
    "a status that is no number": (trailers_only("none"), TransportError, "the connection broke"),
    "a stream that was reset": (reset(ErrorCodes.INTERNAL_ERROR), TransportError, "the connection broke"),
    "a stream that was cancelled": (reset(ErrorCodes.CANCEL), TransportError, "the connection broke"),
    "calm asked for": (reset(ErrorCodes.ENHANCE_YOUR_CALM), OverloadedError, "the connection broke"),
}
"""Of grpcio's, which says less of some."""
CASES = [
    *(pytest.param("http", say(raw), kind, words, id=f"http-{name}") for name, (raw, kind, words) in HTTP.items()),
    *(pytest.param("http", *case, id=f"http-{name}") for name, case in FLOODS.items()),
    *(pytest.param("websocket", *case, id=f"websocket-{name}") for name, case in WEBSOCKET.items()),
    *(pytest.param("grpc", *case, id=f"grpc-{name}") for name, case in GRPC.items()),
    *(pytest.param("grpcio", *case, id=f"grpcio-{name}") for name, case in (GRPC | GRPCIO).items()),
]


MOST_GROWN_BYTES = 48 << 20
"""The largest reply that is read here has 16 MiB, and the server is in this process, too."""


@pytest.mark.parametrize(("scheme", "answer", "kind", "words"), CASES)
def test_an_exact_error_at_once(scheme, answer, kind, words, grown):
    """Long before the deadline, and in memory that is bounded by the largest reply."""
    limits = Limits(max_reply_bytes=16 << 20 if scheme == "http" else 1 << 20)
    protocols = "libraries" if scheme == "grpcio" else "own"
    with (
        peer(answer) as place,
        Client(
            f"{scheme.removesuffix('io')}://{place}", retry=ONCE, limits=limits, timeout=20, transport=protocols
        ) as client,
        pytest.raises(CasdkError, match=words) as caught,
    ):
        client.encode(["a"])
    assert type(caught.value) is kind
    assert "<" not in str(caught.value)
    assert grown() < MOST_GROWN_BYTES


STALLS = {
    "http, a body that never comes": ("http", say(HEAD + b"content-length: 1000\r\n\r\n{")),
    "http, a chunk that never comes": ("http", say(CHUNKED + b"ffff\r\n{")),
    "http, a head that never comes": ("http", say(HEAD)),
    "http, interim replies without end": ("http", say(b"", b"HTTP/1.1 100 \r\n\r\n" * 4000)),
    "websocket, a frame that never comes": ("websocket", frames(b"\x82\x7e\xff\xff{")),
    "websocket, a fragment that never comes": ("websocket", frames(frame(0x02, b"x"))),
    "websocket, replies to nobody without end": ("websocket", frames(b"", frame(0x82, b"\x0a\x03\x0a\x01x") * 9000)),
}
"""What breaks no rule."""


@pytest.mark.parametrize("case", STALLS)
def test_what_breaks_no_rule_ends_at_the_deadline(case, grown):
    scheme, answer = STALLS[case]
    with peer(answer) as place, Client(f"{scheme}://{place}", retry=ONCE, timeout=1, transport="own") as client:
        with pytest.raises(DeadlineError):
            client.encode(["a"])
        assert grown() < MOST_GROWN_BYTES


def handshake(head: bytes, then: bytes = b""):
    return say(head, then, read=read_head)


HANDSHAKES = {
    "a header without end": handshake(b"HTTP/1.1 101 x\r\nx: ", b"a" * 60_000),
    "headers without end": handshake(b"HTTP/1.1 101 x\r\n", b"x: a\r\n" * 9000),
    "a status without end": handshake(b"HTTP/1.1 101 ", b"a" * 60_000),
    "empty lines without end": handshake(b"", b"\r\n" * 9000),
    "a page without end": handshake(b"HTTP/1.1 400 x\r\n\r\n", b"a" * 60_000),
    "a chunk's words without end": handshake(b"HTTP/1.1 400 x\r\ntransfer-encoding: chunked\r\n\r\n1;", b"a" * 60_000),
}


@pytest.mark.parametrize("case", HANDSHAKES)
def test_a_handshake_that_makes_no_sense(case):
    """It is said what, and not that there was no connection in time."""
    with (
        peer(HANDSHAKES[case]) as place,
        Client(f"websocket://{place}", retry=ONCE, timeout=20) as client,
        pytest.raises(ProtocolMismatchError, match=r"does not speak websocket|speaks HTTP but no websocket"),
    ):
        client.encode(["a"])


def test_a_websocket_that_was_closed_is_not_used_again():
    """The server has said so, and keeps the connection open."""
    connected = []

    def answering(connection):
        connected.append(connection)
        frames(closing(1001))(connection)

    with (
        peer(answering) as place,
        Client(f"websocket://{place}", retry=Retry(attempts=3, backoff=0)) as client,
        pytest.raises(TransportError, match=r"1001|closed"),
    ):
        client.encode(["a"], timeout=20)
    assert len(connected) == 3


# what others notice of it

OVERRUN, TRIES, DEADLINE = 0.1, 3, 0.2
BUSY = {
    "http, chunks of one byte": ("http", say(CHUNKED, b"1\r\n \r\n" * 40_000)),
    "http, interim replies": ("http", say(b"", b"HTTP/1.1 100 \r\n\r\n" * 20_000)),
    "http, an error in chunks of one byte": (
        "http",
        say(b"HTTP/1.1 500 x\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 40_000),
    ),
    "websocket, replies to nobody": ("websocket", frames(b"", frame(0x82, b"\x0a\x03\x0a\x01x") * 40_000)),
    "websocket, a refusal in chunks of one byte": (
        "websocket",
        handshake(b"HTTP/1.1 400 x\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 40_000),
    ),
}


@pytest.mark.alone
@pytest.mark.parametrize("case", BUSY)
def test_small_pieces_without_end_hold_up_nobody(case, stopwatch, figure):
    """Another client of the process keeps its deadlines meanwhile. A shared machine may pause us, but not each time."""
    scheme, answer = BUSY[case]
    with peer(answer) as place, peer(keep) as silent:
        busy = Client(f"{scheme}://{place}", retry=ONCE)
        calm = Client(f"http://{silent}", retry=ONCE)

        def flooded():
            with pytest.raises(CasdkError):
                busy.encode(["a"], timeout=10)

        with busy, calm:
            thread = threading.Thread(target=flooded)
            thread.start()
            worst = []
            for _ in range(TRIES):
                with stopwatch() as watch, pytest.raises(DeadlineError):
                    calm.encode(["b"], timeout=DEADLINE)
                worst.append(watch.seconds - DEADLINE)
            busy.close()
            thread.join()
    assert min(worst) < OVERRUN
    figure("deadline beside a flood of small pieces: overrun, ms", round(min(worst) * 1000, 1))


# what is repeated of a request

TOKEN = "Bearer tok-0123456789"


def echo_http(connection):
    head = read_post(connection)
    connection.sendall(refused(head))
    keep(connection)


def echo_frames(connection):
    head = read_head(connection)
    connection.sendall(b"HTTP/1.1 101 x\r\nUpgrade: %b\r\n\r\n" % head.replace(b"\r\n", b" "))
    keep(connection)


ECHOES = {
    "http": echo_http,
    "websocket": echo_frames,
    "grpc": trailers_only("13", f"cannot read authorization: {TOKEN}"),
}


@pytest.mark.parametrize("scheme", ECHOES)
def test_a_token_that_is_sent_back_is_not_shown(scheme):
    with (
        peer(ECHOES[scheme]) as place,
        Client(f"{scheme}://{place}", retry=ONCE, timeout=20, credential=TOKEN) as client,
        pytest.raises(CasdkError) as caught,
    ):
        client.encode(["a"])
    shown = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert not any("tok-0123456789" in f"{error} {error!r}" for error in shown)


# what a reply becomes in memory, and in a message

EMPTY = b'"",' * 2_000_000 + b'""'
FAILED = b'{"header":{"status":{"code":1,"description":"","exception":{"name":"%b","%b":[%b]}}}}'


@pytest.mark.parametrize("what", [b"stacks", b"args"])
def test_lines_of_nothing_are_counted(what):
    """Two bytes of each would become a hundred."""
    body = FAILED % (b"", what, EMPTY)
    answer = say(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
    with (
        peer(answer) as place,
        Client(f"http://{place}", retry=ONCE, timeout=20) as client,
        pytest.raises(ReplyError, match="more that is empty"),
    ):
        client.encode(["a"])


def test_a_name_as_long_as_a_page():
    body = FAILED % (HTML * 1000, b"args", b"")
    answer = say(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
    with (
        peer(answer) as place,
        Client(f"http://{place}", retry=ONCE, timeout=20) as client,
        pytest.raises(CasdkError, match="a web page, 'Hello'") as caught,
    ):
        client.encode(["a"])
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("scheme", ["http", "websocket"])
@pytest.mark.parametrize("host", ["0177.0.0.1", "999.1.1.1", "256.256.256.256"])
def test_a_host_of_numbers_that_is_no_address(scheme, host):
    """Whether it stands for anything is found out where it is looked up."""
    with Client(f"{scheme}://{host}:9", retry=ONCE, timeout=20) as client, pytest.raises(TransportError):
        client.encode(["a"])
