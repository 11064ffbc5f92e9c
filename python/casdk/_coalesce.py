"""Concurrent small calls -> one wire batch: "batch while busy".

An idle client adds no delay: a call that finds a free lane goes at once, by itself. While the lanes are busy, calls of
the same kind gather, and the next free lane takes as many of them as fill a batch.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final, Generic, TypeAlias, TypeVar

__all__ = ["Coalescer", "Merged"]

T = TypeVar("T")
Run: TypeAlias = Callable[[list[Any]], Coroutine[Any, Any, T]]

LANES: Final = 2
"""Merged requests in flight per kind: one being answered, one on its way; more would make smaller batches."""


Waiting: TypeAlias = "tuple[list[Any], asyncio.Future[Any], contextvars.Context]"


class Merged(Generic[T]):
    """What became of a merged batch, seen by one of its callers.

    Attributes:
        outcome: The batch's.
        start: Position of the caller's first item in it.
    """

    __slots__ = ("outcome", "start")

    def __init__(self, outcome: T, start: int) -> None:
        self.outcome = outcome
        self.start = start


class _Kind:
    """Calls that may travel together, and how many of their batches are in flight."""

    def __init__(self) -> None:
        self.busy = 0
        self.waiting: deque[Waiting] = deque()


class Coalescer:
    """Merges the calls of one client.

    Args:
        most: Items per merged batch; a call with more is not merged.
        window: Seconds a call waits for company although a lane is free.
    """

    def __init__(self, most: int, window: float) -> None:
        self.most: Final = most
        self._window = window
        self._kinds: dict[Hashable, _Kind] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, key: Hashable, items: list[Any], run: Run[T]) -> Merged[T]:
        """Send items, alone or in company.

        Args:
            key: Calls with equal keys may be merged: endpoint, parameters and all else that a request carries.
            items: At most ``most``.
            run: Sends a batch and returns its outcome.
        """
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind()
        if kind.busy < LANES and not kind.waiting and not self._window:
            kind.busy += 1
            try:
                return Merged(await run(items), 0)
            finally:
                kind.busy -= 1
                self._go_on(key, kind, run)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Merged[T]] = loop.create_future()
        kind.waiting.append((items, waiter, contextvars.copy_context()))
        if self._window:
            loop.call_later(self._window, self._go_on, key, kind, run)
        return await waiter

    def _go_on(self, key: Hashable, kind: _Kind, run: Run[Any]) -> None:
        while kind.waiting and kind.busy < LANES:
            batch = self._gather(kind)
            if batch:
                kind.busy += 1
                # A trace sees the batch below the first of its callers.
                context = batch[0][2]
                task = asyncio.get_running_loop().create_task(self._run(key, kind, batch, run), context=context)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        if not kind.waiting and not kind.busy:
            self._kinds.pop(key, None)

    def _gather(self, kind: _Kind) -> list[Waiting]:
        """Take as many waiting calls as fill a batch, leaving out those whose caller is gone."""
        batch, size = [], 0
        while kind.waiting and size + len(kind.waiting[0][0]) <= self.most:
            waiting = kind.waiting.popleft()
            if not waiting[1].done():
                batch.append(waiting)
                size += len(waiting[0])
        return batch

    async def _run(self, key: Hashable, kind: _Kind, batch: list[Waiting], run: Run[Any]) -> None:
        try:
            outcome = await run([item for items, _, _ in batch for item in items])
        except BaseException as error:
            for _, waiter, _ in batch:
                if not waiter.done():
                    # Each caller raises its own copy: a traceback grows with every raise.
                    waiter.set_exception(_copy(error))
        else:
            start = 0
            for items, waiter, _ in batch:
                if not waiter.done():
                    waiter.set_result(Merged(outcome, start))
                start += len(items)
        finally:
            kind.busy -= 1
            self._go_on(key, kind, run)

    def forget(self) -> None:
        """Drop what waits: it belongs to the process this one was forked from."""
        self._kinds = {}
        self._tasks = set()


def _copy(error: BaseException) -> BaseException:
    if isinstance(error, asyncio.CancelledError):
        return asyncio.CancelledError()
    duplicate = copy.copy(error)
    duplicate.__cause__ = error.__cause__
    return duplicate
