"""The items of a shard on their way into a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from casdk.bulk.sources import AsyncSource, Source
from casdk.bulk.stores import downloaded
from casdk.bulk.work import Work

__all__ = ["Intake"]


class Intake:
    """Reads the items of a shard for its stream, and notes them in the shard's `Work`.

    Args:
        source: The input.
        work: The shard in progress.
        batch_size: Rows per request.
        shard_rows: Rows of a shard.
    """

    def __init__(self, source: Source | AsyncSource, work: Work, batch_size: int, shard_rows: int) -> None:
        self._source: Any = source
        self._work = work
        self._batch_size = batch_size
        self._shard_rows = shard_rows
        self._at_hand: list[Any] = []
        self._ended = False

    def end(self) -> None:
        """Hand out no more items; any thread may call this."""
        self._ended = True
        self._at_hand.clear()

    def items(self, fewest: int) -> Any:
        """Return the items that are still to be encoded.

        Args:
            fewest: How many items a list must have at least.

        Returns:
            A list if the source has them in memory, which the engine reads by itself. Otherwise an iterator; for each
            of its requests the caller's thread is woken.
        """
        if isinstance(self._source, AsyncSource):
            return self._items_on_loop()
        left = self._shard_rows - self._work.read
        block = None if self._ended else self._source.take_held(fewest, left)
        if block is None:
            return downloaded(self._blocks())
        self._work.note(block)
        self._at_hand = block.items
        if self._ended:
            self._at_hand.clear()
        return self._at_hand

    def _blocks(self) -> Iterator[list[Any]]:
        while most := self._room():
            block = self._source.take(most)
            if not len(block):
                return
            self._work.note(block)
            yield block.items

    async def _items_on_loop(self) -> AsyncIterator[Any]:
        while most := self._room():
            block = await self._source.take(most)
            if not len(block):
                return
            self._work.note(block)
            for item in block.items:
                yield item

    def _room(self) -> int:
        """Return how many rows may be read now."""
        return 0 if self._ended else min(self._batch_size, self._shard_rows - self._work.read)
