"""A folder of Parquet files: what others read of it, and the same bytes however a shard was made."""

from itertools import pairwise

import numpy as np
import pyarrow.dataset
import pyarrow.parquet
import pytest
from casdk import FileMissingError
from casdk.bulk.manifest import Manifest, Settings, Shard
from casdk.bulk.shards import ParquetTarget
from casdk.bulk.work import Labels
from hypothesis import given
from hypothesis import strategies as st

SETTINGS = Settings(shard_rows=9000, batch_size=2, dtype="float32", normalize=False)
ROWS = np.random.default_rng(7).standard_normal((9000, 2), np.float32)
ERRORS = {5000: FileMissingError(0, "x", "gone"), 8999: FileMissingError(0, "y", "gone \udcff")}


def entry(number, rows):
    return Shard(number=number, rows=rows, failed=len(ERRORS), items="", files={}, checksum="")


def add(target, start, stop):
    errors = {row - start: error for row, error in ERRORS.items() if start <= row < stop}
    target.add(ROWS[start:stop], errors)
    target.add_labels(Labels.of([f"row {row}" for row in range(start, stop)]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with one shard that was made in one piece, and its entry."""
    path = tmp_path_factory.mktemp("whole")
    target = ParquetTarget(str(path), "float32")
    target.begin(Manifest(settings=SETTINGS), 2)
    add(target, 0, 9000)
    return path, target.commit(entry(0, 9000))


def test_others_read_it(whole):
    path, shard = whole
    target, manifest = ParquetTarget(str(path), "float32"), Manifest(settings=SETTINGS, shards=(shard,), finished=True)
    target.write_manifest(manifest)
    target.complete(manifest)
    target.complete(manifest)
    target.check(manifest)
    table = pyarrow.dataset.dataset(path).to_table()
    assert table.column_names == ["name", "embedding", "error"]
    assert table["embedding"].null_count == 2
    assert table["error"].drop_null().to_pylist() == ["FileMissingError: gone", "FileMissingError: gone \\udcff"]
    np.testing.assert_array_equal(table["embedding"][:5000].combine_chunks().flatten(), ROWS[:5000].ravel())
    assert pyarrow.parquet.read_table(path / "_errors.parquet")["row"].to_pylist() == [5000, 8999]
    assert list(target.names_of(manifest, shard))[8998:] == ["row 8998", "row 8999"]


@given(cuts=st.lists(st.integers(1, 8999), max_size=4, unique=True), kept=st.sets(st.integers(0, 3)))
def test_the_bytes_are_the_same_however_it_was_made(whole, cuts, kept, tmp_path_factory):
    path = tmp_path_factory.mktemp("parts")
    target, manifest = ParquetTarget(str(path), "float32"), Manifest(settings=SETTINGS)
    places = [0, *sorted(cuts), 9000]
    target.begin(manifest, 2)
    for number, (start, stop) in enumerate(pairwise(places)):
        add(target, start, stop)
        if number in kept and stop < 9000:
            contents = bytes([number]) * 8 * stop
            manifest = manifest.with_begun(target.keep(entry(0, stop), contents), 2)
            target.check(manifest)
            assert target.contents_of(manifest.begun) == contents
            target.begin(manifest, 2)
    shard = target.commit(entry(0, 9000))
    assert shard == whole[1]
    assert (path / "part-00000.parquet").read_bytes() == (whole[0] / "part-00000.parquet").read_bytes()


def fill(target, manifest):
    [shard] = manifest.shards
    return target.fill(manifest, shard, {row: ROWS[row : row + 1] for row in ERRORS}, {})


def leave_out(target, manifest):
    kept = np.ones(9000, bool)
    kept[::2] = False
    return target.leave_out(manifest, manifest.shards[0], kept)


@pytest.mark.parametrize(("change", "rows"), [(fill, 9000), (leave_out, 4500)])
@pytest.mark.parametrize("killed", [None, "write_manifest", "settle"])
def test_a_shard_is_made_again(tmp_path, monkeypatch, held, change, rows, killed):
    """A kill is before the manifest is written, or after."""
    target = ParquetTarget(str(tmp_path), "float32")
    target.begin(Manifest(settings=SETTINGS), 2)
    add(target, 0, 9000)
    shard = target.commit(entry(0, 9000), bytes(range(250)) * 288)
    manifest = Manifest(settings=SETTINGS, shards=(shard,), finished=True, width=2)
    target.write_manifest(manifest)
    before = held(tmp_path)
    if killed is None:
        then = change(target, manifest)
    else:
        with monkeypatch.context() as patched:
            patched.setattr(target, killed, die)
            with pytest.raises(KeyboardInterrupt):
                change(target, manifest)
        assert list(tmp_path.glob("_again-*"))
        then = target.settle(target.read_manifest())
        target.check(then)
    if killed == "write_manifest":
        assert held(tmp_path) == before
        return
    assert target.read_manifest() == then
    assert (then.rows, then.failed) == (rows, 0 if change is fill else 1)
    assert list(target.failures(then, then.shards[0])) == ([] if change is fill else [4499])
    assert len(list(target.names_of(then, then.shards[0]))) == rows
    assert len(target.contents_of(then.shards[0])) == rows * 8
    assert set(held(tmp_path)) == set(before)


def die(*_):
    raise KeyboardInterrupt


def test_what_is_dropped_leaves_nothing(tmp_path):
    target = ParquetTarget(str(tmp_path), "float16")
    target.begin(Manifest(settings=SETTINGS), 2)
    add(target, 0, 5000)
    target.drop()
    target.drop()
    assert list(tmp_path.iterdir()) == []
