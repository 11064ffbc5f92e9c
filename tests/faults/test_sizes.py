"""Servers and proxies with a limit on requests: larger batches are halved, and an item that is too large fails."""

import asyncio
import re

import numpy as np
import pytest
from casdk import Document, Limits, RejectedError, ReplyError, Retry, ServerError
from casdk.testing import EntityTooLarge, Refuse

ONCE = Retry(attempts=1)
LIMIT = 40_000
TEXTS = [f"{number} {'word ' * 500}" for number in range(64)]
"""Of 2.5 kB: 16 of them are too many."""
HUGE = "huge " * 10_000
PLACES = {
    ("proxy", "grpc"): "HTTP 413 .*nginx: client_max_body_size",
    ("proxy", "http"): "HTTP 413: .*nginx: client_max_body_size",
    ("server", "grpc"): r"grpc\.max_receive_message_length",
    ("server", "http"): "HTTP 413: .*nginx: client_max_body_size",
    ("proxy", "websocket"): "1009 .*uvicorn: ws_max_size",
    ("server", "websocket"): "1009 .*uvicorn: ws_max_size",
}
"""What an error says of who refuses, and by which protocol."""


def taken(server):
    """Return the texts of all requests that were executed, but for the search by which `index` tells an indexer."""
    requests = [request for request in server.requests if request.endpoint != "/search"]
    return [text for request in requests if request.nbytes <= LIMIT for text in request.texts]


@pytest.mark.parametrize("by", ["proxy", "server"])
def test_what_is_too_large_is_halved(make_server, connect_to, scheme, call, rows, by):
    server = make_server(EntityTooLarge(LIMIT, by))
    content = [*TEXTS[:20], HUGE, *TEXTS[20:]]
    found = call(connect_to(server, scheme, retry=ONCE, timeout=50), "encode", content, errors="return", batch_size=32)
    (error,) = found.errors
    assert (type(error), error.index, error.item) == (RejectedError, 20, HUGE)
    assert isinstance(error.cause, ServerError)
    refused = rf"item 20: it is too large by itself: a request of 50,\d+ bytes was refused: {scheme}:"
    assert re.match(f"{refused}.*{PLACES[by, scheme.rstrip('s')]}", str(error))
    assert "<" not in str(error)
    good = [number for number in range(len(content)) if number != 20]
    np.testing.assert_array_equal(found.embeddings[good], rows(TEXTS))
    assert np.isnan(found.embeddings[20]).all()


def test_what_was_found_out_is_known_to_the_next_call(make_server, connect_to, scheme, rows):
    server = make_server(EntityTooLarge(LIMIT))
    client = connect_to(server, scheme, retry=ONCE, timeout=50)
    client.encode(TEXTS, batch_size=32)
    before = len(server.requests)
    np.testing.assert_array_equal(client.encode(TEXTS, batch_size=32), rows(TEXTS))
    assert all(request.nbytes <= LIMIT for request in list(server.requests)[before:])


@pytest.mark.parametrize("verb", ["rank", "index", "stream"])
def test_every_verb(make_server, connect_to, scheme, call, verb):
    """An index too, each Document once: what was refused for its size was not stored."""
    server = make_server(EntityTooLarge(LIMIT))
    client = connect_to(server, scheme, retry=ONCE, timeout=50)
    content = TEXTS
    if verb == "rank":
        content = [Document(text=text, matches=[Document(text="a"), Document(text="b")]) for text in TEXTS]
    found = call(client, verb, content, batch_size=32)
    assert sum(len(piece) for piece in found) == len(TEXTS) if verb == "stream" else len(found) == len(TEXTS)
    assert sorted(taken(server)) == sorted(TEXTS)


def test_one_large_item_ends_the_call_that_wants_it_to(make_server, connect_to, scheme, rows):
    client = connect_to(make_server(EntityTooLarge(LIMIT)), scheme, retry=ONCE, timeout=50)
    with pytest.raises(RejectedError, match="item 1: it is too large by itself"):
        client.encode(["a", HUGE, "b"])
    np.testing.assert_array_equal(client.encode(["a"]), rows(["a"]))


