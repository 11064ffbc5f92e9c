"""An update of a folder: it finds the items that the folder does not have, and removes rows whose items are gone.

A `Run` makes an `Update` for ``update=True``, encodes the missing items into new shards, and then lets it remove rows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import msgspec
import numpy as np

from casdk.bulk.items import Index, contents_of, keys_of, unmatched
from casdk.bulk.manifest import Manifest, Shard
from casdk.bulk.modes import Mode, OnLoop
from casdk.bulk.shards import ParquetTarget
from casdk.bulk.sources import AsyncSource, Block, Source
from casdk.bulk.stores import at_hand
from casdk.bulk.work import Work

__all__ = ["Update"]

READ_ITEMS: Final = 1024
"""Items of the input that are looked up at a time."""


class Update:
    """Compares an input with the target that the update began with.

    Args:
        target: The folder.
        manifest: The manifest of the folder before the update.
        retry_errors: Whether failed items are treated like changed ones.

    Attributes:
        before: The manifest of the folder before the update.
        index: The index of the items in the folder.
        begun: The items of the shard that an earlier run had begun, as far as they were found in the input.
        replaced: How many rows were removed because their items have changed.
        dropped: How many rows were removed because the input no longer has their items.
    """

    def __init__(self, target: ParquetTarget, manifest: Manifest, *, retry_errors: bool = False) -> None:
        self.before: Manifest = manifest
        self.replaced: int = 0
        self.dropped: int = 0
        self._target = target
        keys = [self._keys_of(shard, retry_errors=retry_errors) for shard in manifest.entries]
        self.index: Index = Index(np.concatenate([keys_of([], b""), *keys]))
        self.begun: Work = Work(len(manifest.shards))
        self._waiting = Waiting(self.index, self.begun, sum(shard.rows for shard in manifest.shards))

    def _keys_of(self, shard: Shard, *, retry_errors: bool) -> Any:
        target = self._target
        keys = keys_of(list(target.names_of(self.before, shard)), target.contents_of(shard))
        if retry_errors and shard.failed:
            failed = list(target.failures(self.before, shard))
            keys[failed] = unmatched(keys[failed])
        return keys

    def missing(self, mode: Mode, source: Any, is_asked: Callable[[], bool]) -> Source | AsyncSource:
        """Return a source of the items of an input that the target does not have.

        Args:
            mode: How the caller waits.
            source: The input.
            is_asked: Whether the run was asked to stop; the source then ends.
        """
        if isinstance(mode, OnLoop):
            return AsyncMissing(partial(mode.take, source), self._waiting, is_asked)

        def take(most: int) -> Block:
            while not (self._waiting.has(most) or is_asked()):
                self._waiting.add(source.take(READ_ITEMS))
            return self._waiting.take(most)

        return Source(take)

    @property
    def has_ended(self) -> bool:
        """Whether all items that the target does not have were taken."""
        return self._waiting.has_ended

    def take_up(self, manifest: Manifest) -> Manifest:
        """Continue or close the beginning of a shard, once the first missing item was read or the input has ended.

        If the input has not changed, all items of the beginning come before the first missing one, and the shard is
        continued. Otherwise, and if the input has ended, the beginning becomes a complete shard.

        Args:
            manifest: The manifest of the target.

        Returns:
            The manifest afterwards.
        """
        begun = manifest.begun
        if begun is None:
            return manifest
        self.begun.failed = begun.failed
        if self.begun.digest == begun.items and not self.has_ended:
            return manifest
        contents = self._target.contents_of(begun)
        self._target.begin(manifest, manifest.width)
        try:
            whole = self._target.commit(msgspec.structs.replace(begun, files={}), contents)
        except BaseException:
            self._target.drop()
            raise
        manifest = manifest.with_shard(whole, manifest.width)
        self._target.write_manifest(manifest)
        return manifest

    def leave_out(self, manifest: Manifest) -> Manifest:
        """Remove the rows for which the input has no item, after all of the input was read.

        Args:
            manifest: The manifest of the target, with the shards that the update has added.

        Returns:
            The manifest afterwards; the one that the update began with, if nothing has changed.
        """
        start = 0
        self.replaced = self.index.replaced
        self.dropped = int((~self.index.stays).sum()) - self.replaced
        for shard in manifest.shards[: len(self.before.entries)]:
            # Of a shard that was continued, only the beginning was looked up; the rest of it is new.
            stays = self.index.stays[start : start + shard.rows]
            start += shard.rows
            if not stays.all():
                manifest = self._target.leave_out(manifest, shard, stays)
        return self.before if self.before.finished and manifest == self.before.to_update() else manifest


class Waiting:
    """Items that the target does not have and that were not taken yet; `Update` fills it while the input is read.

    Args:
        index: The index of the target's items.
        begun: Collects the items that are found of a shard that was begun.
        begun_from: The first row of that shard.
    """

    def __init__(self, index: Index, begun: Work, begun_from: int) -> None:
        self._index = index
        self._begun = begun
        self._begun_from = begun_from
        self._items: list[Any] = []
        self._names: list[str] = []
        self._contents: list[str] = []
        self._parts = 1
        self._ended = False

    def add(self, block: Block) -> None:
        """Look up the next items of the input; an empty block means that the input has ended."""
        if not block.names:
            self._ended = True
            return
        self._parts = len(block.items) // len(block.names)
        for place, row in enumerate(self._index.look_up(block.names, contents_of(block.contents, len(block)))):
            if row is None:
                self._items += block.items[place * self._parts : (place + 1) * self._parts]
                self._names.append(block.names[place])
                self._contents.append(block.contents.get(place, ""))
            elif row >= self._begun_from:
                contents = {0: block.contents[place]} if place in block.contents else {}
                self._begun.pass_over(Block([], [block.names[place]], contents))

    def has(self, most: int) -> bool:
        """Whether so many items (at least one) can be taken, or the input has ended."""
        return self._ended or len(self._names) >= max(most, 1)

    @property
    def has_ended(self) -> bool:
        """Whether there are no items, and no more will come."""
        return self._ended and not self._names

    def take(self, most: int) -> Block:
        """Take up to ``most`` items."""
        contents = {place: content for place, content in enumerate(self._contents[:most]) if content}
        items = most * self._parts
        block = Block(self._items[:items], self._names[:most], contents)
        del self._items[:items], self._names[:most], self._contents[:most]
        return block


class AsyncMissing(AsyncSource):
    """The items of an async input that a target does not have.

    Args:
        read: Reads up to a given number of items of the input, without blocking the event loop.
        waiting: The missing items that were read and not taken yet.
        is_asked: Whether the run was asked to stop.
    """

    def __init__(self, read: Callable[[int], Awaitable[Block]], waiting: Waiting, is_asked: Callable[[], bool]) -> None:
        self._read = read
        self._waiting = waiting
        self._is_asked = is_asked

    async def take(self, most: int) -> Block:
        """Take up to ``most`` items."""
        while not (self._waiting.has(most) or self._is_asked()):
            self._waiting.add(await self._read(READ_ITEMS))
        block = self._waiting.take(most)
        return msgspec.structs.replace(block, items=await at_hand(block.items))
