"""What all targets have in common: a lock, a manifest, and a look at what lies in their place."""

import numpy as np
import pytest
from casdk import BulkError, FileMissingError
from casdk.bulk.manifest import Manifest, Settings
from casdk.bulk.matrix import MatrixTarget
from casdk.bulk.shards import ParquetTarget
from casdk.bulk.targets import described, in_dtype, remove

SETTINGS = Settings(shard_rows=4, batch_size=2, dtype="float32", normalize=False)


@pytest.fixture
def made(target):
    return (MatrixTarget if target.suffix else ParquetTarget)(str(target), "float32")


def test_a_manifest_makes_it_ours(made, target):
    with_lock = made.lock()
    assert made.read_manifest() is None
    assert list(made.foreign_files()) == []
    made.write_manifest(Manifest(settings=SETTINGS))
    assert made.read_manifest() == Manifest(settings=SETTINGS)
    with pytest.raises(BulkError, match="is being written"):
        made.lock()
    with_lock.release()
    made.clear()
    assert made.read_manifest() is None


def test_there_has_to_be_a_folder_for_it(target):
    kind = MatrixTarget if target.suffix else ParquetTarget
    with pytest.raises(BulkError, match="cannot be written: No such file"):
        kind(str(target.parent / "none" / target.name), "float32").lock()


def test_what_is_gone_may_be_removed(tmp_path):
    remove(tmp_path / "none")


def test_an_error_is_described():
    assert described(FileMissingError(3, "a.png", "it does not exist")) == "FileMissingError: it does not exist"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("received", ["float32", "float16"])
def test_rows_are_stored_in_the_dtype_of_the_target(received, dtype):
    rows = np.random.default_rng(7).standard_normal((6, 8)).astype(received)
    every_second = in_dtype(rows[::2], dtype)
    assert every_second.flags.c_contiguous
    assert every_second.dtype == dtype
    np.testing.assert_array_equal(every_second, rows[::2].astype(dtype))