def test_lost_on_purpose(make_server, connect_to, scheme):
    """With ``on_error`` a batch is halved all the same, and the large item alone is lost."""
    lost, done = [], []
    client = connect_to(make_server(EntityTooLarge(LIMIT)), scheme, retry=ONCE, timeout=50)
    client.encode([*TEXTS, HUGE], batch_size=32, on_error=lost.append, on_done=done.append)
    assert len(lost) == 1
    assert sum(len(response.docs) for response in done) == len(TEXTS)


async def test_the_others_on_a_connection_are_not_to_blame(make_server, connect_to, scheme, rows):
    """A websocket is closed for one request that is too large, with all that are in flight on it."""
    server = make_server(EntityTooLarge(LIMIT))
    client = connect_to(server, scheme, retry=ONCE, timeout=50)

    async def small(number):
        np.testing.assert_array_equal(await client.aencode([f"{number}"]), rows([f"{number}"]))

    async def large():
        with pytest.raises(RejectedError):
            await client.aencode([HUGE])

    await asyncio.gather(*[large() if number % 8 == 3 else small(number) for number in range(32)])


async def test_an_index_among_large_requests_is_stored_once(make_server, connect_to, scheme):
    """It must not be sent again where it was in flight on a connection that another one ended."""
    server = make_server(EntityTooLarge(LIMIT))
    client = connect_to(server, scheme, retry=ONCE, timeout=50)

    async def large():
        with pytest.raises(RejectedError):
            await client.aencode([HUGE])

    texts = [f"{number}" for number in range(24)]
    await asyncio.gather(*[call for text in texts for call in (client.aindex([text]), large())])
    assert sorted(taken(server)) == sorted(texts)


def test_many_large_items_are_found_one_by_one(make_server, connect_to, scheme, rows):
    server = make_server(EntityTooLarge(LIMIT))
    content = [HUGE[number:] if number % 3 else f"{number}" for number in range(24)]
    found = connect_to(server, scheme, retry=ONCE, timeout=50).encode(content, errors="return", batch_size=1)
    assert [error.index for error in found.errors] == [number for number in range(24) if number % 3]
    good = list(range(0, 24, 3))
    np.testing.assert_array_equal(found.embeddings[good], rows([content[number] for number in good]))


def test_a_bad_item_and_a_limit_at_once(make_server, connect_to, scheme, rows):
    server = make_server(EntityTooLarge(LIMIT), poison={TEXTS[7], TEXTS[40]})
    found = connect_to(server, scheme, timeout=50).encode(TEXTS, errors="return", batch_size=32)
    assert [error.index for error in found.errors] == [7, 40]
    good = [number for number in range(len(TEXTS)) if number not in (7, 40)]
    np.testing.assert_array_equal(found.embeddings[good], rows([TEXTS[number] for number in good]))


@pytest.mark.parametrize("scheme", ["grpc", "grpcs"])
def test_a_reply_too_large_for_its_sender(make_server, connect_to, scheme, rows):
    """gRPC's server may have a limit for what it sends, too: then it has worked already, and no index is repeated."""
    said = "SERVER: Sent message larger than max (700 vs. 500)"
    server = make_server(lambda request: Refuse(8, message=said) if len(request.texts) > 10 else None)
    client = connect_to(server, scheme, retry=ONCE, timeout=50)
    np.testing.assert_array_equal(client.encode(TEXTS, batch_size=32), rows(TEXTS))
    with pytest.raises(ServerError, match="may not send such a reply"):
        connect_to(server, scheme, retry=ONCE, timeout=50).index(TEXTS, batch_size=32)


def test_a_reply_too_large_for_us(make_server, connect_to, scheme):
    """The same class on every scheme."""
    client = connect_to(make_server(), scheme, retry=ONCE, limits=Limits(max_reply_bytes=2000))
    with pytest.raises(ReplyError, match=r"larger than Limits\.max_reply_bytes"):
        client.encode(TEXTS)
