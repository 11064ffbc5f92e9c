"""Encodes failed items of a shard again, while a `Run` compares the shard with the input (``retry_errors=True``)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from casdk.bulk.sources import Block
from casdk.bulk.targets import Rows, described
from casdk.errors import ItemError

__all__ = ["Encoded", "Retries"]

BATCHES_AT_ONCE: Final = 8
"""Failed items are sent when there are enough for so many requests, which are then in flight together."""

Encoded: TypeAlias = "tuple[Sequence[Rows], dict[int, ItemError]]"
Encode: TypeAlias = "Callable[[list[int], list[str], list[Any]], Awaitable[Encoded]]"
"""Encodes items; takes, for each, its row of the shard, its name and the item; returns rows, and errors by position."""


class Retries:
    """The failed items of one shard.

    Args:
        failures: The recorded error of each of them, by row of the shard.
        encode: Encodes items by a stream of their own.
        batch_size: Items per request.

    Attributes:
        rows: ``[items, D]``, the embeddings of the rows that are no longer failed, by row of the shard.
        errors: The error to record for each row that has failed again, by row of the shard.
    """

    def __init__(self, failures: Mapping[int, str], encode: Encode, batch_size: int) -> None:
        self.rows: dict[int, Rows] = {}
        self.errors: dict[int, str] = {}
        self._failures = failures
        self._encode = encode
        self._most = batch_size * BATCHES_AT_ONCE
        self._parts = 1
        self._places: list[int] = []
        self._names: list[str] = []
        self._items: list[Any] = []

    async def take(self, start: int, block: Block) -> None:
        """Collect the failed items of a block, and encode those collected so far if they are enough.

        Args:
            start: The row of the shard where the block begins.
            block: The next items of the shard, which have not changed.
        """
        self._parts = len(block.items) // len(block.names)
        for position, name in enumerate(block.names):
            if start + position in self._failures:
                self._places.append(start + position)
                self._names.append(name)
                self._items += block.items[position * self._parts : (position + 1) * self._parts]
        if len(self._items) >= self._most:
            await self.end()

    async def end(self) -> None:
        """Encode the items that were collected and not sent yet."""
        if not self._items:
            return
        each = range(self._parts)
        places = [place for place in self._places for _ in each]
        names = [name for name in self._names for _ in each]
        embeddings, errors = await self._encode(places, names, self._items)
        for position, place in enumerate(self._places):
            items = range(position * self._parts, (position + 1) * self._parts)
            failed = [described(errors[item]) for item in items if item in errors]
            if not failed:
                self.rows[place] = np.stack([embeddings[item] for item in items])
            else:
                # A row of two items keeps its error until both of them are encoded; the error still holds.
                self.errors[place] = failed[0] if self._parts == 1 else self._failures[place]
        self._places, self._names, self._items = [], [], []

    @property
    def changed(self) -> bool:
        """Whether the shard has changed: an item has a row now, or another error."""
        return bool(self.rows) or any(self._failures[place] != said for place, said in self.errors.items())
