"""The tasks and requests that one call has under way, and the future by which they, or the caller, wake the call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from casdk._engine.steps import Steps, tasks_of

__all__ = ["Tasks", "Work", "retrieve", "sleep_until"]

Work = Callable[..., Coroutine[Any, Any, None]]
"""A coroutine function. A coroutine would never be awaited if its task was cancelled before the first step."""


class Tasks(msgspec.Struct, eq=False):
    """The tasks and requests that one call has under way; `Run` and `Reading` use it, on the engine.

    Attributes:
        stop: Called with what a task raised.
        running: What has not ended, by a key of its own: tasks, and requests that wait for a reply without a task.
        readers: The tasks among them that read content and send nothing.
        wakeup: The future that the call waits for, while it sleeps.
    """

    stop: Callable[[BaseException], None]
    running: dict[object, asyncio.Task[None] | Steps] = {}
    readers: set[asyncio.Task[None]] = set()
    wakeup: asyncio.Future[None] | None = None

    def spawn(self, work: Work, *arguments: Any, reads: bool = False) -> None:
        """Run a coroutine function as a task.

        Args:
            work: The function.
            *arguments: The function's arguments.
            reads: Whether it reads content and sends nothing.
        """
        key = object()
        task = self.begin(key, self._run(key, work, arguments))
        if reads:
            self.readers.add(task)
            task.add_done_callback(self.readers.discard)

    def begin(self, key: object, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine that raises nothing, and calls `end` at its end, as a task."""
        # A name, because asyncio would make one up for each task.
        task = self.running[key] = asyncio.get_running_loop().create_task(work, name="casdk")
        return task

    def carry_on(self, key: object, work: Coroutine[Any, Any, None]) -> bool:
        """Run a coroutine that raises nothing, and calls `end` at its end, without a task while it waits for a reply.

        Nothing before that may set a limit of time, which belongs to the current task: the call's.

        Returns:
            Whether it is over.
        """
        steps = Steps(work)
        if steps.go_on():
            return True
        self.running[key] = steps
        return False

    def end(self, key: object) -> None:
        """Note that a task or request is over, and wake the call: a done-callback would run one turn later."""
        self.running.pop(key, None)
        wakeup = self.wakeup
        if wakeup is not None:
            self.wakeup = None  # so that the other tasks of this turn do not wake it again
            _end(wakeup)

    async def _run(self, key: object, work: Work, arguments: tuple[Any, ...]) -> None:
        try:
            await work(*arguments)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.stop(error)
        finally:
            self.end(key)

    def wake(self) -> None:
        """End the sleep, if the call sleeps."""
        if self.wakeup is not None:
            _end(self.wakeup)

    async def sleep(self, until: float | None) -> None:
        """Wait until a task, a request or the caller wakes the call.

        Args:
            until: When it wakes in any case, in the engine's time; ``None`` for never.
        """
        loop = asyncio.get_running_loop()
        self.wakeup = wakeup = loop.create_future()
        timer = None if until is None else loop.call_at(until, _end, wakeup)
        try:
            await wakeup
        finally:
            self.wakeup = None
            if timer is not None:
                timer.cancel()

    async def wait_for_answers(self, seconds: float) -> None:
        """Wait for the tasks that send, but not for longer than that."""
        if senders := {*tasks_of(self.running.values())} - self.readers:
            await asyncio.wait(senders, timeout=seconds)

    async def cancel_all(self) -> None:
        """Cancel what is still under way, and wait for its end."""
        for one in tuple(self.running.values()):
            one.cancel()
        await asyncio.gather(*tasks_of(self.running.values()), return_exceptions=True)
        self.readers.clear()  # a cancelled task refers to its last frames, and these to the call


def retrieve(task: asyncio.Task[Any]) -> None:
    """Retrieve the exception of a task that nobody may wait for any more: asyncio would log it otherwise."""
    if not task.cancelled():
        task.exception()


async def sleep_until(moment: float) -> None:
    """Wait until a moment, in the engine's time."""
    await asyncio.sleep(moment - asyncio.get_running_loop().time())


def _end(wakeup: asyncio.Future[None]) -> None:
    if not wakeup.done():
        wakeup.set_result(None)
