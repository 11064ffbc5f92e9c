"""The Parquet file of one shard, made again: filled in it is that of a run in which nothing failed."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from casdk import FileMissingError
from casdk.bulk.disk import checksum_of
from casdk.bulk.manifest import Manifest, Settings, Shard
from casdk.bulk.shard_files import Made, fill_rows, leave_out_rows
from casdk.bulk.shards import ParquetTarget
from casdk.bulk.work import Labels

COUNT, WIDTH = 9000, 2
ROWS = np.random.default_rng(7).standard_normal((COUNT, WIDTH), np.float32)
BAD = [0, 17, 4095, 4096, 8999]


def make(path, bad, dtype):
    """Return a file with errors in some rows."""
    path.mkdir()
    target = ParquetTarget(str(path), dtype)
    settings = Settings(shard_rows=COUNT, batch_size=2, dtype=dtype, normalize=False)
    target.begin(Manifest(settings=settings), WIDTH)
    target.add(ROWS, {row: FileMissingError(0, "x", "gone") for row in bad})
    target.add_labels(Labels.of([f"row {row}" for row in range(COUNT)]))
    shard = target.commit(Shard(number=0, rows=COUNT, failed=len(bad), items="", files={}, checksum=""))
    [name] = shard.files
    return path / name, shard


def schema(dtype):
    number = pyarrow.from_numpy_dtype(np.dtype(dtype))
    return pyarrow.schema(
        [("name", pyarrow.string()), ("embedding", pyarrow.list_(number, WIDTH)), ("error", pyarrow.string())]
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("left", [[], [17, 8999]])
def test_rows_are_filled_in(tmp_path, dtype, left):
    old, _ = make(tmp_path / "old", BAD, dtype)
    whole, shard = make(tmp_path / "whole", left, dtype)
    rows = {row: ROWS[row : row + 1] for row in BAD if row not in left}
    made = fill_rows(pyarrow, old, tmp_path / "new", schema(dtype), rows, {})
    assert (tmp_path / "new").read_bytes() == whole.read_bytes()
    [size] = shard.files.values()
    assert made == Made(COUNT, len(left), size, shard.checksum)


def test_another_error_is_written_down(tmp_path):
    old, _ = make(tmp_path / "old", BAD, "float32")
    fill_rows(pyarrow, old, tmp_path / "new", schema("float32"), {}, {17: "another"})
    said = pyarrow.parquet.read_table(tmp_path / "new")["error"]
    assert (said[17].as_py(), said[0].as_py()) == ("another", "FileMissingError: gone")


def test_rows_are_left_out(tmp_path):
    old, _ = make(tmp_path / "old", BAD, "float32")
    kept = np.random.default_rng(3).random(COUNT) < 0.5
    kept[:4096] = False
    made = leave_out_rows(pyarrow, old, tmp_path / "new", schema("float32"), kept)
    table = pyarrow.parquet.read_table(tmp_path / "new")
    assert table["name"].to_pylist() == [f"row {row}" for row in np.flatnonzero(kept)]
    assert (made.rows, made.failed) == (kept.sum(), sum(kept[row] for row in BAD))
    assert made.checksum == checksum_of(tmp_path / "new")
    good = [row for row in np.flatnonzero(kept) if row not in BAD]
    np.testing.assert_array_equal(table["embedding"].drop_null().combine_chunks().flatten(), ROWS[good].ravel())


def test_an_error_on_the_way_leaves_no_file(tmp_path):
    old, _ = make(tmp_path / "old", BAD, "float32")
    with pytest.raises(pyarrow.ArrowInvalid):
        leave_out_rows(pyarrow, old, tmp_path / "new", schema("float32"), np.zeros(3, bool))
    assert not (tmp_path / "new").exists()
