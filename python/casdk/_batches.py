"""Content -> batches: how the user's iterable is read, wherever it has to be read."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, KeysView, Sequence, ValuesView
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from casdk._engine import Caller

__all__ = ["Batch", "Feed", "feed_of"]

HELD: Final = (list, tuple, set, frozenset, KeysView, ValuesView)
"""Containers whose iteration runs no code of the user's: the engine reads them itself."""
PATIENCE: Final = 0.002
"""Seconds a caller's iterator may go on filling further batches before the first one is sent."""


class Batch:
    """Items that travel in one request.

    Attributes:
        indices: Index of each item in the content.
        items: The items, in the packer's types.
        verdicts: One byte per item.
        attempts: Times it was sent.
        not_before: When it may be sent again, in the engine's time.
    """

    __slots__ = ("attempts", "errors", "indices", "isolation", "items", "not_before", "verdicts")

    def __init__(self, indices: Sequence[int], items: list[Any], verdicts: bytes) -> None:
        self.indices = indices
        self.items = items
        self.verdicts = verdicts
        self.attempts = 0
        self.not_before = 0.0
        self.errors: dict[int, Any] | None = None
        self.isolation: Any = None

    def __len__(self) -> int:
        return len(self.items)

    def part(self, start: int, stop: int | None = None) -> Batch:
        """Return some of it as a batch of its own, never sent so far."""
        return Batch(self.indices[start:stop], self.items[start:stop], self.verdicts[start:stop])

    def joined(self, other: Batch) -> Batch:
        """Return both as one batch, this one's items first."""
        return Batch([*self.indices, *other.indices], self.items + other.items, self.verdicts + other.verdicts)


class Feed:
    """Where chunks come from.

    Attributes:
        total: Items in all, if known.
        direct: Whether the engine reads it itself, without asking the caller.
    """

    def __init__(self, content: Any, size: int, total: int | None) -> None:
        self.total = total
        self.size = size
        self.direct = isinstance(content, HELD)
        self._iterator: Any = iter(content) if not isinstance(content, AsyncIterable) else aiter(content)
        self._asynchronous = isinstance(content, AsyncIterable)

    async def read(self, most: int, caller: Caller[Any]) -> list[list[Any]]:
        """Return up to ``most`` chunks; none means the end. What the user's iterator raises passes as it is."""
        if self.direct:
            return self.read_held(most)
        read = self._read_asynchronously if self._asynchronous else self._read
        chunks: list[list[Any]] = await caller.call(lambda: read(most))
        return chunks

    def read_held(self, most: int) -> list[list[Any]]:
        """Return up to ``most`` chunks of a container."""
        chunks = []
        while len(chunks) < most and (chunk := list(islice(self._iterator, self.size))):
            chunks.append(chunk)
        return chunks

    def _read(self, most: int) -> list[list[Any]]:
        chunks: list[list[Any]] = []
        until = monotonic() + PATIENCE
        while len(chunks) < most and (chunk := list(islice(self._iterator, self.size))):
            chunks.append(chunk)
            if monotonic() > until:
                break
        return chunks

    async def _read_asynchronously(self, most: int) -> list[list[Any]]:
        chunks: list[list[Any]] = []
        until = monotonic() + PATIENCE
        while len(chunks) < most and (chunk := await _take(self._iterator, self.size)):
            chunks.append(chunk)
            if monotonic() > until:
                break
        return chunks


async def _take(iterator: AsyncIterator[Any], size: int) -> list[Any]:
    chunk: list[Any] = []
    while len(chunk) < size:
        try:
            chunk.append(await anext(iterator))
        except StopAsyncIteration:
            break
    return chunk


def feed_of(content: Iterable[Any] | AsyncIterable[Any], size: int) -> Feed:
    """Return the feed of a content, which has passed ``check_content``."""
    if isinstance(content, np.ndarray) and content.dtype.kind in "UO":
        content = content.tolist() if content.ndim == 1 else content.ravel().tolist()
    total = len(content) if hasattr(content, "__len__") else None
    return Feed(content, size, total)


