"""A ``.npy`` target: rows where they belong, names and errors beside it, cut to what its manifest says."""

import numpy as np
import pytest
from casdk import FileMissingError
from casdk.bulk.manifest import Manifest, Settings, Shard
from casdk.bulk.matrix import MatrixTarget

SETTINGS = Settings(shard_rows=4, batch_size=2, dtype="float32", normalize=False)


def entry(number, rows):
    return Shard(number=number, rows=rows, failed=0, items="", files={}, checksum="")


@pytest.fixture
def matrix(tmp_path):
    return MatrixTarget(str(tmp_path / "rows.npy"), "float32")


def rows(start, count):
    return np.arange(start, start + 3 * count, dtype=np.float32).reshape(count, 3)


def test_shards_follow_each_other(matrix, tmp_path):
    manifest = Manifest(settings=SETTINGS)
    matrix.begin(manifest, 3)
    matrix.add(["a", "b"], rows(0, 2), {})
    matrix.add(["c", "d"], rows(6, 2), {1: FileMissingError(9, "d", "gone: \udcff")})
    manifest = manifest.with_shard(matrix.commit(entry(0, 4)), 3)
    matrix.begin(manifest, 3)
    matrix.add(["lost"], rows(50, 1), {})
    matrix.drop()  # as a kill does
    matrix.begin(manifest, 3)
    matrix.add(["e"], rows(12, 1), {})
    manifest = manifest.with_shard(matrix.commit(entry(1, 1)), 3).with_end()
    assert list(matrix.names_of(manifest, manifest.shards[1])) == ["e"]
    for _ in range(2):  # a run that is killed in the middle does it again
        matrix.complete(manifest)
        matrix.check(manifest)
        np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), rows(0, 5))
    assert list(matrix.names_of(manifest, manifest.shards[0])) == ["a", "b", "c", "d"]
    [failed] = (tmp_path / "rows.errors.jsonl").read_text().splitlines()
    assert '"row": 3' in failed
    assert "gone" in failed
    words = rows(0, 4).tobytes()
    assert int(manifest.shards[0].checksum, 16) == int(np.frombuffer(words, "<u8").sum())


def test_what_is_kept_can_be_read_and_gone_on_with(matrix, tmp_path):
    manifest = Manifest(settings=SETTINGS)
    matrix.begin(manifest, 3)
    matrix.add(["a", "b"], rows(0, 2), {})
    manifest = manifest.with_begun(matrix.keep(entry(0, 2)), 3)
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy.part"), rows(0, 2))
    matrix.check(manifest)
    matrix.begin(manifest, 3)
    matrix.add(["c", "d"], rows(6, 2), {})
    kept = matrix.commit(entry(0, 4))
    whole = MatrixTarget(str(tmp_path / "whole.npy"), "float32")
    whole.begin(Manifest(settings=SETTINGS), 3)
    whole.add(["a", "b", "c", "d"], rows(0, 4), {})
    assert whole.commit(entry(0, 4)) == kept
