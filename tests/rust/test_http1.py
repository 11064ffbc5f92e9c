"""HTTP/1.1 of the core and h11, an independent one: what one writes, the other reads."""

from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from casdk import CasdkError, ProtocolMismatchError, ReplyError, TransportError
from casdk._rust import Http1Replies, http1_head
from hypothesis import given
from hypothesis import strategies as st

MOST = 1 << 20
NAMES = st.text("abcxyz-_!#09", min_size=1, max_size=8).map(lambda name: f"x{name}")
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=5)
CUTS = st.lists(st.integers(0, 1 << 20), max_size=8)


def read(replies: Http1Replies, stream: bytes, cuts: list[int]) -> tuple[bytes, bool]:
    """Return the body of a reply that comes in pieces, and whether it was whole before the connection ended."""
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    found = None
    for start, end in pairwise(edges):
        body = replies.receive(stream[start:end])
        found = found if body is None else body
    return bytes(replies.end() if found is None else found), found is not None


@given(
    status=st.integers(200, 599),
    fields=FIELDS,
    chunks=st.lists(st.binary(max_size=300), max_size=5),
    framing=st.sampled_from(["content-length", "transfer-encoding", "connection"]),
    interim=st.lists(st.sampled_from([100, 102, 103]), max_size=3),
    trailers=FIELDS,
    cuts=CUTS,
)
def test_what_h11_writes_is_read(status, fields, chunks, framing, interim, trailers, cuts):
    body = b"".join(chunks)
    server = h11.Connection(h11.SERVER)
    # h11 ends a body with the connection for an old client only.
    server.receive_data(b"GET / HTTP/1.%d\r\nhost: x\r\n\r\n" % (framing != "connection"))
    assert isinstance(server.next_event(), h11.Request)
    server.next_event()
    stream = b""
    for code in interim:
        stream += server.send(h11.InformationalResponse(status_code=code, headers=[]))
    framed = {
        "content-length": ("content-length", str(len(body))),
        "transfer-encoding": ("Transfer-Encoding", "chunked"),
        "connection": ("Connection", "close"),
    }[framing]
    stream += server.send(h11.Response(status_code=status, headers=[*fields, framed], reason=b"x"))
    bodiless = status in (204, 304)
    for chunk in () if bodiless else chunks:
        stream += server.send(h11.Data(chunk))
    sent = trailers if framing == "transfer-encoding" and not bodiless else []
    stream += server.send(h11.EndOfMessage(headers=sent)) or b""
    replies = Http1Replies()
    replies.ask(MOST)
    found, ended = read(replies, stream, cuts)
    assert found == (b"" if bodiless else body)
    assert replies.status == status
    kept = framing != "connection"
    assert replies.keep_alive is kept
    assert ended is (kept or bodiless)


@given(stream=st.binary(max_size=100), begun=st.sampled_from([b"", b"a: b\r\n", b"transfer-encoding: chunked\r\n\r\n"]))
def test_what_both_read_is_the_same(stream, begun):
    stream = b"HTTP/1.1 200 OK\r\n" + begun + stream
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    replies = Http1Replies()
    replies.ask(MOST)
    try:
        body, ended = read(replies, stream, [])
    except (ReplyError, ProtocolMismatchError, TransportError):
        return  # h11 takes more: lines that are folded, lengths beside chunks, spaces where none belong
    client.receive_data(stream)
    if not ended:
        client.receive_data(b"")
    data = b""
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Data):
            data += event.data
    assert data == body


@given(fields=FIELDS, method=st.sampled_from(["GET", "POST"]), body=st.binary(max_size=50))
def test_what_is_written_h11_reads(fields, method, body):
    head = http1_head(method, "/post", [("host", "clip:51001"), *fields])
    server = h11.Connection(h11.SERVER)
    server.receive_data(head + b"content-length: %d\r\n\r\n" % len(body) + body)
    request = server.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (method.encode(), b"/post")
    sent = [(name.encode(), value.encode()) for name, value in [("host", "clip:51001"), *fields]]
    assert list(request.headers) == [*sent, (b"content-length", str(len(body)).encode())]
    if body:
        data = server.next_event()
        assert isinstance(data, h11.Data)
        assert data.data == body


@pytest.mark.parametrize(("name", "value"), [("a", "s3cret\r\nb: c"), ("a\nb", "s3cret"), ("a", "s3cret\xe4")])
def test_what_cannot_be_sent_is_refused_and_not_shown(name, value):
    with pytest.raises(ValueError, match="cannot be a field") as caught:
        http1_head("POST", "/", [(name, value)])
    assert "s3cret" not in str(caught.value)


def test_an_error_for_each_fault():
    for stream, error, said in (
        (b"SSH-2.0", ProtocolMismatchError, "illegal status line: 'SSH-2.0'"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            ReplyError,
            "breaks the rules of HTTP/1.1 (bad Content-Length)",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\n\r\n", ReplyError, "a Content-Encoding ('br')"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n", ReplyError, f"Limits.max_reply_bytes ({MOST})"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", TransportError, "in the middle of the answer"),
    ):
        replies = Http1Replies()
        replies.ask(MOST)
        with pytest.raises(CasdkError) as caught:
            read(replies, stream, [])
        assert type(caught.value) is error
        assert said in str(caught.value)


def test_what_a_refusal_says_is_kept():
    replies = Http1Replies()
    replies.ask(MOST)
    head = b"HTTP/1.1 503 x\r\nretry-after: \xe4\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\n"
    assert replies.receive(head) is None
    assert replies.begun
    body = replies.receive(b"hello")
    assert body is not None
    assert bytes(body) == b"hello"
    assert (replies.status, replies.keep_alive, replies.coded, replies.retry_after) == (503, True, True, "\xe4")
