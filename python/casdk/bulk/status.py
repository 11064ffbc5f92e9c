"""What can be seen of a run from outside: whether a process writes a target at this moment, and how fast."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from casdk.bulk.disk import is_locked
from casdk.bulk.manifest import Manifest
from casdk.bulk.places import LOCK, lock_of_share
from casdk.bulk.stores import is_url

__all__ = ["Writing", "writing_of"]


class Writing(NamedTuple):
    """What a process does to a target at this moment.

    Attributes:
        now: Whether one writes it; ``None`` if nobody can tell, as of an object store.
        rows_per_second: How fast shards have come since it began, the first of them aside; ``None`` as long as it has
            not made two, and for a matrix, which is one file.
    """

    now: bool | None = None
    rows_per_second: float | None = None


def writing_of(target: str, manifest: Manifest) -> Writing:
    """Return what a process does to a target, or to a share of one.

    Args:
        target: Its path.
        manifest: What it holds.
    """
    if is_url(target):
        return Writing()
    path = Path(os.path.expanduser(target))
    if path.suffix:
        return Writing(is_locked(path.with_name(f"{path.name}.lock")))
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
