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
from typing import Any, Final, NamedTuple, TypeAlias

__all__ = ["Coalescer"]

Run: TypeAlias = Callable[[list[Any]], Coroutine[Any, Any, Any]]

LANES: Final = 2
"""Merged requests in flight per kind: one being answered, one on its way; more would make smaller batches."""


class Waiting(NamedTuple):
    """A call that will be merged."""

    items: list[Any]
    share: Callable[[Any, int], Any]
    future: asyncio.Future[Any]
    context: contextvars.Context


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
        self._tasks: set[asyncio.Task[Any]] = set()

    def submit(
        self, key: Hashable, items: list[Any], run: Run, share: Callable[[Any, int], Any]
    ) -> asyncio.Future[Any]:
        """Send items, alone or in company; return what will be the caller's share.

        It is a future and no coroutine, since a task for each of many small calls costs more than the rest of them.

        Args:
            key: Calls with equal keys may be merged: endpoint, parameters and all else that a request carries.
            items: At most ``most``.
            run: Sends a batch and returns its outcome.
            share: Makes the caller's result of the outcome and the position of its first item, or raises.
        """
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind()
        if kind.busy < LANES and not kind.waiting and not self._window:
            return self._start(key, kind, run, _alone(items, run, share))
        loop = asyncio.get_running_loop()
        waiting = Waiting(items, share, loop.create_future(), contextvars.copy_context())
        kind.waiting.append(waiting)
        if self._window:
            loop.call_later(self._window, self._go_on, key, kind, run)
        return waiting.future

    def _start(
        self,
        key: Hashable,
        kind: _Kind,
        run: Run,
        work: Coroutine[Any, Any, Any],
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        """Occupy a lane; a task may be cancelled before its first line, so that it cannot free the lane itself."""

        def free(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            kind.busy -= 1
            self._go_on(key, kind, run)

        kind.busy += 1
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(free)
        return task

    def _go_on(self, key: Hashable, kind: _Kind, run: Run) -> None:
        while kind.waiting and kind.busy < LANES:
            batch = self._gather(kind)
            if batch:
                # A trace sees the batch below the first of its callers.
                self._start(key, kind, run, _together(batch, run), batch[0].context)
        if not kind.waiting and not kind.busy:
            self._kinds.pop(key, None)

    def _gather(self, kind: _Kind) -> list[Waiting]:
        """Take as many waiting calls as fill a batch, leaving out those whose caller is gone."""
        batch, size = [], 0
        while kind.waiting and size + len(kind.waiting[0].items) <= self.most:
            waiting = kind.waiting.popleft()
            if not waiting.future.done():
                batch.append(waiting)
                size += len(waiting.items)
        return batch

    def forget(self) -> None:
        """Drop what waits: it belongs to the process this one was forked from."""
        self._kinds = {}
        self._tasks = set()


async def _alone(items: list[Any], run: Run, share: Callable[[Any, int], Any]) -> Any:
    return share(await run(items), 0)


async def _together(batch: list[Waiting], run: Run) -> None:
    try:
        outcome = await run([item for waiting in batch for item in waiting.items])
    except BaseException as error:
        for waiting in batch:
            if not waiting.future.done():
                # Each caller raises its own copy: a traceback grows with every raise.
                waiting.future.set_exception(_copy(error))
    else:
        start = 0
        for waiting in batch:
            if not waiting.future.done():
                _settle(waiting, outcome, start)
            start += len(waiting.items)


def _settle(waiting: Waiting, outcome: Any, start: int) -> None:
    try:
        share = waiting.share(outcome, start)
    except Exception as error:
        waiting.future.set_exception(error)
    else:
        waiting.future.set_result(share)


def _copy(error: BaseException) -> BaseException:
    if isinstance(error, asyncio.CancelledError):
        return asyncio.CancelledError()
    duplicate = copy.copy(error)
    duplicate.__cause__ = error.__cause__
    return duplicate
