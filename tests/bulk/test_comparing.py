"""What is read again of an input is held to what the target was made of."""

import pytest
from casdk import BulkError
from casdk.bulk.comparing import Comparison
from casdk.bulk.manifest import Manifest, Settings
from casdk.bulk.matrix import MatrixTarget
from casdk.bulk.modes import OnLoop
from casdk.bulk.sources import open_source
from casdk.bulk.work import Work

SETTINGS = Settings(shard_rows=4, batch_size=1, dtype="float32", normalize=False)
TEXTS = ["a", "b", "c", "d", "e"]


@pytest.fixture
def begun(tmp_path):
    """A target of which the first four rows are there, and its manifest."""
    import numpy as np

    target, work = MatrixTarget(str(tmp_path / "rows.npy"), "float32"), Work(0)
    work.note(open_source(TEXTS).take(4))
    target.begin(Manifest(settings=SETTINGS), 2)
    target.add(np.zeros((4, 2), np.float32), {})
    work.count(4)
    for labels in work.take_labels(1):
        target.add_labels(labels)
    return target, Manifest(settings=SETTINGS).with_shard(target.commit(work.as_shard()), 2)


class Asked(Exception):  # noqa: N818
    pass


def compare(target, content, asked=lambda: None):
    return Comparison(target, open_source(content), SETTINGS, asked)


async def test_the_same_items(begun):
    target, manifest = begun
    work = await compare(target, TEXTS).shard(OnLoop(None), manifest, manifest.shards[0])
    assert (work.rows, work.digest) == (4, manifest.shards[0].items)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (["a", "x", "c", "d"], "item 1 is 'x' now, and was 'b'"),
        (TEXTS[:2], "has become shorter: it ends after 2 items"),
        ([*TEXTS[:3], ("d", b"d")], "one has another content"),
    ],
)
async def test_other_items(begun, content, said):
    target, manifest = begun
    with pytest.raises(BulkError, match=said):
        await compare(target, content).shard(OnLoop(None), manifest, manifest.shards[0])


async def test_shards_of_others_are_read(begun):
    comparison = compare(begun[0], TEXTS)
    await comparison.pass_over(OnLoop(None), 1)
    assert (comparison.read.shards, comparison.read.ended) == (1, False)
    await comparison.pass_over(OnLoop(None), None)
    assert (comparison.read.input.items, comparison.read.ended) == (5, True)


async def test_a_run_that_is_asked_to_stop_reads_no_more(begun):
    def asked():
        raise Asked

    with pytest.raises(Asked):
        await compare(begun[0], TEXTS, asked).pass_over(OnLoop(None), None)
