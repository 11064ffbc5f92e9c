"""What a run finds of its target."""

import msgspec
import pytest
from casdk import BulkError
from casdk.bulk.manifest import Manifest, Settings
from casdk.bulk.matrix import MatrixTarget
from casdk.bulk.opening import open_manifest
from casdk.bulk.requests import Requests

NEW = Manifest(settings=Settings(shard_rows=4, batch_size=1, dtype="float32", normalize=False))
GO_ON = {"requests": Requests(None, tunes=False), "resume": True, "overwrite": False, "update": False}


@pytest.fixture
def matrix(tmp_path):
    return MatrixTarget(str(tmp_path / "rows.npy"), "float32")


def test_of_a_new_target_the_manifest_comes_first(matrix):
    assert open_manifest(matrix, NEW, **GO_ON) == NEW == matrix.read_manifest()


def test_what_is_there_is_gone_on_with(matrix):
    begun = msgspec.structs.replace(NEW, space=None, width=3)
    matrix.write_manifest(begun)
    assert open_manifest(matrix, NEW, **GO_ON) == begun
    with pytest.raises(BulkError, match="resume=True goes on"):
        open_manifest(matrix, NEW, **{**GO_ON, "resume": False})
    assert open_manifest(matrix, NEW, **{**GO_ON, "overwrite": True}) == NEW


def test_other_options_are_refused(matrix):
    matrix.write_manifest(NEW)
    other = msgspec.structs.replace(NEW, settings=msgspec.structs.replace(NEW.settings, hash=True))
    with pytest.raises(BulkError, match="begun with hash=False, and now it is True"):
        open_manifest(matrix, other, **GO_ON)


def test_a_run_that_may_choose_takes_what_the_target_was_begun_with(matrix):
    matrix.write_manifest(NEW)
    mine = msgspec.structs.replace(NEW, settings=msgspec.structs.replace(NEW.settings, batch_size=32))
    with pytest.raises(BulkError, match="begun with batch_size=1, and now it is 32"):
        open_manifest(matrix, mine, **GO_ON)
    assert open_manifest(matrix, mine, **{**GO_ON, "requests": Requests(None, tunes=True)}) == NEW


def test_what_was_updated_is_for_updates(matrix):
    matrix.write_manifest(NEW.to_update())
    with pytest.raises(BulkError, match="was updated"):
        open_manifest(matrix, NEW, **GO_ON)
    assert open_manifest(matrix, NEW, **{**GO_ON, "update": True}).updated


def test_files_of_others_are_left_alone(matrix):
    matrix.path.write_bytes(b"mine")
    with pytest.raises(BulkError, match="is there, and of no bulk run"):
        open_manifest(matrix, NEW, **GO_ON)
