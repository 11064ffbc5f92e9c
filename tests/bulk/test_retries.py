"""Failed items that are tried again: good rows stay, and what is there in the end is what an undisturbed run leaves."""

import asyncio

import numpy as np
import pytest
from casdk import BulkError, Client, ConfigError, EmptyItemError
from casdk.bulk.call import open_target
from casdk.bulk.retries import Retries
from casdk.bulk.sources import Block
from casdk.testing import FaultServer

SMALL = {"shard_rows": 16, "batch_size": 4}
TEXTS = [f"sentence {number}" for number in range(50)]
BAD = frozenset(TEXTS[3:50:7])


@pytest.fixture
def peer():
    """A server that refuses some sentences until its ``executor.poison`` is taken away."""
    with FaultServer(width=8, poison=BAD) as server:
        yield server


@pytest.fixture
def encode_to(peer, mode):
    with Client(peer.address("grpc")) as client:

        def encode_to(target, content, **options):
            if mode == "sync":
                return client.encode_to(target, content, **{**SMALL, **options})
            return asyncio.run(client.aencode_to(target, content, **{**SMALL, **options}))

        yield encode_to


@pytest.mark.parametrize("normalize", [False, True])
def test_they_get_their_rows(encode_to, peer, target, tmp_path, held, normalize):
    assert encode_to(target, TEXTS, normalize=normalize).failed == len(BAD)
    peer.executor.poison = None
    asked = len(peer.requests)
    result = encode_to(target, iter(TEXTS), retry_errors=True, normalize=normalize)
    assert (result.rows, result.failed, result.encoded, result.reencoded) == (50, 0, len(BAD), len(BAD))
    sent = {text for request in list(peer.requests)[asked + 2 :] for text in request.texts}
    assert sent == BAD  # beside the two that ask for the space
    (tmp_path / "undisturbed").mkdir()
    encode_to(tmp_path / "undisturbed" / target.name, TEXTS, normalize=normalize)
    assert held(target.parent) == held(tmp_path / "undisturbed")
    asked = peer.counters.documents
    assert encode_to(target, TEXTS, retry_errors=True, normalize=normalize).encoded == 0
    assert peer.counters.documents == asked


def test_those_that_fail_again_stay_written_down(encode_to, peer, target, tmp_path, held):
    texts = ["", *TEXTS, "/no/such.png"]
    encode_to(target, texts)
    before = held(target.parent)
    assert encode_to(target, texts, retry_errors=True).failed == len(BAD) + 2
    assert held(target.parent) == before
    peer.executor.poison = lambda text: text == "sentence 24"
    result = encode_to(target, texts, retry_errors=True)
    assert (result.failed, result.reencoded) == (3, len(BAD) + 2)
    (tmp_path / "undisturbed").mkdir()
    encode_to(tmp_path / "undisturbed" / target.name, texts)
    assert held(target.parent) == held(tmp_path / "undisturbed")


class BrokenError(Exception):
    pass


def test_one_that_was_begun(encode_to, peer, target, tmp_path, held):
    def broken():
        yield from TEXTS[:28]
        raise BrokenError

    with pytest.raises(BrokenError):
        encode_to(target, broken(), prefetch=1)
    begun = open_target(target, "float32").read_manifest()
    assert begun.begun.failed
    peer.executor.poison = None
    result = encode_to(target, TEXTS, retry_errors=True)
    assert (result.rows, result.failed, result.reencoded) == (50, 0, begun.failed)
    (tmp_path / "undisturbed").mkdir()
    encode_to(tmp_path / "undisturbed" / target.name, TEXTS)
    assert held(target.parent) == held(tmp_path / "undisturbed")


def test_a_shard_whose_items_are_others_is_left_alone(encode_to, peer, target, held):
    encode_to(target, TEXTS)
    before = held(target.parent)
    peer.executor.poison = None
    with pytest.raises(BulkError, match="item 5 is 'other' now"):
        encode_to(target, ["other" if number == 5 else text for number, text in enumerate(TEXTS)], retry_errors=True)
    assert held(target.parent) == before
    assert encode_to(target, TEXTS, retry_errors=True).failed == 0


def test_one_may_stop_the_run(encode_to, peer, target, held):
    encode_to(target, TEXTS)
    before = held(target.parent)
    with pytest.raises(BulkError, match="item 3, 'sentence 3', cannot be encoded: RejectedError"):
        encode_to(target, TEXTS, retry_errors=True, errors="raise")
    assert held(target.parent) == before


def test_it_goes_on_with_what_is_there(encode_to, target):
    with pytest.raises(ConfigError, match="choose one"):
        encode_to(target, TEXTS, retry_errors=True, overwrite=True)
    assert encode_to(target, TEXTS, retry_errors=True).encoded == 50


async def test_a_row_of_two_items_is_filled_in_when_both_have_come():
    async def encode(places, names, items):
        assert (places, names) == ([1, 1, 2, 2], ["b", "b", "c", "c"])
        error = EmptyItemError(3, items[3], "nothing")
        return np.arange(8, dtype=np.float32).reshape(4, 2), {3: error}

    retries = Retries({1: "image: a", 2: "text: b"}, encode, 1)
    await retries.take(0, Block(["a1", "a2", "b1", "b2", "c1", "c2"], ["a", "b", "c"]))
    await retries.end()
    assert retries.changed
    assert retries.errors == {2: "text: b"}
    assert list(retries.rows) == [1]
    np.testing.assert_array_equal(retries.rows[1], [[0, 1], [2, 3]])
