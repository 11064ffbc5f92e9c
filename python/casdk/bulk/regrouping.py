"""A folder that was begun by one run, or by several, and is finished by another number of them: what is made, stays."""

from __future__ import annotations

from typing import Final

import msgspec

from casdk.bulk.folders import FolderTarget
from casdk.bulk.manifest import Manifest, Shard, Share
from casdk.bulk.shards import ParquetTarget
from casdk.bulk.shares import ShareTarget, check_alike, common_of, read_shares, remove_shares, shares_in
from casdk.errors import BulkError

__all__ = ["WholeFolder", "WholeTarget", "hand_out"]

DTYPE: Final = "float32"
"""The dtype of a target that is opened only to read its manifests, which have the true dtype of its rows."""


class WholeFolder(FolderTarget):
    """A folder that a single run makes, or continues after several runs: it takes over what these have made.

    While there is a manifest of the whole, the manifests of the shares do not count. It is combined with a layout.
    """

    def read_manifest(self) -> Manifest | None:
        """Return the manifest of the whole, or one that is put together from those of the shares.

        Raises:
            BulkError: A manifest is not of a run of this kind, or those of the shares do not fit together.
        """
        whole = super().read_manifest()
        if whole is None and (manifests := read_shares(self.storage)):
            return _gathered(self.name, manifests)
        return whole

    def read_manifests(self) -> list[Manifest]:
        """Return its manifest, or those of the runs that each make a share of it."""
        whole = super().read_manifest()
        return read_shares(self.storage) if whole is None else [whole]

    def complete(self, manifest: Manifest) -> None:
        """Give it its final form, and remove the manifests and locks of the shares."""
        super().complete(manifest)
        remove_shares(self.storage)


class WholeTarget(WholeFolder, ParquetTarget):
    """A folder of Parquet files that a single run makes or continues."""


def hand_out(path: str, of: int, *, resume: bool = True, overwrite: bool = False) -> bool:
    """Divide a folder, with everything that was made of it before, among a number of runs; engines call it first.

    If it is killed, it can be called again: the manifest of the whole counts until those of all shares exist.

    Args:
        path: The folder, which need not exist.
        of: The number of runs.
        resume: Whether to continue a folder that was begun.
        overwrite: Whether to begin again.

    Returns:
        Whether there is anything to do; a finished folder is left as it is.

    Raises:
        BulkError: A process is writing the folder, or it must not be continued; nothing was changed.
    """
    target = WholeTarget(path, DTYPE)
    lock = target.lock()
    try:
        if overwrite:
            target.clear()
        manifest = target.read_manifest()
        if manifest is None or manifest.finished:
            return manifest is None
        manifest.check_order(path)
        if not resume:
            raise BulkError(f"{path} was begun before: resume=True goes on, overwrite=True begins again")
        if target.is_whole or any(share.of != of for _, share in shares_in(target.storage)):
            target.write_manifest(manifest)
            remove_shares(target.storage)
            for index in range(of):
                share = Share(index=index, of=of)
                ShareTarget(target.storage, DTYPE, share).write_manifest(_part_of(manifest, share))
            target.forget()
        return True
    finally:
        lock.release()


def _gathered(name: str, manifests: list[Manifest]) -> Manifest:
    """Return a manifest of everything that several runs have made, for a single run that continues.

    Raises:
        BulkError: Their manifests do not fit together.
    """
    check_alike(name, manifests)
    made = {shard.number: shard for manifest in manifests for shard in (*manifest.shards, *manifest.ahead)}
    begun = {manifest.begun.number: manifest.begun for manifest in manifests if manifest.begun is not None}
    return _with(common_of(manifests), made, begun)


def _part_of(whole: Manifest, share: Share) -> Manifest:
    """Return the manifest of a run that makes one share, with the shards of that share that exist already."""
    made = {shard.number: shard for shard in (*whole.shards, *whole.ahead) if share.makes(shard.number)}
    begun = {} if whole.begun is None else {whole.begun.number: whole.begun}
    part = msgspec.structs.replace(whole, share=share, finished=False, shards=(), begun=None, ahead=())
    return _with(part, made, begun)


def _with(manifest: Manifest, made: dict[int, Shard], begun: dict[int, Shard]) -> Manifest:
    """Return a manifest with shards: the consecutive ones from the first on, and those behind a gap as ``ahead``.

    Of the beginnings of shards it keeps only that of the next shard to make.
    """
    left = dict(sorted(made.items()))
    while (shard := left.pop(manifest.next_number, None)) is not None:
        manifest = manifest.with_shard(shard, manifest.width)
    return msgspec.structs.replace(manifest, begun=begun.get(manifest.next_number), ahead=tuple(left.values()))
