"""The tasks of one call, and what the call sleeps on until one of them, or its caller, wakes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import msgspec

__all__ = ["Tasks", "Work"]

Work = Callable[..., Coroutine[Any, Any, None]]
"""A coroutine function. A coroutine would be awaited by nobody if its task was cancelled before its first step."""


class Tasks(msgspec.Struct, eq=False):
    """What one call does at the same time. Made on the engine or before; used on it.

    Attributes:
        stop: Told what a task raised.
        running: The tasks that have not ended.
        readers: Those of them that read, and send nothing.
        wakeup: What the call sleeps on, if it sleeps.
    """

    stop: Callable[[BaseException], None]
    running: set[asyncio.Task[None]] = set()
    readers: set[asyncio.Task[None]] = set()
    wakeup: asyncio.Future[None] | None = None

    def spawn(self, work: Work, *arguments: Any, reads: bool = False) -> None:
        """Run a coroutine function as a task.

        Args:
            work: The function.
            *arguments: Its own.
            reads: Whether it reads, and sends nothing.
        """
        task = asyncio.get_running_loop().create_task(self._see_to(work, *arguments))
        self.running.add(task)
        if reads:
            self.readers.add(task)
            task.add_done_callback(self.readers.discard)

    async def _see_to(self, work: Work, *arguments: Any) -> None:
        # It wakes the call by itself: a task's callback would, a turn of the loop later.
        try:
            await work(*arguments)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.stop(error)
        finally:
            self.running.discard(cast(Any, asyncio.current_task()))
            self.wake()

    def wake(self) -> None:
        """End the sleep, if the call sleeps."""
        if self.wakeup is not None:
            _end(self.wakeup)

    async def sleep(self, until: float | None) -> None:
        """Wait until something wakes the call.

        Args:
            until: When it wakes by itself, in the engine's time.
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
        if senders := self.running - self.readers:
            await asyncio.wait(senders, timeout=seconds)

    async def abandon(self) -> None:
        """Take back what is still under way."""
        tasks = tuple(self.running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.readers.clear()  # cancelled, they hold the frames of their end, and these the call


def _end(wakeup: asyncio.Future[None]) -> None:
    if not wakeup.done():
        wakeup.set_result(None)
