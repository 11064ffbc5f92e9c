"""A ``.npy`` target: rows where they belong, names and errors beside it, cut to what its manifest says."""

import msgspec
import numpy as np
import pytest
from casdk import FileMissingError
from casdk.bulk.manifest import Manifest, Settings, Shard
from casdk.bulk.matrix import MatrixTarget
from casdk.bulk.work import Labels

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
    matrix.add(rows(0, 2), {})
    matrix.add(rows(6, 2), {1: FileMissingError(9, "d", "gone: \udcff")})
    matrix.add_labels(Labels.of(["a", "b", "c"]))
    matrix.add_labels(Labels.of(["d"]))
    manifest = manifest.with_shard(matrix.commit(entry(0, 4)), 3)
    matrix.begin(manifest, 3)
    matrix.add(rows(50, 1), {0: GONE})
    matrix.drop()  # as a kill does
    matrix.begin(manifest, 3)
    matrix.add(rows(12, 1), {})
    matrix.add_labels(Labels.of(["e"]))
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


GONE = FileMissingError(0, "x", "gone")


def fill(matrix, left=None):
    """Make a matrix of two shards and a beginning, with errors in each, and fill in a row of the first one."""
    manifest = Manifest(settings=SETTINGS)
    for number, count in enumerate((4, 4, 1)):
        matrix.begin(manifest, 3)
        matrix.add(rows(12 * number, count), {0: GONE, count - 1: GONE})
        matrix.add_labels(Labels.of([f"{number}{row}" for row in range(count)]))
        shard = msgspec.structs.replace(entry(number, count), failed=min(count, 2))
        if number < 2:
            manifest = manifest.with_shard(matrix.commit(shard), 3)
        else:
            manifest = manifest.with_begun(matrix.keep(shard), 3)
    matrix.write_manifest(manifest)
    assert matrix.failures(manifest, manifest.shards[1]) == dict.fromkeys((0, 3), "FileMissingError: gone")
    if left is not None:
        left(manifest)
    errors = {0: "OtherError: longer than it was"}
    return matrix.fill(manifest, manifest.shards[1], {3: np.float64([[7, 8, 9]])}, errors)


def check_filled(matrix, manifest, tmp_path):
    assert (manifest.failed, manifest.shards[1].failed) == (4, 1)
    assert matrix.read_manifest() == manifest
    matrix.check(manifest)
    found = np.load(tmp_path / "rows.npy.part")
    np.testing.assert_array_equal(found[7], [7, 8, 9])
    np.testing.assert_array_equal(np.delete(found, 7, axis=0), np.delete(rows(0, 9), 7, axis=0)[: len(found) - 1])
    words = np.frombuffer(found[4:8].tobytes(), "<u8")
    assert int(manifest.shards[1].checksum, 16) == int(words.sum(dtype=np.uint64))
    said = [list(matrix.failures(manifest, shard).values()) for shard in manifest.entries]
    gone = "FileMissingError: gone"
    assert said == [[gone, gone], ["OtherError: longer than it was"], [gone]]


def test_a_row_is_filled_in(matrix, tmp_path):
    check_filled(matrix, fill(matrix), tmp_path)
    assert not list(tmp_path.glob("*filling*"))


def test_what_was_filled_in_by_half_is_filled_in(matrix, tmp_path, monkeypatch):
    """As a kill leaves it: what is to become of it is on disk, and nothing of it is done."""
    with monkeypatch.context() as patched:
        patched.setattr(matrix, "settle", lambda manifest: manifest)
        fill(matrix)
    assert matrix.read_manifest().failed == 5
    for _ in range(2):
        check_filled(matrix, matrix.settle(matrix.read_manifest()), tmp_path)


def test_what_was_only_prepared_is_forgotten(matrix, tmp_path):
    def leave(manifest):
        (tmp_path / "rows.errors.jsonl.filling").write_bytes(b"half")
        (tmp_path / "_rows.npy.filling.tmp").write_bytes(b"half")
        assert matrix.settle(manifest) == manifest

    fill(matrix, leave)
    assert not list(tmp_path.glob("*filling*"))


def test_what_is_kept_can_be_read_and_gone_on_with(matrix, tmp_path):
    manifest = Manifest(settings=SETTINGS)
    matrix.begin(manifest, 3)
    matrix.add(rows(0, 2), {})
    matrix.add_labels(Labels.of(["a", "b"]))
    manifest = manifest.with_begun(matrix.keep(entry(0, 2)), 3)
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy.part"), rows(0, 2))
    matrix.check(manifest)
    matrix.begin(manifest, 3)
    matrix.add(rows(6, 2), {})
    matrix.add_labels(Labels.of(["c", "d"]))
    kept = matrix.commit(entry(0, 4))
    whole = MatrixTarget(str(tmp_path / "whole.npy"), "float32")
    whole.begin(Manifest(settings=SETTINGS), 3)
    whole.add(rows(0, 4), {})
    whole.add_labels(Labels.of(["a", "b", "c", "d"]))
    assert whole.commit(entry(0, 4)) == kept
