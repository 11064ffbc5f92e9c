"""Calls with ``batch_size="auto"``, against servers that note the size of each request."""

import asyncio
import logging
import re

import numpy as np
import pytest
from casdk import Client, InputTypeError, InputValueError, Retry
from casdk._calls import tuning
from casdk._engine.logging import flush
from casdk.testing import EntityTooLarge, FaultServer, Refuse, embed

WIDTH = 8
TEXTS = [f"text {number}" for number in range(6000)]


@pytest.fixture(scope="module")
def rows():
    return np.stack([embed(text, WIDTH) for text in TEXTS])


@pytest.fixture
def peer():
    with FaultServer(width=WIDTH, poison=["poison"]) as server:
        yield server


@pytest.fixture
def client(peer):
    with Client(peer.address("grpc"), retry=Retry(backoff=0.001, max_backoff=0.001)) as client:
        yield client


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """A trial ends with its window, so that a search has room in a few thousand items."""
    monkeypatch.setattr(tuning, "TRIAL_SECONDS", 1e-6)
    monkeypatch.setattr(tuning, "FIRST_ITEMS", 64)


def said(caplog):
    """Return what was logged of the searches, once the thread that logs has come so far."""
    assert flush(60)
    return [record.getMessage() for record in caplog.records if "auto" in record.getMessage()]


def sizes(peer):
    return [len(request.texts) for request in peer.requests]


@pytest.mark.parametrize("kind", [list, iter])
def test_rows_are_in_order_whatever_the_requests(client, peer, call, rows, kind, caplog):
    with caplog.at_level(logging.INFO, "casdk.calls"):
        found = call(client, "encode", kind(TEXTS), batch_size="auto")
    np.testing.assert_array_equal(found, rows)
    assert sum(sizes(peer)) == len(TEXTS)
    assert 32 in sizes(peer)
    assert {size for size in sizes(peer)[:-1] if size != 32}
    assert max(sizes(peer)) <= tuning.MOST_BATCH_ITEMS
    (line,) = said(caplog)
    assert line.startswith(f"encode at {peer.address('grpc')}: batch_size='auto' came to ")


def test_pieces_are_those_of_the_requests(client, peer, call, rows):
    texts = [*TEXTS[:100], "", *TEXTS[100:300], "poison", *TEXTS[300:]]
    pieces = list(call(client, "stream", iter(texts), batch_size="auto", errors="return", reader="thread"))
    assert [piece.start for piece in pieces] == list(np.cumsum([0, *(len(piece.embeddings) for piece in pieces[:-1])]))
    assert len({len(piece.embeddings) for piece in pieces}) > 1
    found = np.concatenate([piece.embeddings for piece in pieces])
    np.testing.assert_array_equal(np.delete(found, [100, 301], axis=0), rows)
    assert [error.index for piece in pieces for error in piece.errors] == [100, 301]


def test_an_async_iterable_and_repeats(client, rows):
    async def texts():
        for text in TEXTS:
            yield text
            yield TEXTS[0]

    found = asyncio.run(client.aencode(texts(), batch_size="auto", dedupe=True))
    np.testing.assert_array_equal(found[::2], rows)
    np.testing.assert_array_equal(found[1::2], np.tile(rows[0], (len(rows), 1)))


@pytest.mark.parametrize("refusal", [Refuse.overloaded(), Refuse.unavailable()], ids=["overloaded", "unavailable"])
def test_fewer_are_in_flight_after_a_refusal(client, peer, rows, refusal, caplog):
    calls = iter(range(1000))
    peer.play(lambda request: refusal if next(calls) == 20 else None)
    with caplog.at_level(logging.INFO, "casdk.calls"):
        found = client.encode(iter(TEXTS), batch_size="auto")
    np.testing.assert_array_equal(found, rows)
    (line,) = said(caplog)
    window = int(re.search(r"(\d+) requests in flight", line)[1])
    assert window <= tuning.GROWN_WINDOW_REQUESTS // 2


def test_what_was_too_large_is_not_tried_again(client, peer, rows):
    peer.play(EntityTooLarge(2000, by="server"))
    np.testing.assert_array_equal(client.encode(iter(TEXTS), batch_size="auto"), rows)
    refused = [request for request in peer.requests if request.nbytes > 2000]
    assert len(refused) <= tuning.GROWN_WINDOW_REQUESTS  # those of one trial that were in flight together


def test_a_call_of_few_items_is_as_any(client, peer):
    client.encode(TEXTS[: tuning.FEWEST_ITEMS - 1], batch_size="auto")
    assert set(sizes(peer)) == {32, (tuning.FEWEST_ITEMS - 1) % 32}


def test_requests_in_flight_stay_what_the_caller_says(client, peer, rows):
    np.testing.assert_array_equal(client.encode(TEXTS, batch_size="auto", prefetch=1), rows)
    assert sum(sizes(peer)) == len(TEXTS)


def test_index_and_search_take_it(connect, call):
    client = connect("grpc")
    assert len(call(client, "index", TEXTS[:5], batch_size="auto")) == 5
    assert len(call(client, "search", iter(TEXTS[:5]), batch_size="auto", limit=1)) == 5


def test_rank_does_not(client, call):
    with pytest.raises(InputValueError, match="'auto' does not go with rank"):
        call(client, "rank", [], batch_size="auto")
    with pytest.raises(InputTypeError, match="batch_size must be an int or 'auto', not 'automatic'"):
        call(client, "encode", [], batch_size="automatic")
