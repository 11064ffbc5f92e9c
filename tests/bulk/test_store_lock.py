"""The lock of a target in a store: it is renewed while its holder lives, and taken from one that no longer does."""

import tempfile

import pytest
from casdk import BulkError
from casdk.bulk import store_lock
from casdk.bulk.objects import Objects
from casdk.bulk.scratch import Scratch
from casdk.bulk.store_lock import StoreLock, check_silent

NAME = "_lock"


@pytest.fixture
def lock(bucket, tmp_path, monkeypatch):
    """A function that takes the lock as on a machine of its own; what is given back in the end."""
    objects, taken = Objects(f"{bucket.url}/rows"), []

    def go_elsewhere():
        monkeypatch.setattr(tempfile, "tempdir", tempfile.mkdtemp(dir=tmp_path))

    def lock():
        go_elsewhere()
        scratch = Scratch(objects.url, NAME)
        go_elsewhere()
        taken.append(StoreLock(objects, NAME, scratch))
        return taken[-1]

    lock.objects = objects
    yield lock
    for one in taken:
        one.release()


@pytest.fixture
def renews(monkeypatch):
    """A function that says whether locks are renewed, and how long one that is not is waited for."""

    def say(renewed_seconds, silent_seconds):
        monkeypatch.setattr(store_lock, "RENEWED_SECONDS", renewed_seconds)
        monkeypatch.setattr(store_lock, "SILENT_SECONDS", silent_seconds)
        monkeypatch.setattr(store_lock, "LOOK_SECONDS", 0.05)

    return say


def test_one_that_is_renewed_is_held(lock, renews):
    renews(0.1, 1000.0)
    first = lock()
    with pytest.raises(BulkError, match="is being written by another process"):
        lock()
    with pytest.raises(BulkError, match="is being written by another process"):
        check_silent(lock.objects, ["_lock.0-of-2", NAME])
    first.check()
    assert first.release()
    assert check_silent(lock.objects, [NAME]) == []
    assert not lock().took_over


def test_one_that_is_not_renewed_is_taken_over(lock, renews):
    renews(1000.0, 0.2)
    first = lock()
    assert check_silent(lock.objects, [NAME]) == [NAME]
    second = lock()
    assert second.took_over
    held = lock.objects.find(NAME)
    assert first.release()  # it sees that the lock is not its own any more
    assert lock.objects.find(NAME) == held
    lock.objects.put(NAME, b"of nobody", held.version)
    assert lock().took_over


def test_who_has_lost_it_notices(lock, renews):
    renews(0.1, 1000.0)
    first = lock()
    # A process that takes over writes another holder, as `test_one_that_is_not_renewed_is_taken_over` shows.
    while (found := lock.objects.find(NAME)) and lock.objects.put(NAME, b'{"token": "other"}', found.version) is None:
        pass
    first._thread.join(60)
    with pytest.raises(BulkError, match=r"another process, which has taken it over"):
        first.check()
