"""Content -> chunks: how the user's iterable is read, wherever it has to be read."""

from __future__ import annotations

import asyncio
import os
import queue
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, KeysView, Sized, ValuesView
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from casdk._threads import check_process, start

if TYPE_CHECKING:
    from casdk._engine import Caller

__all__ = ["HELD", "Feed", "feed_of"]

T = TypeVar("T")

HELD: Final = (list, tuple, set, frozenset, KeysView, ValuesView)
"""Containers whose iteration runs no code of the user's: the engine reads them itself."""
PATIENCE: Final = 0.002
"""Seconds a caller's iterator may go on filling further batches before the first one is sent."""


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
        self._untaken: deque[list[Any]] = deque()
        self._closed = False
        self._iterator: Any = aiter(content) if self._asynchronous else iter(content)
        self._reader = Reader() if apart and not self.direct and not self._asynchronous else None

    async def read(self, most: int, caller: Caller[Any], take: Callable[[list[Any]], None]) -> bool:
        """Read up to ``most`` chunks where the iterable has to be read. What it raises passes as it is.

        Args:
            most: Chunks.
            caller: Where the call came from.
            take: Gets each chunk on the engine, as soon as it is there: the next one may be long in coming.

        Returns:
            Whether that was the end.
        """
        if self._reader is not None:
            return bool(caller.heed(*await self._reader.call(lambda: self._read(most, caller, take))))
        read = self._read_asynchronously if self._asynchronous else self._read
        ended: bool = await caller.call(lambda: read(most, caller, take))
        return ended

    def read_held(self, most: int) -> list[list[Any]]:
        """Return up to ``most`` chunks of a container; none means the end."""
        chunks: list[list[Any]] = []
        while len(chunks) < most and (chunk := list(islice(self._iterator, self.size))):
            chunks.append(chunk)
        return chunks

    def _read(self, most: int, caller: Caller[Any], take: Callable[[list[Any]], None]) -> bool:
        until = monotonic() + PATIENCE
        for _ in range(most):
            if self._closed:
                break
            chunk = list(islice(self._iterator, self.size))
            if chunk:
                self._untaken.append(chunk)
                caller.post(take, chunk)
            if len(chunk) < self.size:
                return True
            if monotonic() > until:
                break
        return False

    async def _read_asynchronously(self, most: int, caller: Caller[Any], take: Callable[[list[Any]], None]) -> bool:
        until = monotonic() + PATIENCE
        for _ in range(most):
            chunk: list[Any] = []
            self._untaken.append(chunk)  # before it is full: what is in it was read, should the call end now
            while len(chunk) < self.size and not self._closed:
                try:
                    chunk.append(await anext(self._iterator))
                except StopAsyncIteration:
                    break
            if chunk:
                caller.post(take, chunk)
            if len(chunk) < self.size:
                return True
            if monotonic() > until:
                break
        return False

    def taken(self) -> None:
        """The oldest chunk that was posted has been taken."""
        self._untaken.popleft()

    def untaken(self) -> list[list[Any]]:
        """Return the chunks that were read and not taken when the call had ended."""
        chunks, self._untaken = self._untaken, deque()
        return [chunk for chunk in chunks if chunk]

    def close(self) -> None:
        """Read no more, and let go of the reader, if there is one."""
        self._closed = True
        if self._reader is not None:
            self._reader.close()


class Reader:
    """A thread that runs a user's iterator; a daemon, since what blocks in there cannot be stopped."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._started = False

    async def call(self, function: Callable[[], T]) -> tuple[T | None, BaseException | None]:
        """Run a function in the thread and wait for it; return what it returned, and what it raised."""
        loop, process = asyncio.get_running_loop(), os.getpid()
        answer: asyncio.Future[list[Any]] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if not answer.done():
                answer.set_result([result, error])

        def work() -> None:
            try:
                result = function()
            except BaseException as error:
                if os.getpid() != process:
                    raise
                loop.call_soon_threadsafe(settle, None, error)
            else:
                check_process(process)
                loop.call_soon_threadsafe(settle, result, None)

        if not self._started:
            start(self._run, "casdk-reader")
            self._started = True
        self._inbox.put(work)
        outcome = await answer
        # Taken out, as in `Caller.call`.
        error, result = outcome.pop(), outcome.pop()
        return result, error

    def _run(self) -> None:
        while (work := self._inbox.get()) is not None:
            work()

    def close(self) -> None:
        """End the thread as soon as the iterator lets go."""
        self._inbox.put(None)


def feed_of(content: Iterable[Any] | AsyncIterable[Any], size: int, apart: bool = False) -> Feed:
    """Return the feed of a content, which has passed ``check_content``."""
    if isinstance(content, np.ndarray) and content.dtype.kind in "UO":
        content = content.tolist() if content.ndim == 1 else content.ravel().tolist()
    total = len(content) if isinstance(content, Sized) else None
    return Feed(content, size, total, apart)
