"""The error of a stopped `index` says which items were stored for certain, and which may have been."""

import pytest
from casdk import AuthError, DeadlineError, Retry, TransportError
from casdk.testing import Cut, Gate, Hold, Refuse
from stops import BATCH, DONE, ONCE, TEXTS, failing


@pytest.fixture
def scheme(pair):
    return pair[0]


@pytest.fixture
def mode(pair):
    return pair[1]


def test_an_index_says_what_was_stored(make_server, connect_to, scheme, call):
    """For sure: what was answered; perhaps: what was in flight when it stopped."""
    server = make_server(failing(Cut("after")))
    client = connect_to(server, scheme, retry=ONCE, timeout=30)
    with pytest.raises(TransportError) as caught:
        call(client, "index", TEXTS, batch_size=BATCH, prefetch=1)
    error = caught.value
    assert error.done == DONE
    assert list(error.unconfirmed) == list(range(DONE, DONE + BATCH))
    assert f"({DONE} of 20 items were stored; 4 more, from item {DONE} to item {DONE + 3}, may have been)" in str(error)
    assert server.executor.indexed == DONE + BATCH


def test_an_index_that_was_refused_stored_nothing_more(make_server, connect_to, scheme, call):
    server = make_server(failing(Refuse.unauthenticated()))
    client = connect_to(server, scheme, retry=ONCE, timeout=30)
    with pytest.raises(AuthError) as caught:
        call(client, "index", TEXTS, batch_size=BATCH, prefetch=1)
    assert (caught.value.done, list(caught.value.unconfirmed)) == (DONE, [])
    assert str(caught.value).endswith(f"({DONE} of 20 items were stored)")
    assert server.executor.indexed == DONE


def test_an_index_that_is_held_up(make_server, connect_to, scheme, call):
    """Several requests are in flight when a deadline passes: none of them is sure."""
    gate = Gate()
    server = make_server()
    client = connect_to(server, scheme)
    # Larger than all that follow: over a websocket, one that is larger than any before it is sent by itself.
    call(client, "index", ["first " * 100])
    server.play([None, Hold(gate), Hold(gate), None, *[Hold(gate)] * 100])
    with pytest.raises(DeadlineError) as caught:
        call(client, "index", TEXTS, batch_size=BATCH, prefetch=3, timeout=2)
    gate.open()
    error = caught.value
    assert error.done == DONE
    assert len(error.unconfirmed) == 3 * BATCH
    documents = error.documents
    stored = {at for at, document in enumerate(documents) if document.embedding is not None}
    assert len(stored) == DONE
    assert stored.isdisjoint(error.unconfirmed)
    assert stored.union(error.unconfirmed) == set(range(20))


def test_an_index_sent_again_in_vain_is_still_not_sure(make_server, connect_to, scheme, call):
    """The second attempt is refused; the first one may have been executed, and was."""
    server = make_server([Cut("after"), Refuse.unauthenticated()])
    client = connect_to(server, scheme, retry=Retry(attempts=2, backoff=0.001, patience=0), timeout=30)
    with pytest.raises(AuthError) as caught:
        call(client, "index", TEXTS[:BATCH], batch_size=BATCH, idempotent_index=True)
    assert (caught.value.attempts, caught.value.done) == (2, 0)
    assert list(caught.value.unconfirmed) == list(range(BATCH))
    assert server.executor.indexed == BATCH


def test_an_index_that_never_reached_anybody(make_server, connect_to, scheme, call):
    server = make_server()
    server.down()
    client = connect_to(server, scheme, retry=ONCE, timeout=30)
    with pytest.raises(TransportError) as caught:
        call(client, "index", TEXTS, batch_size=BATCH)
    assert (caught.value.done, list(caught.value.unconfirmed)) == (0, [])
    assert "stored" not in str(caught.value)
