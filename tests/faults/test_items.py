"""One bad item fails alone: it is named, all others get their rows, and finding it takes few requests."""

import math

import numpy as np
import pytest
from casdk import (
    FileMissingError,
    ItemError,
    NoEmbeddingError,
    OverloadedError,
    RejectedError,
    Retry,
    ServerError,
    TransportError,
)
from casdk.testing import DropDocument, ExecutorError, NoEmbedding, Refuse

BATCH = 32
TEXTS = [f"text {number}" for number in range(4 * BATCH)]
QUICK = Retry(attempts=3, backoff=0.001)


@pytest.mark.parametrize("positions", [[0], [31], [17], [5, 70], [0, 1, 2], [3, 9, 40, 41, 100, 127]], ids=str)
def test_bad_items_are_named(make_server, connect_to, scheme, call, rows, positions, figure):
    server = make_server(poison={TEXTS[position] for position in positions})
    client = connect_to(server, scheme, timeout=30)
    found = call(client, "encode", TEXTS, batch_size=BATCH, errors="return")
    assert [error.index for error in found.errors] == positions
    assert [error.item for error in found.errors] == [TEXTS[position] for position in positions]
    for error in found.errors:
        assert isinstance(error, RejectedError)
        assert "boom" in str(error.cause)
    good = [number for number in range(len(TEXTS)) if number not in positions]
    np.testing.assert_array_equal(found.embeddings[good], rows([TEXTS[number] for number in good]))
    assert np.isnan(found.embeddings[positions]).all()
    extra = server.counters.requests - len(TEXTS) // BATCH
    bad = len(positions)
    assert extra <= bad * math.ceil(math.log2(BATCH)) + bad
    figure(f"bisection: extra requests for {bad} bad in batches of {BATCH}", extra)


def test_skip_leaves_the_rows_out(make_server, connect_to, scheme, call, rows):
    client = connect_to(make_server(poison={TEXTS[7]}), scheme, timeout=30)
    found = call(client, "encode", TEXTS, batch_size=BATCH, errors="skip")
    np.testing.assert_array_equal(found, rows(TEXTS[:7] + TEXTS[8:]))


def test_raise_stops_with_what_was_done(make_server, connect_to, scheme, call, rows):
    client = connect_to(make_server(poison={TEXTS[40]}), scheme, timeout=30)
    with pytest.raises(RejectedError) as caught:
        call(client, "encode", TEXTS, batch_size=BATCH, prefetch=1)
    error = caught.value
    assert (error.index, error.item) == (40, TEXTS[40])
    assert error.partial is not None
    np.testing.assert_array_equal(error.partial[:BATCH], rows(TEXTS[:BATCH]))
    assert np.isnan(error.partial[40]).all()


def test_what_fails_here_is_never_sent(make_server, connect_to, scheme, call, rows, tmp_path):
    missing = str(tmp_path / "none.png")
    content = ["a", missing, "b", "data:image/png;base64,!!!", "c"]
    server = make_server()
    client = connect_to(server, scheme, timeout=30)
    found = call(client, "encode", content, errors="return")
    assert [error.index for error in found.errors] == [1, 3]
    assert isinstance(found.errors[0], FileMissingError)
    np.testing.assert_array_equal(found.embeddings[[0, 2, 4]], rows(["a", "b", "c"]))
    assert server.counters.requests == 1
    assert server.counters.documents == 3


@pytest.mark.parametrize("fault", [NoEmbedding(2), DropDocument(2)], ids=["without embedding", "dropped"])
def test_an_item_without_an_answer(make_server, connect_to, scheme, call, rows, fault):
    client = connect_to(make_server([fault]), scheme, timeout=30)
    found = call(client, "encode", TEXTS[:5], errors="return")
    assert [error.index for error in found.errors] == [2]
    assert isinstance(found.errors[0], NoEmbeddingError)
    np.testing.assert_array_equal(found.embeddings[[0, 1, 3, 4]], rows([TEXTS[number] for number in (0, 1, 3, 4)]))


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(Refuse.overloaded(), OverloadedError), (Refuse.unavailable(), TransportError)],
    ids=["overloaded", "dead"],
)
def test_a_server_in_trouble_is_not_bisected(make_server, connect_to, scheme, call, fault, kind):
    server = make_server(fault)
    client = connect_to(server, scheme, retry=QUICK, timeout=30)
    with pytest.raises(kind) as caught:
        call(client, "encode", TEXTS[:BATCH], batch_size=BATCH, errors="return")
    assert type(caught.value) is kind
    assert [len(request.texts) for request in server.requests] == [BATCH] * 3


def test_an_executor_that_always_fails_is_not_searched_for_long(make_server, connect_to, scheme, call):
    """Where nothing ever passes, no item is to blame."""
    server = make_server(ExecutorError("RuntimeError", "CUDA error"))
    client = connect_to(server, scheme, retry=QUICK, timeout=30)
    with pytest.raises(ServerError, match="CUDA error"):
        call(client, "encode", TEXTS, batch_size=BATCH, errors="return", prefetch=1)
    assert server.counters.requests <= 2 * (2 * BATCH)


def test_bad_items_and_faults_at_once(make_server, connect_to, scheme, call, rows):
    from casdk.testing import Cut, Mix

    bad = [3, 50, 99]
    server = make_server(
        Mix(7, {Cut("after", "reset"): 0.1, Refuse.unavailable(): 0.1}), poison={TEXTS[number] for number in bad}
    )
    client = connect_to(server, scheme, retry=Retry(attempts=20, backoff=0.001, max_backoff=0.01, budget=1), timeout=30)
    found = call(client, "encode", TEXTS, batch_size=8, errors="return")
    assert [error.index for error in found.errors] == bad
    good = [number for number in range(len(TEXTS)) if number not in bad]
    np.testing.assert_array_equal(found.embeddings[good], rows([TEXTS[number] for number in good]))


def test_every_error_of_an_item_is_an_item_error(make_server, connect_to, call):
    client = connect_to(make_server(poison={"b"}), "grpc", timeout=30)
    with pytest.raises(ItemError):
        call(client, "encode", ["a", "b"])
