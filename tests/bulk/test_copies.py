"""An update of a matrix: unchanged rows are copied, and the files are those of a run that encodes all of the input."""

import json
import random
from collections import Counter

import numpy as np
import pytest
from casdk import BulkError

from .stopped_runs import StoppedRuns

SMALL = {"shard_rows": 8, "batch_size": 3, "prefetch": 2}
WIDTH = 8
TEXTS = [f"sentence {number}" for number in range(20)]


@pytest.fixture(scope="module")
def runs():
    with StoppedRuns().served(WIDTH) as runs:
        yield runs


@pytest.fixture
def encode_to(runs, mode):
    """`encode_to` by either API; the run is stopped at the request with the text ``stop``."""

    def encode_to(target, content, *, stop=None, **options):
        return runs.run(target, content, {**SMALL, **options}, text=stop, mode=mode)

    return encode_to


def anew(encode_to, target, content, **options):
    """Encode a content to a new target, and return its folder."""
    folder = target.parent.parent / "anew"
    folder.mkdir()
    encode_to(folder / target.name, content, **options)
    return folder


@pytest.fixture
def target(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "rows.npy"


@pytest.mark.parametrize("options", [{}, {"normalize": True}, {"dtype": "float16"}])
@pytest.mark.parametrize("seed", range(3))
def test_an_update_leaves_what_a_new_run_leaves(encode_to, target, held, seed, options):
    """A multiset counts the rows that are copied: their order does not matter, and failed items are sent again."""
    choose = random.Random(seed)
    before = [choose.choice([*TEXTS, ""]) for _ in range(choose.randint(0, 40))]
    now = [choose.choice([*TEXTS, "", "new", "newer"]) for _ in range(choose.randint(1, 60))]
    encode_to(target, before, **options)
    result = encode_to(target, now, update=True, **options)
    there = Counter(before)
    del there[""]
    assert result.encoded == (Counter(now) - there).total()
    assert result.reencoded + result.dropped == len(before) - (len(now) - result.encoded)
    assert held(target.parent) == held(anew(encode_to, target, now, **options))


def test_what_has_not_changed_is_not_sent(encode_to, target, held):
    encode_to(target, TEXTS, update=True)
    before = held(target.parent)
    result = encode_to(target, iter(TEXTS), update=True)
    assert (result.rows, result.encoded, result.dropped) == (20, 0, 0)
    assert held(target.parent) == before
    assert encode_to(target, TEXTS).encoded == 0


def test_an_item_with_the_same_name_and_another_content_is_encoded(encode_to, target, held):
    rows = [(f"name {number}", text) for number, text in enumerate(TEXTS)]
    encode_to(target, rows)
    now = [*rows[:3], ("name 3", "another text"), *rows[5:]]
    result = encode_to(target, now, update=True)
    assert (result.rows, result.encoded, result.reencoded, result.dropped) == (19, 1, 1, 1)
    assert held(target.parent) == held(anew(encode_to, target, now))


def test_all_items_of_a_matrix_without_fingerprints_are_encoded(encode_to, target, held):
    """Early versions wrote no fingerprints, so nothing is known to be unchanged."""
    rows = [(f"name {number}", text) for number, text in enumerate(TEXTS)]
    encode_to(target, rows)
    before = held(target.parent)
    manifest = json.loads(before["rows.casdk.json"])
    for shard in manifest["shards"]:
        del shard["files"]["contents"]
    target.with_suffix(".casdk.json").write_text(json.dumps(manifest))
    target.with_suffix(".contents.bin").unlink()
    assert encode_to(target, rows, update=True).encoded == 20
    assert held(target.parent) == before


def test_the_file_of_fingerprints_is_removed_when_no_item_has_one(encode_to, target, held):
    encode_to(target, [("name", "text")])
    assert target.with_suffix(".contents.bin").exists()
    encode_to(target, TEXTS, update=True)
    assert held(target.parent) == held(anew(encode_to, target, TEXTS))


def test_the_old_matrix_stays_until_the_new_one_is_complete(encode_to, target, held):
    new = [f"new {number}" for number in range(30)]
    now = [text for both in zip(TEXTS, new, strict=False) for text in both] + new[20:]
    encode_to(target, TEXTS)
    old = np.load(target)
    for stop in (new[1], new[9], new[27]):
        with pytest.raises(SystemExit):
            encode_to(target, now, stop=stop, update=True)
        np.testing.assert_array_equal(np.load(target), old)
    result = encode_to(target, now, update=True)
    assert 0 < result.encoded < 10
    assert (result.dropped, result.reencoded) == (0, 0)
    assert held(target.parent) == held(anew(encode_to, target, now))


def test_an_update_under_way_keeps_to_its_input(encode_to, target, held):
    encode_to(target, TEXTS)
    with pytest.raises(SystemExit):
        encode_to(target, ["a", *TEXTS, "b"], stop="b", update=True)
    before = held(target.parent)
    for other, said in [
        (["c", *TEXTS, "b"], "has changed since .*: item 0 is 'c' now, and was 'a'"),
        (["a", *TEXTS[:10]], "has become shorter: it ends after 11 items, and .* has rows of"),
    ]:
        with pytest.raises(BulkError, match=f"{said}.*; an update that was stopped needs the input that it began with"):
            encode_to(target, other, update=True)
        assert held(target.parent) == before
    encode_to(target, ["a", *TEXTS, "b"], update=True)
    assert held(target.parent) == held(anew(encode_to, target, ["a", *TEXTS, "b"]))
