"""A hostile server causes a typed error in time and in bounded memory, or the rows are right."""

import asyncio
import contextlib
import os
import re

import numpy as np
import psutil
import pytest
from casdk import CasdkError, Document, ProtocolMismatchError, Retry, TransportError
from casdk._transport.channels.pairing import REMEMBERED_IDS
from casdk.testing import (
    AddDocument,
    Babble,
    DeepNesting,
    DropDocument,
    Duplicate,
    EndlessHeaders,
    ExecutorError,
    Fault,
    Garbage,
    HugeLength,
    NoEmbedding,
    NotFinite,
    Page,
    Refuse,
    Stale,
    TextReply,
    Trickle,
    Truncate,
    Width,
    WrongId,
)

ONCE = Retry(attempts=1)
LIES = {
    "one document more": {"script": AddDocument()},
    "one document less": {"script": DropDocument()},
    "no embedding": {"script": NoEmbedding()},
    "truncated": {"script": Truncate()},
    "garbage": {"script": Garbage()},
    "4 GB announced": {"script": HugeLength()},
    "nested deeply": {"script": DeepNesting()},
    "text": {"script": TextReply()},
    "endless headers": {"connections": EndlessHeaders()},
    "another protocol": {"connections": Babble()},
    "slow bytes": {"script": Trickle(1, 0.05)},
}


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.replace(" ", "-"))
def test_a_typed_error(make_server, connect_to, scheme, lie, stopwatch, figure):
    server = make_server(**LIES[lie])
    client = connect_to(server, scheme, retry=ONCE, timeout=2)
    connect_to(make_server(), scheme).encode(["a"])  # what a first call imports and builds is no lie's doing
    before = psutil.Process().memory_info().rss
    with stopwatch() as watch, pytest.raises(CasdkError):
        client.encode(["a", "b"])
    assert watch.seconds < 20
    grown = (psutil.Process().memory_info().rss - before) / 2**20
    assert grown < 64
    figure("hostile: memory grown by a lie, MiB", round(grown, 1))


TITLE = "Please log in"
HTML = f"<!DOCTYPE html>\r\n<html>\n<head><title>\n{TITLE}</title></head><body>{'<p>Welcome</p>' * 500}</body></html>"
BODY = HTML.encode()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n"
PAGES = {
    "of a proxy whose server is gone": {"script": Page()},
    "of a proxy that is broken": {"script": Page(500, "Internal Server Error")},
    "in the reply's place": {"script": TextReply(HTML)},
    "in an error of the gateway": {"script": Refuse(13, 500, 1002, HTML)},
    "in an error of an executor": {"script": ExecutorError(description=HTML)},
    "to whatever is asked": {
        "connections": Babble(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY))
    },
    "without a head": {"connections": Babble(BODY, close=True)},
    "in the head": {
        "connections": Babble(b"HTTP/1.1 302 " + BODY[15:80].replace(b"\r\n", b"") + b"\r\n\r\n", close=True)
    },
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.replace(" ", "-"))
def test_no_web_page_is_a_message(make_server, connect_to, scheme, page):
    client = connect_to(make_server(**PAGES[page]), scheme, retry=ONCE, timeout=5)
    with pytest.raises(CasdkError) as caught:
        client.encode(["a"])
    said = str(caught.value)
    assert not re.search("<|html|welcome", said, re.IGNORECASE)
    assert len(said) < 300


def test_a_reply_too_large_is_not_waited_for(make_server, connect_to, scheme, call):
    """Its length comes first."""
    client = connect_to(make_server(HugeLength()), scheme, timeout=50)
    with pytest.raises(CasdkError, match="larger than"):
        call(client, "encode", ["a"])


@pytest.mark.parametrize("fault", [Duplicate(), WrongId("0" * 32)], ids=["repeated", "unknown"])
def test_request_ids(make_server, connect_to, scheme, rows, fault):
    """A repeated or unknown id never crosses rows: it changes nothing, or is an error of its own call."""
    client = connect_to(make_server([fault]), scheme, retry=ONCE, timeout=2)
    for texts, timeout in ((["a", "b"], 2), (["c", "d"], 20)):
        with contextlib.suppress(CasdkError):
            np.testing.assert_array_equal(client.encode(texts, timeout=timeout), rows(texts))
    np.testing.assert_array_equal(client.encode(["e", "f"], timeout=20), rows(["e", "f"]))


