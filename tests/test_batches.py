from casdk._batches import Batch, Repeats
from hypothesis import given
from hypothesis import strategies as st


def make(count, start=0):
    return Batch(range(start, start + count), list(range(start, start + count)), bytes(range(count)))


@given(st.integers(1, 50), st.data())
def test_parts_make_the_whole(count, data):
    cut = data.draw(st.integers(0, count))
    whole, joined = make(count), make(count).part(0, cut).joined(make(count).part(cut))
    assert list(joined.indices) == list(whole.indices)
    assert (joined.items, joined.verdicts) == (whole.items, whole.verdicts)


@given(st.integers(1, 50), st.data())
def test_without(count, data):
    gone = data.draw(st.sets(st.integers(0, count - 1)))
    kept = make(count, start=100).without(gone)
    assert kept.indices == [100 + position for position in range(count) if position not in gone]
    assert len(kept) == count - len(gone) == len(kept.verdicts)


@given(st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5), max_size=8))
def test_repeats_are_found_across_chunks(chunks):
    repeats, start, sent = Repeats(), 0, []
    for chunk in chunks:
        kept = repeats.sift(chunk, start)
        sent += [(start + position, chunk[position]) for position in (range(len(chunk)) if kept is None else kept)]
        start += len(chunk)
    items = [item for chunk in chunks for item in chunk]
    assert len({item for _, item in sent}) == len(sent) == len(set(items))
    rows = dict(sent)
    rows.update({index: items[first] for index, first in repeats.found})
    assert [rows[index] for index in range(len(items))] == items


def test_what_cannot_be_hashed_never_repeats():
    repeats = Repeats()
    assert repeats.sift([[1], [1], "a"], 0) is None
    assert repeats.sift([[1], "a"], 3) == [0]
    assert repeats.found == [(4, 2)]
