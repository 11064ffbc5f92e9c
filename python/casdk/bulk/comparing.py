"""Reads the input of a `Run` again and compares it with what the target was made of, before anything is encoded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from casdk.bulk.manifest import Manifest, Settings, Shard
from casdk.bulk.modes import Mode
from casdk.bulk.retries import Retries
from casdk.bulk.shares import Reading
from casdk.bulk.targets import Target
from casdk.bulk.work import Work

__all__ = ["Comparison"]

COMPARED_BATCHES: Final = 32
"""Items are compared in blocks of so many batches, because none of them is sent."""


class Comparison:
    """Reads the part of a run's input that is already in the target, or that other runs encode.

    Args:
        target: The target, which has the names of its items.
        source: The items.
        settings: The options of the target.
        check_asked: Raises the exception that the run was asked to stop with, if it was asked.

    Attributes:
        read: How far the run has read.
    """

    def __init__(self, target: Target, source: Any, settings: Settings, check_asked: Callable[[], None]) -> None:
        self._target = target
        self._source = source
        self._settings = settings
        self._check_asked = check_asked
        self._most = settings.batch_size * COMPARED_BATCHES
        self.read: Reading = Reading(settings.shard_rows)

    async def pass_over(self, mode: Mode, number: int | None) -> None:
        """Read the items of shards that other runs make: those before the shard of a number, or all that are left."""
        size = self._settings.shard_rows
        while not self.read.ended and (number is None or self.read.shards < number):
            work = Work(self.read.shards)
            while len(block := await mode.take(self._source, min(size - work.rows, self._most))):
                self._check_asked()
                work.pass_over(block)
                if work.rows == size:
                    break
            self.read.add(work.rows, work.digest)

    async def shard(self, mode: Mode, manifest: Manifest, shard: Shard, again: Retries | None = None) -> Work:
        """Compare one shard, or the beginning of one.

        Args:
            mode: How the caller waits.
            manifest: What the target holds.
            shard: The shard.
            again: Encodes the failed items of the shard again, if the caller wants that.

        Returns:
            The rows of the shard that were read, all counted as having come back.

        Raises:
            BulkError: The items of the shard have changed.
        """
        work, other = Work(shard.number), ""
        first = manifest.start_of(shard.number)
        names = self._target.names_of(manifest, shard)
        while work.rows < shard.rows and not other:
            block = await mode.take(self._source, min(shard.rows - work.rows, self._most))
            if not len(block):
                break
            for place, (now, before) in enumerate(zip(block.names, names, strict=False), first + work.rows):
                if now != before:
                    other = f"item {place} is {now!r} now, and was {before!r}"
                    break
            if again is not None and not other:
                self._check_asked()
                await again.take(work.rows, block)
            work.pass_over(block)
        manifest.check_items(shard, work.rows, work.digest, other, self._target.name, self._target.advice)
        work.failed = shard.failed
        return work
