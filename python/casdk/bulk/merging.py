"""`merge`, which joins what several runs with ``shard=`` have made of a folder into one finished target."""

from __future__ import annotations

import os
from time import monotonic

import msgspec

from casdk.bulk.disk import sum_of
from casdk.bulk.folders import FolderTarget
from casdk.bulk.layouts import open_folder
from casdk.bulk.manifest import Manifest
from casdk.bulk.object_storage import suffix_of
from casdk.bulk.result import BulkResult
from casdk.bulk.shards import ParquetTarget
from casdk.bulk.shares import Reading, check_alike, common_of, read_shares, remove_shares
from casdk.errors import BulkError, ConfigError

__all__ = ["merge"]


def merge(target: str | os.PathLike[str]) -> BulkResult:
    """Join the shards that several runs with ``shard=`` have made in one folder.

    All runs have to be finished, and have to have read the same input with the same options, from servers with the same
    vector space. Every file is read and compared with its checksum. Afterwards the folder is byte for byte that of a
    single run. If a merge is killed, call it again; merging a complete folder does nothing.

    Args:
        target: The folder.

    Returns:
        What the folder holds; nothing is encoded.

    Raises:
        BulkError: A run is missing or not finished, or the runs do not fit together; nothing was changed.
        ConfigError: pyarrow is missing, or the target is no folder.

    Examples:
        >>> from casdk import bulk
        >>> bulk.merge("embeddings")  # doctest: +SKIP
    """
    begun_at = monotonic()
    path = os.fsdecode(target)
    if suffix_of(path):
        raise ConfigError(f"{path}: only folders are written by several runs, and their names have no suffix")
    folder = ParquetTarget(path, "float32")
    if not folder.storage.exists():
        raise BulkError(f"{path}: there is no such folder")
    lock = folder.lock()
    try:
        whole = folder.read_manifest()
        if whole is None:
            whole = _joined(folder, read_shares(folder.storage))
            folder.settle(whole)
            folder.check(whole)
            _check_files(folder, whole)
            folder.write_manifest(whole)
        elif not whole.finished:
            raise BulkError(f"{path} is of a single run, which is not finished: the call that began it goes on")
        settings = whole.settings
        open_folder(folder.storage, settings.dtype, layout=settings.layout, columns=settings.columns).complete(whole)
        remove_shares(folder.storage)
    finally:
        lock.release()
    return BulkResult(
        target=path,
        rows=whole.rows,
        failed=whole.failed,
        encoded=0,
        reencoded=0,
        dropped=0,
        seconds=monotonic() - begun_at,
        batch_size=whole.settings.batch_size,
        space=whole.space,
        fidelity=whole.fidelity,
    )


def _joined(folder: FolderTarget, manifests: list[Manifest]) -> Manifest:
    """Return the manifest that a single run would have left.

    Raises:
        BulkError: A run is missing or not finished, or the runs do not fit together.
    """
    name = folder.name
    shares = [manifest.share for manifest in manifests if manifest.share is not None]
    if not shares:
        raise BulkError(f"{name}: there is no run with a shard in it")
    of = check_alike(name, manifests)
    there = {share.index for share in shares}
    if missing := [f"{index}/{of}" for index in range(of) if index not in there]:
        raise BulkError(f"{name}: the run of shard {missing[0]} has not begun")
    first = manifests[0]
    for manifest, share in zip(manifests, shares, strict=True):
        if not manifest.finished:
            raise BulkError(f"{name}: the run of shard {share} is not finished, it has {manifest.rows} rows")
        if manifest.input != first.input:
            raise BulkError(f"the run of shard {share} has read another input than that of shard {shares[0]}")
    shards = sorted((shard for manifest in manifests for shard in manifest.shards), key=lambda shard: shard.number)
    read = Reading(first.settings.shard_rows)
    for number, shard in enumerate(shards):
        if shard.number != number or read.ended:
            break
        read.add(shard.rows, shard.items)
    if read.input != first.input:
        raise BulkError(f"the shards of {name} are not those of the input that its runs have read")
    return msgspec.structs.replace(common_of(manifests), finished=True, shards=tuple(shards))


def _check_files(folder: FolderTarget, manifest: Manifest) -> None:
    """Compare the files of each shard with its checksum, which is one for all of them together.

    Raises:
        BulkError: A file is damaged.
    """
    for shard in manifest.shards:
        # The checksum does not cover the file with the items' contents, which only updates read.
        names = [name for name in shard.files if not name.startswith("_contents-")]
        if sum_of(map(folder.storage.checksum_of, names)) != shard.checksum:
            one = " or ".join(map(folder.storage.where, names))
            raise BulkError(f"{one} is damaged: the checksum of the shard is not that of the manifest")
