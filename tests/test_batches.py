"""Batches are cut and joined without loss, repeats are found, and unfinished items are known."""

import sys

import pytest
from casdk._calls.batches import Batch, Repeats, Unfinished
from hypothesis import given
from hypothesis import strategies as st


def make(count, start=0):
    return Batch(range(start, start + count), list(range(start, start + count)), bytes(range(count)))


@given(st.integers(1, 50), st.data())
def test_parts_make_the_whole(count, data):
    cut = data.draw(st.integers(0, count))
    whole, joined = make(count), make(count).part(0, cut).joined(make(count).part(cut))
    assert list(joined.indices) == list(whole.indices)
    assert (joined.items, joined.kinds) == (whole.items, whole.kinds)


@given(st.integers(1, 50), st.data())
def test_without(count, data):
    gone = data.draw(st.sets(st.integers(0, count - 1)))
    rest = make(count, start=100).without(gone)
    assert rest.indices == [100 + position for position in range(count) if position not in gone]
    assert len(rest) == count - len(gone) == len(rest.kinds)


def positions(new):
    return None if new is None else new.positions


@given(st.data())
def test_repeats_are_found_across_chunks(data):
    """Against looking at every earlier item; the first chunks repeat nothing, most of the time."""
    letters = st.text("abcdefghij", min_size=1, max_size=2)
    chunks = [*data.draw(st.lists(st.lists(letters, min_size=1, max_size=5, unique=True), max_size=4))]
    chunks += data.draw(st.lists(st.lists(letters | st.just(["unhashable"]), min_size=1, max_size=5), max_size=4))
    items = [item for chunk in chunks for item in chunk]
    firsts = [items.index(item) if isinstance(item, str) else index for index, item in enumerate(items)]
    repeats, start = Repeats(), 0
    for chunk in chunks:
        new = [position for position in range(len(chunk)) if firsts[start + position] == start + position]
        assert positions(repeats.find_new(chunk, start, plain=True)) == (None if len(new) == len(chunk) else new)
        start += len(chunk)
    assert repeats.found == [(index, first) for index, first in enumerate(firsts) if first != index]


def test_what_cannot_be_hashed_never_repeats():
    repeats = Repeats()
    assert repeats.find_new([[1], [1], "a"], 0, plain=False) is None
    assert positions(repeats.find_new([[1], "a"], 3, plain=False)) == [0]
    assert repeats.found == [(4, 2)]


def test_documents_of_docarray_never_repeat(monkeypatch):
    theirs = type("Theirs", (), {"__module__": "docarray.document"})()
    monkeypatch.setitem(sys.modules, "docarray", None)
    repeats = Repeats()
    assert repeats.find_new(["a", "b"], 0, plain=False) is None
    assert repeats.find_new([theirs, theirs, "c"], 2, plain=False) is None
    assert positions(repeats.find_new([theirs, "b"], 5, plain=False)) == [0]
    assert repeats.found == [(6, 1)]


@given(st.integers(1, 5), st.lists(st.just("item"), max_size=30), st.data())
def test_what_has_no_result_is_known(size, items, data):
    """Against a dict of every item; a request has items of one chunk, in any order."""
    unfinished, left = Unfinished(), {}
    items = [f"{item} {index}" for index, item in enumerate(items)]
    for start in range(0, len(items), size):
        chunk = items[start : start + size]
        unfinished.chunks[start] = chunk
        left |= dict(enumerate(chunk, start))
        for _ in range(data.draw(st.integers(0, 3))):
            earlier = data.draw(st.sampled_from(range(0, start + 1, size)))
            indices = range(earlier, min(earlier + size, len(items)))
            done = data.draw(st.lists(st.sampled_from(indices), unique=True) | st.just(indices))
            for index in done:
                if index in left:
                    assert unfinished.item(index, None) == items[index]
            unfinished.mark_done(done)
            left = {index: item for index, item in left.items() if index not in done}
        assert list(unfinished.left().items()) == sorted(left.items())
    for index in range(len(items)):
        unfinished.mark_done([index])
    assert unfinished.left() == {}
    assert unfinished.item(0, "otherwise") == "otherwise"


class Raises:
    """Equal hashes, and a comparison that raises."""

    def __init__(self, on):
        self.on = on

    def __hash__(self):
        if self.on == "hash":
            raise RuntimeError("hash")
        return hash("a")

    def __eq__(self, other):
        raise RuntimeError("eq")


@pytest.mark.parametrize("before", [[], ["b", "b"]], ids=["nothing repeated so far", "something did"])
def test_what_raises_when_it_is_compared_is_told_of_and_hurts_no_other(before):
    repeats, count = Repeats(), len(before)
    repeats.find_new(before, 0, plain=True)
    assert repeats.are_plain
    new = repeats.find_new(["a", Raises("hash"), "c", Raises("eq"), "a"], count, plain=False)
    assert new is not None
    assert not repeats.are_plain
    assert new.positions == [0, 2]
    assert {position: str(error) for position, error in new.failed.items()} == {1: "hash", 3: "eq"}
    assert (count + 4, count) in repeats.found