@pytest.mark.parametrize("attempts", [1, 5])
@pytest.mark.parametrize("fault", [Duplicate(), Stale()], ids=["too-many", "of-the-one-before"])
def test_replies_to_another_request(make_server, connect_to, scheme, call, rows, fault, attempts, tally):
    """With as many items in each, only the request that a reply belongs to tells them apart."""
    # A websocket's reply to nobody, and a gRPC stream with a message too many, last as long as the call may.
    silent = (scheme.startswith("websocket") and fault == Stale()) or (
        scheme.startswith("grpc") and fault == Duplicate()
    )
    calls, timeout = (5, 0.1) if silent else (30, 20.0)
    client = connect_to(make_server(fault), scheme, retry=Retry(attempts=attempts, backoff=0))
    refused = 0
    for number in range(calls):
        texts = [f"{number} a", f"{number} b"]
        try:
            found = call(client, "encode", texts, timeout=timeout)
        except CasdkError:
            refused += 1
        else:
            np.testing.assert_array_equal(found, rows(texts))
    tally("hostile: replies to another request", calls)
    if scheme.startswith("http"):
        # It happens once: from then on each request has a connection of its own. A reply too many that comes with the
        # one before it, or before the next request, ends its connection and is nobody's.
        assert refused <= (attempts == 1)
        assert refused == (attempts == 1) or fault == Duplicate()


@pytest.mark.parametrize("scheme", ["http", "https", "websocket", "websockets"])
async def test_replies_too_many_in_a_crowd(make_server, connect_to, scheme, rows):
    client = connect_to(make_server(lambda request: Duplicate() if request.number % 3 else None), scheme, timeout=30)

    async def ask(number: int) -> None:
        texts = [f"{number} a", f"{number} b"]
        np.testing.assert_array_equal(await client.aencode(texts), rows(texts))

    for start in range(0, 320, 32):
        await asyncio.gather(*map(ask, range(start, start + 32)))


@pytest.mark.parametrize("fault", [Duplicate(), Stale()], ids=["too-many", "of-the-one-before"])
def test_an_id_that_comes_again(make_server, connect_to, rows, fault):
    """A Document's own id tells nothing if a request before had it, even if others came between."""
    server = make_server(lambda request: fault if request.texts[0].isdigit() else None)
    client = connect_to(server, "http", timeout=20)
    for number in range(20):
        found = client.encode([Document(id="same", text=f"{number}")])
        np.testing.assert_array_equal(found.embeddings, rows([f"{number}"]))
        if fault == Stale():
            found = client.encode([Document(text="between")])
            np.testing.assert_array_equal(found.embeddings, rows(["between"]))


def test_ids_of_users_keep_their_connection(make_server, connect_to):
    """As far as they are others each time."""
    server = make_server()
    client = connect_to(server, "http")
    for number in range(REMEMBERED_IDS + 1):
        client.encode([Document(id=f"{number}", text="a")])
    assert server.counters.connected == 2


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_index_is_not_sent_twice(make_server, connect_to, scheme):
    """The server may have stored it, whatever it answered."""
    server = make_server(Stale())
    client = connect_to(server, scheme, timeout=20)
    client.encode(["a"])
    with pytest.raises(TransportError, match="another request"):
        client.index(["b"])
    assert server.counters.requests == 2


class OwnIds(Fault):
    """Give each document another id, in a reply that is right otherwise."""

    def change(self, reply, exchange):
        for document in reply.data.docs.docs:
            document.id = os.urandom(16).hex()


def test_a_server_with_ids_of_its_own(make_server, connect_to, scheme, rows):
    """Where nothing can be left from another request, documents are told by their position."""
    server = make_server(OwnIds())
    client = connect_to(server, scheme, retry=ONCE, timeout=20)
    for texts in (["a", "b"], ["c", "d"], ["e", "f"]):
        np.testing.assert_array_equal(client.encode(texts), rows(texts))
    assert server.counters.connected == (3 if scheme.startswith("http") else 1)


def test_a_width_that_changes(make_server, connect_to, scheme):
    client = connect_to(make_server([None, Width(7)]), scheme, retry=ONCE, timeout=5)
    with pytest.raises(CasdkError, match="7"):
        client.encode(["a", "b"], batch_size=1, prefetch=1)


def test_numbers_that_are_none(make_server, connect_to, scheme):
    """NaN is an error, or comes through as it was sent; it never becomes a number."""
    client = connect_to(make_server([NotFinite()]), scheme, retry=ONCE, timeout=5)
    with contextlib.suppress(CasdkError):
        found = client.encode(["a", "b"])
        assert not np.isfinite(found).all()


@pytest.mark.parametrize(
    ("spoken", "listening", "named"),
    [
        ("grpc", "http", "http://"),
        ("http", "grpc", "grpc://"),
        ("websocket", "http", "http://"),
        ("https", "grpcs", "grpcs://"),
        ("grpcs", "https", "https://"),
        ("websockets", "https", "https://"),
        ("grpcs", "grpc", "grpc://"),
        ("https", "http", "http://"),
        ("websockets", "http", "websocket://"),
    ],
)
def test_a_wrong_port_is_named(make_server, connect_to, spoken, listening, named):
    """HTTP on a gRPC port and the other way round, and neither on one without TLS."""
    server = make_server()

    class Place:
        ca = server.ca

        def address(self, scheme):
            return f"{scheme}://127.0.0.1:{server.port(listening)}"

    with pytest.raises(ProtocolMismatchError, match=f"(use|try).* {named}"):
        connect_to(Place(), spoken, retry=ONCE, timeout=5).encode(["a"])
