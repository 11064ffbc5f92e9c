"""What a caller gets of an error: how far the run came, and what to do."""

import pytest
from casdk import BulkError, TransportError
from casdk.bulk.manifest import Manifest, Settings, Shard
from casdk.bulk.result import reported

SETTINGS = Settings(shard_rows=4, batch_size=1, dtype="float32", normalize=False)
SHARD = Shard(number=0, rows=4, failed=1, items="", files={}, checksum="")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BulkError("refused"), "refused"),
        (TransportError("it is gone"), "it is gone; t holds 4 rows, and the same call goes on from there"),
        (OSError(28, "full", "a/b"), "a/b: full; t holds 4 rows, and the same call goes on from there"),
    ],
)
def test_errors_of_ours_become_one_kind(error, said):
    found = reported(error, "t", Manifest(settings=SETTINGS, shards=(SHARD,)))
    assert isinstance(found, BulkError)
    assert (str(found), found.target, found.rows, found.failed) == (said, "t", 4, 1)


def test_errors_of_others_get_a_note():
    error = KeyError("a")
    assert reported(error, "t", Manifest(settings=SETTINGS)) is error
    assert error.__notes__ == ["no row was finished, and the same call goes on from there"]
