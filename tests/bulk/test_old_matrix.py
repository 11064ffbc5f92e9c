"""What is read of a matrix that a new one is going to replace."""

import numpy as np
from casdk import FileMissingError
from casdk.bulk.items import keys_of
from casdk.bulk.manifest import Manifest, Settings, Shard
from casdk.bulk.matrix import MatrixTarget
from casdk.bulk.work import Labels

SETTINGS = Settings(shard_rows=3, batch_size=2, dtype="float32", normalize=False)
NAMES = ["a", "b", "c", "d"]
CONTENTS = bytes(range(32))


def test_its_items_and_rows(tmp_path):
    """Items that have failed are none that an input has."""
    target, manifest = MatrixTarget(str(tmp_path / "rows.npy"), "float32"), Manifest(settings=SETTINGS)
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    for number, (start, stop) in enumerate([(0, 3), (3, 4)]):
        target.begin(manifest, 2)
        errors = {} if number else {1: FileMissingError(1, "b", "gone")}
        target.add(rows[start:stop], errors)
        target.add_labels(Labels.of(NAMES[start:stop]))
        shard = Shard(number=number, rows=stop - start, failed=len(errors), items="", files={}, checksum="")
        shard = target.commit(shard, CONTENTS[8 * start : 8 * stop])
        manifest = manifest.with_shard(shard, 2)
    manifest = manifest.with_end()
    target.write_manifest(manifest)
    target.complete(manifest)
    assert target.read_old_matrix() is None
    new = target.begin_update(manifest)
    assert (new.rows, new.finished) == (0, False)
    before = target.read_old_matrix()
    assert before.manifest == manifest
    np.testing.assert_array_equal(before.rows(1, 3), rows[1:])
    same = before.keys() == keys_of(NAMES, CONTENTS)
    assert same.tolist() == [True, False, True, True]
