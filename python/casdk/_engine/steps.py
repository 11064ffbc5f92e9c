"""What needs no task while it waits for a reply: a coroutine that is carried on by the replies themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Iterable
from contextlib import suppress
from contextvars import copy_context
from types import coroutine
from typing import Any

import msgspec

from casdk._engine.waiter import Waiter

__all__ = ["Steps", "have_task", "tasks_of"]


class Steps(msgspec.Struct, eq=False):
    """A coroutine that is carried on without a task, step by step, each time that the reply it waits for has come.

    A task costs as much as all else that is done for a small request. What waits for anything else gets one all the
    same, if only for the next turn of the loop, and so does what has failed: how that goes on may take long, and set
    limits of time, which belong to a task.

    Attributes:
        work: The coroutine, which raises nothing; ``None`` once a task has it, or it is over.
        task: The task that has it.
    """

    work: Coroutine[Any, Any, None] | None
    task: asyncio.Task[None] | None = None

    def go_on(self, waiter: Waiter[Any] | None = None) -> bool:
        """Carry it on until it waits for something, or is over; by a task if it waited for a reply and none came.

        Args:
            waiter: What it has waited for.

        Returns:
            Whether it is over.
        """
        work = self.work
        if work is None:  # it was cancelled meanwhile
            return False
        if waiter is not None and not waiter.is_reply:
            self._begin(work)
            return False
        try:
            waits_for = work.send(None)
        except StopIteration:
            self.work = None
            return True
        if type(waits_for) is Waiter:
            waits_for.when_done(self.go_on, copy_context())
        elif waits_for is None:
            self._begin(work)
        else:
            rest = _rest(work, waits_for)
            rest.send(None)  # up to where a cancellation before its first turn is passed on
            self._begin(rest)
        return False

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Give it a task, whose first turn is the next one of the loop."""
        self.work = None
        # A name, because asyncio would make one up for each task.
        self.task = asyncio.get_running_loop().create_task(work, name="casdk")

    def cancel(self) -> None:
        """Raise a `CancelledError` where it waits, in a task."""
        if self.work is not None:
            self._begin(self.work)
        if self.task is not None:
            self.task.cancel()

    def cancelling(self) -> int:
        """Return how many times it was cancelled, as `asyncio.Task.cancelling` does."""
        return 0 if self.task is None else self.task.cancelling()


def tasks_of(those: Iterable[Steps | asyncio.Task[None]]) -> list[asyncio.Task[None]]:
    """Return the tasks among these, and those that others have got."""
    tasks = (one.task if isinstance(one, Steps) else one for one in those)
    return [task for task in tasks if task is not None]


async def have_task() -> None:
    """Have a task carry on whoever awaits this, from the next turn of the loop on, unless one does already."""
    if asyncio.current_task() is None:
        await asyncio.sleep(0)


async def _rest(work: Coroutine[Any, Any, None], waits_for: Any) -> None:
    """Carry on, in a task, what waits for this already."""
    await _passed_on(work, waits_for)


@coroutine
def _passed_on(work: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    is_taken_over = False
    with suppress(StopIteration):
        while True:
            try:
                sent = yield waits_for
            except BaseException as error:
                waits_for = work.throw(error)
            else:
                if is_taken_over:
                    waits_for = work.send(sent)
            is_taken_over = True
