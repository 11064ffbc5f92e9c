"""Content -> batches: how the user's iterable is read, wherever it has to be read."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Container, Iterable, KeysView, Sequence, ValuesView
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

if TYPE_CHECKING:
    from casdk._engine import Caller

__all__ = ["Batch", "Feed", "Repeats", "feed_of"]

T = TypeVar("T")

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

    def without(self, positions: Container[int]) -> Batch:
        """Return a batch of the items at all other positions."""
        kept = [position for position in range(len(self)) if position not in positions]
        return Batch(
            [self.indices[position] for position in kept],
            [self.items[position] for position in kept],
            bytes(self.verdicts[position] for position in kept),
        )

    def joined(self, other: Batch) -> Batch:
        """Return both as one batch, this one's items first."""
        return Batch([*self.indices, *other.indices], self.items + other.items, self.verdicts + other.verdicts)


class Repeats:
    """Finds items that equal earlier ones of the same call.

    Attributes:
        found: Index of each repeat and of what it repeats.
    """

    def __init__(self) -> None:
        self.found: list[tuple[int, int]] = []
        self._firsts: dict[Any, int] = {}

    def sift(self, items: list[Any], start: int) -> list[int] | None:
        """Return the positions of the items that are new, or ``None`` where all are.

        What cannot be hashed (arrays, Documents) never repeats.
        """
        try:
            firsts = list(map(self._firsts.setdefault, items, range(start, start + len(items))))
        except TypeError:
            firsts = [self._first(item, start + position) for position, item in enumerate(items)]
        if firsts == list(range(start, start + len(items))):
            return None
        self.found += [(start + position, first) for position, first in enumerate(firsts) if first != start + position]
        return [position for position, first in enumerate(firsts) if first == start + position]

    def _first(self, item: Any, index: int) -> int:
        try:
            return self._firsts.setdefault(item, index)
        except TypeError:
            return index


class Feed:
    """Where chunks come from.

    Attributes:
        total: Items in all, if known.
        direct: Whether the engine reads it itself, without asking the caller.

    Args:
        content: The user's iterable.
        size: Items per chunk.
        total: Items in all, if known.
        apart: Whether a sync iterator is read in a thread of its own, so that its blocking cannot outlive a
            deadline; otherwise it is read where the caller is.
    """

    def __init__(self, content: Any, size: int, total: int | None, apart: bool) -> None:
        self.total = total
        self.size = size
        self.direct = isinstance(content, HELD)
        self._asynchronous = isinstance(content, AsyncIterable)
        self._iterator: Any = aiter(content) if self._asynchronous else iter(content)
        self._reader = Reader() if apart and not self.direct and not self._asynchronous else None

    async def read(self, most: int, caller: Caller[Any]) -> list[list[Any]]:
        """Return up to ``most`` chunks; none means the end. What the user's iterator raises passes as it is."""
        if self.direct:
            return self.read_held(most)
        if self._reader is not None:
            return await self._reader.call(lambda: self._read(most))
        read = self._read_asynchronously if self._asynchronous else self._read
        chunks: list[list[Any]] = await caller.call(lambda: read(most))
        return chunks

    def close(self) -> None:
        """Let go of the reader, if there is one."""
        if self._reader is not None:
            self._reader.close()

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


class Reader:
    """A thread that runs a user's iterator; a daemon, since what blocks in there cannot be stopped."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def call(self, function: Callable[[], T]) -> T:
        """Run a function in the thread and wait for it."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(result)  # type: ignore[arg-type]
            else:
                answer.set_exception(error)

        def work() -> None:
            try:
                result = function()
            except BaseException as error:
                loop.call_soon_threadsafe(settle, None, error)
            else:
                loop.call_soon_threadsafe(settle, result, None)

        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="casdk-reader", daemon=True)
            self._thread.start()
        self._inbox.put(work)
        return await answer

    def _run(self) -> None:
        while (work := self._inbox.get()) is not None:
            work()

    def close(self) -> None:
        """End the thread as soon as the iterator lets go."""
        self._inbox.put(None)


async def _take(iterator: AsyncIterator[Any], size: int) -> list[Any]:
    chunk: list[Any] = []
    while len(chunk) < size:
        try:
            chunk.append(await anext(iterator))
        except StopAsyncIteration:
            break
    return chunk


def feed_of(content: Iterable[Any] | AsyncIterable[Any], size: int, apart: bool = False) -> Feed:
    """Return the feed of a content, which has passed ``check_content``."""
    if isinstance(content, np.ndarray) and content.dtype.kind in "UO":
        content = content.tolist() if content.ndim == 1 else content.ravel().tolist()
    total = len(content) if hasattr(content, "__len__") else None
    return Feed(content, size, total, apart)
