"""A shard under way: names wait until their rows come back."""

from casdk._calls.sample import Verdict
from casdk.bulk.sources import Block
from casdk.bulk.work import NAMES_AT_ONCE, Labels, Work
from hypothesis import given
from hypothesis import strategies as st


def test_names_come_back_in_order():
    work = Work(3)
    work.note(Block(["a", "b"], ["a", "b"], {1: "x"}))
    work.note(Block(["c"], ["c"], {0: "y"}))
    assert (work.read, work.rows) == (3, 0)
    assert work.names(2) == ["a", "b"]
    work.count(2, 1)
    assert work.names(2) == ["c"]
    work.count(1)
    shard = work.as_shard()
    assert (shard.number, shard.rows, shard.failed) == (3, 3, 1)
    assert shard.items == work.digest


def test_what_is_known_of_contents_is_kept_for_updates():
    known = []
    for cuts in ([2, 1], [1, 2], [3]):
        work = Work(0)
        work.note(Block(["a", "b", "c"], ["a", "b", "c"], {1: "x"}))
        for rows in cuts:
            work.count(rows)
        known.append(work.contents)
    assert len(known[0]) == 3 * 8
    assert len(set(known)) == 1
    plain = Work(0)
    plain.note(Block(["a"], ["a"]))
    plain.count(1)
    assert plain.contents == b""


@given(st.lists(st.integers(1, 2 * NAMES_AT_ONCE), max_size=6), st.integers(1, NAMES_AT_ONCE))
def test_labels_are_taken_once_and_in_order_and_are_all_in_the_digest(pieces, fewest):
    names = [str(row) for row in range(sum(pieces))]
    work, other = Work(0), Work(0)
    work.note(Block(names, names))
    taken = []
    for rows in pieces:
        work.count(rows)
        taken += work.take_labels(fewest)
        assert work.rows - sum(len(labels.names) for labels in taken) < fewest
    taken += work.take_labels(1)
    assert [name for labels in taken for name in labels.names] == names
    assert all(labels == Labels.of(labels.names, []) and len(labels.names) <= NAMES_AT_ONCE for labels in taken)
    other.pass_over(Block(names, names))
    assert work.digest == other.digest


def test_contents_count():
    digests = set()
    for contents in ({}, {0: "x"}, {1: "x"}, {0: "y"}):
        work = Work(0)
        work.note(Block(["a", "b"], ["a", "b"], contents))
        work.count(2)
        digests.add(work.digest)
    assert len(digests) == 4


def test_captions_wait_as_names_do():
    work = Work(0)
    work.note(Block(["a", "b"], ["1", "2"], {}, ["a", "b"]))
    work.note(Block(["c"], ["3"], {}, ["c"]))
    work.count(2)
    assert list(work.take_labels(3)) == []
    assert list(work.take_labels(1)) == [(["1", "2"], b'"1"\n"2"\n', ["a", "b"])]
    work.count(1)
    assert list(work.take_labels(1)) == [(["3"], b'"3"\n', ["c"])]


def test_images_that_are_measured_are_not_kept_in_parts():
    work = Work(0)
    assert work.goes_on_behind(0)
    work.verdict = verdict = Verdict(0.9)
    assert work.goes_on_behind(10)  # of sentences
    verdict.has_begun = True
    assert not work.goes_on_behind(10)
    verdict.written, verdict.fidelity, verdict.first = "jpeg95", 0.95, 33
    assert [work.goes_on_behind(items) for items in (32, 33)] == [False, True]
    assert (work.as_shard().images, work.as_shard().fidelity) == ("jpeg95", 0.95)
