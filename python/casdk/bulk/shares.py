"""Runs that make one folder together, each a share of its shards, with a manifest and a lock of its own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Final

from casdk._calls.space import Space
from casdk.bulk.folders import EMBEDDING, RUN_FILES, SHARE_MANIFEST, FolderTarget
from casdk.bulk.manifest import DIGEST_BYTES, Input, Manifest, Settings, Share, read_manifest
from casdk.bulk.shards import ParquetTarget
from casdk.bulk.storage import Storage
from casdk.bulk.targets import Held
from casdk.errors import BulkError

__all__ = [
    "Reading",
    "ShareTarget",
    "SharedFolder",
    "check_alike",
    "common_of",
    "read_shares",
    "remove_shares",
    "shares_in",
]

LEFT_BEFORE: Final = re.compile(r"_lock|_lock\.\d+-of-\d+|_casdk\.\d+-of-\d+\.json(\.tmp)?")
"""Files that the runs of other shares may have in the folder before this run has its manifest."""


class Reading:
    """How far a run has read its input, and a digest of all items so far, to compare the inputs of several runs.

    Args:
        shard_rows: Number of items in a full shard.

    Attributes:
        shards: Number of shards that were read, including those that other runs make.
        ended: Whether the input has ended.
    """

    def __init__(self, shard_rows: int) -> None:
        self.shards: int = 0
        self.ended: bool = False
        self._shard_rows = shard_rows
        self._items = 0
        self._digest = hashlib.blake2b(digest_size=DIGEST_BYTES)

    def add(self, rows: int, digest: str) -> None:
        """Add the next shard that was read; if it has fewer items than a full shard, the input has ended."""
        self.ended = rows < self._shard_rows
        if rows:
            self.shards += 1
            self._items += rows
            self._digest.update(digest.encode())

    @property
    def input(self) -> Input:
        """The input, as far as it was read."""
        return Input(items=self._items, digest=self._digest.hexdigest())


class SharedFolder(FolderTarget):
    """A folder of which this run makes one share of the shards. It is a base class, to be combined with a layout.

    Args:
        storage: The folder.
        dtype: ``float32`` or ``float16``.
        share: The shards of this run.
        columns: The names of the matrices in the layout.
    """

    def __init__(self, storage: str | Storage, dtype: str, share: Share, columns: tuple[str, ...] = EMBEDDING) -> None:
        super().__init__(storage, dtype, columns)
        self._share = share
        self.manifest_name: str = f"_casdk.{share.index}-of-{share.of}.json"

    def _acquire(self) -> Held:
        return self.storage.lock_share(f"{self._share.index}-of-{self._share.of}")

    def read_manifest(self) -> Manifest | None:
        """Return the manifest of this run; ``None`` if it has none.

        Raises:
            BulkError: The folder is finished or of a run without a share, or other runs make another number of shares.
        """
        if self.is_whole:
            raise BulkError(f"{self.name} is whole, or of a run without shard=: leave that out to check it or go on")
        for name, other in shares_in(self.storage):
            if other.of != self._share.of:
                where = self.storage.where(name)
                raise BulkError(f"{where} is of a run that shares {self.name} with {other.of - 1} others: keep to that")
        return super().read_manifest()

    def foreign_files(self) -> Iterator[str]:
        """Yield the files in the folder that belong to no run with a share of it."""
        found = self._found()
        # A run writes its manifest before any other file, so the manifests are looked for after the files.
        begun = bool(shares_in(self.storage))
        for name in found:
            if not LEFT_BEFORE.fullmatch(name) and not (begun and RUN_FILES.fullmatch(name)):
                yield self.storage.where(name)

    def complete(self, manifest: Manifest) -> None:
        """Remove beginnings of shards; `casdk.bulk.merge` gives the whole folder its final form."""
        self._remove_begun(manifest)

    def _makes(self, number: int) -> bool:
        return self._share.makes(number)

    def _remove_begun(self, manifest: Manifest) -> None:
        for number in range(manifest.next_number + 1):
            if self._share.makes(number):
                self.storage.remove(*self._begun(number))


class ShareTarget(SharedFolder, ParquetTarget):
    """A share of a folder of Parquet files."""


def shares_in(storage: Storage) -> list[tuple[str, Share]]:
    """Return the names of the manifests of shares in a storage, each with its share, in the order of the shares."""
    matches = {name: SHARE_MANIFEST.fullmatch(name) for name in storage.names()}
    found = [(name, Share(index=int(match[1]), of=int(match[2]))) for name, match in matches.items() if match]
    return sorted(found, key=lambda one: (one[1].of, one[1].index))


def remove_shares(storage: Storage) -> None:
    """Remove the manifests and locks of shares, when a manifest of the whole folder has taken their place."""
    for name, _ in shares_in(storage):
        storage.remove(name, name.removesuffix(".json").replace("_casdk", "_lock"))


def read_shares(storage: Storage) -> list[Manifest]:
    """Return the manifests of the runs that make a folder together, in order."""
    return [read_manifest(storage.read_manifest(name), storage.where(name)) for name, _ in shares_in(storage)]


def check_alike(name: str, manifests: list[Manifest]) -> int:
    """Check that the runs that make the shares of a folder agree, whether or not they are finished.

    Args:
        name: The folder.
        manifests: The manifests of these runs, at least one.

    Returns:
        How many runs there are to be.

    Raises:
        BulkError: They have other options, or rows of another model.
    """
    first = manifests[0]
    shares = [manifest.share for manifest in manifests if manifest.share is not None]
    of = shares[0].of
    space = next((manifest.space for manifest in manifests if manifest.space is not None), None)
    for manifest, share in zip(manifests, shares, strict=True):
        if share.of != of:
            raise BulkError(f"{name} holds runs that make one of {of} shares, and runs that make one of {share.of}")
        both = f"of {name}, shard {shares[0]} was made"
        for option in Settings.__struct_fields__:
            one, other = getattr(first.settings, option), getattr(manifest.settings, option)
            # A batch size that was found by measuring may differ, because each run measures for itself.
            was_found = option == "batch_size" and (first.prefetch or manifest.prefetch)
            if one != other and not was_found:
                raise BulkError(f"{both} with {option}={one!r}, and shard {share} with {other!r}")
        if manifest.space is not None and space is not None:
            reason = Space.read(manifest.space, "space").difference(Space.read(space, "space"))
            if reason:
                raise BulkError(f"{both} with another model than shard {share}: {reason}")
    widths = {manifest.width for manifest in manifests if manifest.width}
    if len(widths) > 1:
        raise BulkError(f"{name} has rows of {' and of '.join(map(str, sorted(widths)))} numbers: of two models")
    return of


def common_of(manifests: list[Manifest]) -> Manifest:
    """Return a manifest without shards that has what the runs of a folder have in common.

    Batch size and requests in flight are those of the first run that has found them by measuring.

    Args:
        manifests: The manifests of the runs, which `check_alike` has compared.
    """
    found = next((manifest for manifest in manifests if manifest.prefetch is not None), manifests[0])
    return Manifest(
        settings=found.settings,
        prefetch=found.prefetch,
        space=next((manifest.space for manifest in manifests if manifest.space is not None), None),
        width=max(manifest.width for manifest in manifests),
    )
