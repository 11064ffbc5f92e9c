"""How the engine's loop pauses for a fork, and what it requires of the owners of connections.

`casdk._engine.process` registers the hooks of a fork; `Engine.pause` and `Engine.resume` use what is here.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from abc import ABC, abstractmethod
from typing import Final, Protocol

__all__ = ["ConnectionOwner", "Library", "Pause", "Pauses"]

RECHECK_SECONDS: Final = 0.01
"""A fork in the middle of another one looks again after this time whether the loop stands still."""
REMEMBERED_PAUSES: Final = 100
"""Ended pauses that are still known, for a fork that was interrupted while so many others began and ended."""


class Pause:
    """A time in which the loop stands still for a fork. `Pauses` makes them, `Engine.pause` waits for them.

    A signal's handler may fork in the middle of another fork, at any line of this code. So nothing here waits for
    something that only the interrupted code would do.

    Attributes:
        task: The task on the loop that stands still, once it has begun.
        over: Whether the loop may go on.
    """

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.over = False
        self._still = False
        self._stopped: Final = threading.Lock()
        """Locked until the loop stands still. It is no event, since an interrupted `Event.wait` may hold its lock."""
        self._stopped.acquire()
        self._end: Final[queue.SimpleQueue[None]] = queue.SimpleQueue()

    def wait(self) -> None:
        """Wait until the loop stands still."""
        while not self._still:
            self._stopped.acquire(timeout=RECHECK_SECONDS)

    def hold(self) -> None:
        """Stand still until `end` is called; runs on the loop, which it blocks."""
        self._still = True
        self._stopped.release()
        self._end.get()

    def end(self) -> None:
        """Let the loop go on."""
        self.over = True
        self._end.put(None)


class Pauses:
    """The pauses of one loop, one after another; any step may be interrupted by a fork that begins and ends others."""

    def __init__(self) -> None:
        self._number = 0
        self._pauses: Final[dict[int, Pause]] = {}

    def begin(self) -> Pause:
        """Return the pause that is under way, or a new one."""
        while True:
            number = self._number
            pause = self._pauses.setdefault(number, Pause())
            if not pause.over:
                return pause
            # The fork that this one interrupts may be just about to end that pause, so it is ended here, too.
            pause.end()
            self._number = number + 1

    def end(self) -> None:
        """End the pause that is under way, if there is one."""
        number = self._number
        pause = self._pauses.get(number)
        if pause is not None:
            pause.end()
            self._number = number + 1
            self._pauses.pop(number - REMEMBERED_PAUSES, None)


class Library(Protocol):
    """What a fork requires of a library that connections are made with; each class of channels implements it."""

    @staticmethod
    async def finish_closing() -> None:
        """Wait, when all connections are closed, until the library has nothing left that a fork would break."""

    @staticmethod
    def mark_forked() -> None:
        """Note, in a forked child, that the parent had open connections when it was forked."""


class ConnectionOwner(ABC):
    """Owns connections on the engine's loop and closes them before a fork; a client's session is one."""

    @abstractmethod
    async def before_fork(self) -> None:
        """Close the connections, which would not survive a fork; requests in flight are sent again afterwards."""

    @abstractmethod
    def after_fork_in_child(self) -> object:
        """Drop everything that belongs to the parent, and return it: it must never be deallocated."""
