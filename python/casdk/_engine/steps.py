"""Runs a coroutine without a task while it waits for a reply: the reply itself resumes it.

`Caller` runs calls like this, and `casdk._calls.tasks` runs requests.
"""

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
    """Runs a coroutine without a task: each reply that the coroutine waits for resumes it, up to its next wait.

    A task costs as much as everything else that is done for a small request. But a coroutine that waits for anything
    else than a reply gets a task, and so does one whose request has failed: what it does next may take long, and may
    set timeouts, which belong to a task.

    Attributes:
        work: The coroutine, which raises nothing; ``None`` once a task runs it, or it is over.
        task: The task that runs it, if one does.
    """

    work: Coroutine[Any, Any, None] | None
    task: asyncio.Task[None] | None = None

    def go_on(self, waiter: Waiter[Any] | None = None) -> bool:
        """Run the coroutine until its next wait; in a task, if it waited for a reply and got an error.

        Args:
            waiter: The waiter that it has waited for, if it has waited.

        Returns:
            Whether it is over.
        """
        work = self.work
        if work is None:  # it was cancelled before the reply came
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
            rest.send(None)  # started, so that a cancellation before the task's first turn reaches the coroutine
            self._begin(rest)
        return False

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the coroutine in a task from the next turn of the loop on."""
        self.work = None
        # A name, because asyncio would make one up for each task.
        self.task = asyncio.get_running_loop().create_task(work, name="casdk")

    def cancel(self) -> None:
        """Raise a `CancelledError` in the coroutine, in a task."""
        if self.work is not None:
            self._begin(self.work)
        if self.task is not None:
            self.task.cancel()

    def cancelling(self) -> int:
        """Return how many times the coroutine was cancelled, as `asyncio.Task.cancelling` does."""
        return 0 if self.task is None else self.task.cancelling()


def tasks_of(those: Iterable[Steps | asyncio.Task[None]]) -> list[asyncio.Task[None]]:
    """Return the tasks among these, and the tasks that run the coroutines of the others."""
    tasks = (one.task if isinstance(one, Steps) else one for one in those)
    return [task for task in tasks if task is not None]


async def have_task() -> None:
    """Have the awaiting coroutine run in a task from the next turn of the loop on, unless it does already."""
    if asyncio.current_task() is None:
        await asyncio.sleep(0)


async def _rest(work: Coroutine[Any, Any, None], waits_for: Any) -> None:
    """Run the rest of a coroutine, which waits for this already."""
    await _passed_on(work, waits_for)


@coroutine
def _passed_on(work: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """Yield what the coroutine waits for, and pass on to it what is sent and raised here."""
    # `Steps.go_on` sends the first value, only to start this generator: the coroutine must not get it.
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
