"""Folders for files on their way into a store: one process has each, and it is known of one that was killed."""

import tempfile

import pytest
from casdk import BulkError
from casdk.bulk.scratch import Scratch, tokens_left

URL = "s3://bucket/rows"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_who_has_ended_is_known_by_its_token(tmp_path):
    first = Scratch(URL, "_lock")
    first.note("one")
    (first.path / "part.tmp").write_bytes(b"x")
    for refused in (lambda: Scratch(URL, "_lock"), lambda: tokens_left(URL, "_lock")):
        with pytest.raises(BulkError, match="is being written by another process"):
            refused()
    assert tokens_left(URL, "_lock.0-of-2") == tokens_left("s3://bucket/other", "_lock") == set()
    first.release(forget=False)  # as the system does with the lock of a process that is killed
    assert tokens_left(URL, "_lock") == {"one"}
    (first.path / "part.tmp").write_bytes(b"left behind")
    second = Scratch(URL, "_lock")
    second.note("two")
    assert second.tokens == {"one"}
    assert not (second.path / "part.tmp").exists()
    second.release(forget=True)
    assert list(tmp_path.iterdir()) == []


def test_another_endpoint_is_another_place(monkeypatch):
    first = Scratch(URL, "_lock")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    second = Scratch(URL, "_lock")
    assert first.path != second.path
    first.release(forget=True)
    second.release(forget=True)


def test_a_folder_that_others_may_look_into_is_refused():
    scratch = Scratch(URL, "_lock")
    scratch.release(forget=True)
    scratch.path.mkdir(mode=0o777)
    scratch.path.chmod(0o777)
    with pytest.raises(BulkError, match="is somebody else's: set TMPDIR"):
        Scratch(URL, "_lock")
