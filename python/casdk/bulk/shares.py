"""Runs that make one folder together, each a share of its shards: what each has to itself, and what it has read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from casdk.bulk.disk import Lock
from casdk.bulk.manifest import DIGEST_BYTES, Input, Manifest, Share
from casdk.bulk.shards import OURS, SHARE_MANIFEST, ParquetTarget
from casdk.bulk.targets import remove
from casdk.errors import BulkError

__all__ = ["Reading", "ShareTarget", "shares_in"]

LEFT_BEFORE: Final = re.compile(r"_lock|_lock\.\d+-of-\d+|_casdk\.\d+-of-\d+\.json(\.tmp)?")
"""What the runs of other shares may have in the folder before a run has its manifest."""


class Reading:
    """How far a run has read its input, and a digest of all of it: equal for two runs that have read the same.

    Args:
        shard_rows: Items in a shard.

    Attributes:
        shards: Shards that were read, also those that other runs make.
        ended: Whether the input has ended.
    """

    def __init__(self, shard_rows: int) -> None:
        self.shards: int = 0
        self.ended: bool = False
        self._shard_rows = shard_rows
        self._items = 0
        self._digest = hashlib.blake2b(digest_size=DIGEST_BYTES)

    def add(self, rows: int, digest: str) -> None:
        """Count in the items of the next shard; none, or not as many as a shard has, are the last ones."""
        self.ended = rows < self._shard_rows
        if rows:
            self.shards += 1
            self._items += rows
            self._digest.update(digest.encode())

    @property
    def input(self) -> Input:
        """What was read."""
        return Input(items=self._items, digest=self._digest.hexdigest())


class SharedLock:
    """The lock of one run among several: nobody else has the share, and nobody has all of the folder.

    Args:
        target: The folder, as it was named.
        whole: The lock file of the folder, which stays for the runs that are still there.
        own: That of the share.

    Raises:
        BulkError: Somebody has it.
    """

    def __init__(self, target: str, whole: Path, own: Path) -> None:
        with ExitStack() as held:
            among = Lock(whole, target, shared=True)
            held.callback(among.release)
            mine = Lock(own, target)
            held.callback(mine.release)
            self._held = held.pop_all()

    def release(self) -> None:
        """Give both back."""
        self._held.close()


class ShareTarget(ParquetTarget):
    """A folder of Parquet files of which this run makes a share, while others may make theirs.

    Args:
        path: The folder.
        dtype: ``float32`` or ``float16``.
        share: Which shards are made.
    """

    def __init__(self, path: str, dtype: str, share: Share) -> None:
        super().__init__(path, dtype)
        self._share = share
        self._whole_manifest, self._whole_lock = self.manifest_path, self.lock_path
        self.manifest_path: Path = self.path / f"_casdk.{share.index}-of-{share.of}.json"
        self.lock_path: Path = self.path / f"_lock.{share.index}-of-{share.of}"

    def _acquire(self) -> SharedLock:
        return SharedLock(self.name, self._whole_lock, self.lock_path)

    def read_manifest(self) -> Manifest | None:
        """Return what this run has made.

        Raises:
            BulkError: The folder is one that it cannot be made in.
        """
        if self._whole_manifest.exists():
            raise BulkError(f"{self.name} is whole, or of a run without shard=: leave that out to check it or go on")
        for path, other in shares_in(self.path):
            if other.of != self._share.of:
                raise BulkError(f"{path} is of a run that shares {self.name} with {other.of - 1} others: keep to that")
        return super().read_manifest()

    def foreign_files(self) -> Iterator[Path]:
        """Yield what lies in the folder and is of no run that makes a share of it."""
        found = self._found()
        # A run has its manifest before it makes anything, so this has to be looked for after the files.
        begun = bool(shares_in(self.path))
        for path in found:
            if not LEFT_BEFORE.fullmatch(path.name) and not (begun and OURS.fullmatch(path.name)):
                yield path

    def complete(self, manifest: Manifest) -> None:
        """Leave the files of the whole to `casdk.bulk.merge`."""
        self._remove_begun(manifest)

    def _makes(self, number: int) -> bool:
        return self._share.makes(number)

    def _remove_begun(self, manifest: Manifest) -> None:
        for number in range(manifest.next_number + 1):
            if self._share.makes(number):
                for path in self.path.glob(f"_begun-{number:05d}-*.parquet"):
                    remove(path)


def shares_in(folder: Path) -> list[tuple[Path, Share]]:
    """Return the manifests of shares that are in a folder, in order, and of which share each is."""
    names = {path: SHARE_MANIFEST.fullmatch(path.name) for path in folder.glob("_casdk.*.json")}
    found = [(path, Share(index=int(name[1]), of=int(name[2]))) for path, name in names.items() if name]
    return sorted(found, key=lambda one: (one[1].of, one[1].index))
