"""Finds out from another process whether a target is being written now, and how fast; for ``casdk bulk status``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from casdk.bulk.disk import is_locked
from casdk.bulk.manifest import Manifest
from casdk.bulk.matrix import MatrixTarget
from casdk.bulk.storage import LOCK, lock_of_share
from casdk.bulk.stores import is_url

__all__ = ["Writing", "writing_of"]


class Writing(NamedTuple):
    """What a process does to a target at this moment.

    Attributes:
        now: Whether one writes it; ``None`` if nobody can tell, as of an object store.
        rows_per_second: How fast rows come. Of a folder, over the shards that were made since the process began, the
            first of them aside; of a matrix, since the last shard was whole. ``None`` as long as nothing tells.
    """

    now: bool | None = None
    rows_per_second: float | None = None


def writing_of(target: str, manifest: Manifest) -> Writing:
    """Return whether a process is writing a target, or a share of one.

    Args:
        target: The path of the target.
        manifest: The manifest of the target, or of the share.
    """
    if is_url(target):
        return Writing()
    path = Path(os.path.expanduser(target))
    if path.suffix:
        matrix = MatrixTarget(target, manifest.settings.dtype)
        if not is_locked(matrix.lock_path):
            return Writing(now=False)
        return Writing(True, _speed_of_matrix(matrix, manifest))
    share = manifest.share
    lock = path / (LOCK if share is None else lock_of_share(f"{share.index}-of-{share.of}"))
    if not is_locked(lock):
        return Writing(now=False)
    return Writing(True, _speed_of(path, manifest, lock))


def _speed_of(folder: Path, manifest: Manifest, lock: Path) -> float | None:
    """Return the rows per second of the shards that were made since a lock was taken."""
    try:
        begun_at = lock.stat().st_mtime
        made = [
            (max((folder / name).stat().st_mtime for name in shard.files), shard.rows)
            for shard in manifest.shards
            if shard.files
        ]
    except FileNotFoundError:  # the run has ended, or the target was begun again, between two looks
        return None
    made = sorted(one for one in made if one[0] >= begun_at)
    if len(made) < 2 or made[-1][0] == made[0][0]:
        return None
    return sum(rows for _, rows in made[1:]) / (made[-1][0] - made[0][0])


def _speed_of_matrix(matrix: MatrixTarget, manifest: Manifest) -> float | None:
    """Return the rows per second of the shard under way, since the last one was whole, or else since the run began."""
    try:
        begun_at = matrix.lock_path.stat().st_mtime
        since = matrix.manifest_path.stat().st_mtime if manifest.shards else begun_at
        rows, written_at = matrix.written()
    except FileNotFoundError:  # the run has ended between two looks
        return None
    rows -= manifest.rows
    if since < begun_at or rows <= 0 or written_at <= since:
        return None
    return rows / (written_at - since)
