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
"""Of a target that is opened for its manifests alone, which say themselves of which type its rows are."""


class WholeFolder(FolderTarget):
    """A folder that one run makes, also where several have begun it: it takes over what they have made.

    While there is a manifest of the whole, the ones of the shares do not count. Beside it stands a layout.
    """

    def read_manifest(self) -> Manifest | None:
        """Return what it holds, whoever has made it.

        Raises:
            BulkError: There is something that no run of this kind has made, or runs have made what does not fit.
        """
        whole = super().read_manifest()
        if whole is None and (manifests := read_shares(self.place)):
            return _gathered(self.name, manifests)
        return whole

    def read_manifests(self) -> list[Manifest]:
        """Return what it holds: its manifest, or those of the runs that each make a share of it."""
        whole = super().read_manifest()
        return read_shares(self.place) if whole is None else [whole]

    def complete(self, manifest: Manifest) -> None:
        """Give it its final form, without what the runs of shares have left."""
        super().complete(manifest)
        remove_shares(self.place)


class WholeTarget(WholeFolder, ParquetTarget):
    """Such a folder of Parquet files."""


def hand_out(path: str, of: int, *, resume: bool = True, overwrite: bool = False) -> bool:
    """Divide a folder among so many runs that make one share each, with what was made of it before.

    Killed at any moment, it can be made again: the manifest of the whole counts until the ones of all shares are there.

    Args:
        path: The folder, which need not be there.
        of: How many runs there are to be.
        resume: Whether to go on with a folder that was begun.
        overwrite: Whether to begin again, whatever is there.

    Returns:
        Whether there is something to be done; a folder that is finished is left as it is.

    Raises:
        BulkError: Somebody is writing it, or it is not to be gone on with; nothing was changed.
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
        if target.is_whole or any(share.of != of for _, share in shares_in(target.place)):
            target.write_manifest(manifest)
            remove_shares(target.place)
            for index in range(of):
                share = Share(index=index, of=of)
                ShareTarget(target.place, DTYPE, share).write_manifest(_part_of(manifest, share))
            target.forget()
        return True
    finally:
        lock.release()


def _gathered(name: str, manifests: list[Manifest]) -> Manifest:
    """Return what all runs together have made, as the manifest of one that goes on.

    Raises:
        BulkError: They do not fit together.
    """
    check_alike(name, manifests)
    made = {shard.number: shard for manifest in manifests for shard in (*manifest.shards, *manifest.ahead)}
    begun = {manifest.begun.number: manifest.begun for manifest in manifests if manifest.begun is not None}
    return _with(common_of(manifests), made, begun)


def _part_of(whole: Manifest, share: Share) -> Manifest:
    """Return what there is of a share of the shards, as the manifest of the run that makes the others of it."""
    made = {shard.number: shard for shard in (*whole.shards, *whole.ahead) if share.makes(shard.number)}
    begun = {} if whole.begun is None else {whole.begun.number: whole.begun}
    part = msgspec.structs.replace(whole, share=share, finished=False, shards=(), begun=None, ahead=())
    return _with(part, made, begun)


def _with(manifest: Manifest, made: dict[int, Shard], begun: dict[int, Shard]) -> Manifest:
    """Return a manifest with shards: those that follow each other from its first one on, and the others as later ones.

    Of the beginnings of shards it keeps the one that it goes on with.
    """
    left = dict(sorted(made.items()))
    while (shard := left.pop(manifest.next_number, None)) is not None:
        manifest = manifest.with_shard(shard, manifest.width)
    return msgspec.structs.replace(manifest, begun=begun.get(manifest.next_number), ahead=tuple(left.values()))
