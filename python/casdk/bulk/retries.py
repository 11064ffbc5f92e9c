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
"""Requests that are filled before items are sent, so that they can be in flight together."""

Encoded: TypeAlias = "tuple[Sequence[Rows], dict[int, ItemError]]"
Encode: TypeAlias = "Callable[[list[int], list[str], list[Any]], Awaitable[Encoded]]"
"""Takes items, and for each its row of the shard and its name; returns embeddings, and errors by position."""


class Retries:
    """The failed items of one shard.

    Args:
        failures: What was written of them, by row of the shard.
        encode: Encodes them.
        batch_size: Items per request.

    Attributes:
        rows: ``[items, D]``, the embeddings of those that now have them, by row of the shard.
        errors: What is said of those that have failed again.
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
        """Take the failed ones out of items of the shard, and encode what has gathered.

        Args:
            start: Row of the first item.
            block: The items, which are those that they were.
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
        """Encode what is left."""
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
                # Where a row has two items, what is written of it stays true: it is filled in when both have come.
                self.errors[place] = failed[0] if self._parts == 1 else self._failures[place]
        self._places, self._names, self._items = [], [], []

    @property
    def changed(self) -> bool:
        """Whether the shard has changed: an item has a row now, or another error."""
        return bool(self.rows) or any(self._failures[place] != said for place, said in self.errors.items())
