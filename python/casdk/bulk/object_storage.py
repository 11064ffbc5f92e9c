"""The storage of a folder target in an object store: one object per file, written by one request.

`open_storage` chooses it for URLs. It uses `objects.py` for requests, `store_lock.py` and `scratch.py` for locks.
"""

from __future__ import annotations

import mmap
from contextlib import ExitStack
from pathlib import Path, PurePath
from typing import IO, Any

from casdk.bulk.disk import READ_BYTES, Checksum
from casdk.bulk.manifest import read_manifest
from casdk.bulk.objects import Objects, Version, is_same
from casdk.bulk.scratch import Scratch
from casdk.bulk.storage import LOCK, DiskStorage, Locks, Storage, lock_of_share
from casdk.bulk.store_lock import StoreLock, check_silent, taken_over
from casdk.bulk.stores import BLOCK_BYTES, is_url, open_object
from casdk.bulk.targets import Held
from casdk.errors import BulkError, ConfigError

__all__ = ["ObjectStorage", "open_storage", "suffix_of"]


def open_storage(path: str) -> Storage:
    """Return the storage for a path or a URL.

    Raises:
        ConfigError: It is the URL of a web server; or obstore is missing, or its configuration does not suit the store.
    """
    return ObjectStorage(path) if is_url(path) else DiskStorage(path)


def suffix_of(path: str) -> str:
    """Return the suffix of the last part of a path, or of the key in a URL; ``""`` if it has none."""
    if is_url(path):
        path = path.partition("://")[2].partition("/")[2]
    return PurePath(path).suffix


class ObjectStorage(Storage):
    """The objects below a URL in a store.

    Files are prepared on the local disk, in the folder of the lock. Each is uploaded by one request, on the condition
    that no such object exists. If a killed run has left one, the condition is that it is still this one and that the
    manifest is still the one that this process knows. The manifest is written on the latter condition, too.

    Args:
        url: ``s3://``, ``gs://`` or ``az://``, a bucket, and the beginning of the objects' names.

    Raises:
        ConfigError: It is the URL of a web server; or obstore is missing, or its configuration does not suit the store.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url.rstrip("/"))
        if url.startswith("http"):
            raise ConfigError(f"{url}: nothing can be written to a web server: give s3://, gs:// or az://")
        self._objects = Objects(self.name)
        self._scratch: Scratch | None = None
        self._own: StoreLock | None = None
        self._versions: dict[str, Version | None] = {}
        self._names: set[str] = set()

    # who may write

    def lock(self) -> Held:
        with ExitStack() as held:
            self._hold(LOCK, held)
            shares = [name for name in self.sizes() if name.startswith(f"{LOCK}.")]
            self._take_over(check_silent(self._objects, shares))
            return Locks(held.pop_all())

    def lock_share(self, share: str) -> Held:
        with ExitStack() as held:
            # A process that locks the whole also writes its lock before it looks for others, so one of two processes
            # always sees the other.
            self._hold(lock_of_share(share), held)
            self._take_over(check_silent(self._objects, [LOCK]))
            self.sizes()
            return Locks(held.pop_all())

    def _hold(self, name: str, held: ExitStack) -> None:
        """Take a lock, which is released when the stack is closed."""
        scratch = Scratch(self.name, name)
        try:
            lock = StoreLock(self._objects, name, scratch)
        except BaseException:
            scratch.release(forget=False)
            raise
        held.callback(lambda: scratch.release(forget=lock.release()))
        self._scratch, self._own = scratch, lock
        if lock.took_over:
            self._fence(name)

    def _take_over(self, locks: list[str]) -> None:
        """Remove locks that killed processes have left behind."""
        for name in locks:
            self._fence(name)
            self._objects.delete(name)

    def _fence(self, lock: str) -> None:
        """Change the version of the manifest, so that the writes of a process that was only suspended are refused.

        It adds a line break, which the next manifest does not have. The manifest of a finished run is left as it is.
        """
        manifest = f"{lock.replace(LOCK, '_casdk')}.json"
        while (found := self._objects.find(manifest)) is not None and not _is_finished(found.data):
            if self._objects.put(manifest, found.data + b"\n", found.version) is not None:
                return

    def _check_held(self) -> None:
        """Check that this process is still the one that writes here.

        Raises:
            BulkError: Another one is.
        """
        if self._own is not None:
            self._own.check()
        for name, version in self._versions.items():
            found = self._objects.head(name)
            if version is not None and (found is None or not is_same(found[1], version)):
                raise taken_over(self.name)

    @property
    def scratch(self) -> Path:
        assert self._scratch is not None, "who writes has a lock"
        return self._scratch.path

    # what is there

    def exists(self) -> bool:
        return bool(self._objects.sizes())

    def sizes(self) -> dict[str, int]:
        found = self._objects.sizes()
        self._names = set(found)
        return found

    def beginning(self, with_: str) -> list[str]:
        """Return names of files that only this process makes; it knows them without listing the store."""
        return sorted(name for name in self._names if name.startswith(with_))

    def size_of(self, name: str) -> int | None:
        found = self._objects.head(name)
        return None if found is None else found[0]

    def where(self, name: str) -> str:
        return self._objects.where(name)

    def open(self, name: str) -> IO[bytes]:
        return open_object(self.where(name), BLOCK_BYTES)

    def for_arrow(self, name: str) -> Any:
        return open_object(self.where(name))

    def checksum_of(self, name: str) -> str:
        checksum = Checksum()
        with self.open(name) as file:
            while data := file.read(READ_BYTES):
                checksum.add(data)
        return checksum.text

    # what is written

    def take_in(self, path: Path, name: str) -> None:
        if path.stat().st_size:
            # A shard that is mapped takes no memory of the process, because the system can drop its pages. The map is
            # not closed here: after an error, the error's traceback may still refer to it.
            with path.open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._put(name, data)
        else:
            self._put(name, b"")
        path.unlink()

    def write(self, name: str, data: bytes) -> None:
        self._put(name, data)

    def _put(self, name: str, data: Any) -> None:
        version: Version | None = None
        self._names.add(name)
        while self._objects.put(name, data, version) is None:
            self._check_held()
            found = self._objects.head(name)
            version = None if found is None else found[1]

    def rename(self, old: str, new: str) -> None:
        self._objects.copy(old, new)
        self._names.add(new)
        self.remove(old)

    def remove(self, *names: str) -> None:
        self._objects.delete(*(name for name in names if name in self._names))
        self._names.difference_update(names)
        for name in names:
            self._versions.pop(name, None)

    # the manifest

    def read_manifest(self, name: str) -> bytes:
        found = self._objects.find(name)
        self._versions[name] = None if found is None else found.version
        if found is None:
            raise FileNotFoundError(name)
        return found.data

    def write_manifest(self, name: str, data: bytes) -> None:
        if self._own is not None:
            self._own.check()
        self._names.add(name)
        version = self._objects.put(name, data, self._versions.get(name))
        if version is None:
            # Perhaps the answer to the request was lost, and it was repeated: then the object is ours.
            found = self._objects.find(name)
            if found is None or found.data != data:
                raise taken_over(self.name)
            version = found.version
        self._versions[name] = version


def _is_finished(manifest: bytes) -> bool:
    """Whether a manifest is finished; also true for an object that is no manifest, so that it is left as it is."""
    try:
        return read_manifest(manifest, "").finished
    except BulkError:
        return True
