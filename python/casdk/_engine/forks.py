"""What a fork asks of the engine's loop, and of those who own connections on it."""

from __future__ import annotations

import asyncio
import queue
import threading
from abc import ABC, abstractmethod
from typing import Final, Protocol

__all__ = ["Library", "Pause", "Pauses", "Resident"]

GLANCE: Final = 0.01
"""Seconds after which a fork in the middle of another one looks again whether the loop stands still."""
REMEMBERED: Final = 100
"""Pauses, for who was interrupted by as many."""


class Pause:
    """A time in which the loop stands still, for a fork and for those in the middle of it.

    Such a handler may run at any line, and so nothing here waits for what the code that it interrupts would do.

    Attributes:
        task: What stands still, once it has begun.
        over: Whether the loop is free to go on.
    """

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.over = False
        self._still = False
        self._bell: Final = threading.Lock()
        self._bell.acquire()
        self._end: Final[queue.SimpleQueue[None]] = queue.SimpleQueue()

    def wait(self) -> None:
        """Wait until the loop stands still."""
        while not self._still:
            self._bell.acquire(timeout=GLANCE)

    def hold(self) -> None:
        """Stand still until the end."""
        self._still = True
        self._bell.release()
        self._end.get()

    def end(self) -> None:
        """Let the loop go on."""
        self.over = True
        self._end.put(None)


class Pauses:
    """The pauses of a loop, one after another. Each step can be interrupted by one that begins and ends others."""

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
            pause.end()  # for what this interrupts, which may be about to do it
            self._number = number + 1

    def end(self) -> None:
        """End the one that is under way, if there is one."""
        number = self._number
        pause = self._pauses.get(number)
        if pause is not None:
            pause.end()
            self._number = number + 1
            self._pauses.pop(number - REMEMBERED, None)


class Library(Protocol):
    """What connections are made with, as far as forks go."""

    @staticmethod
    async def settle() -> None:
        """Wait, when all connections are closed, until nothing is left that a fork would break."""

    @staticmethod
    def strand() -> None:
        """Take note that this process was forked from one with open connections."""


class Resident(ABC):
    """What owns connections on the engine's loop and must know about forks."""

    @abstractmethod
    async def before_fork(self) -> None:
        """Close what would not survive a fork; what is in flight is sent again afterwards."""

    @abstractmethod
    def after_fork_in_child(self) -> object:
        """Forget everything that belongs to the parent, and return it: it must never be deallocated."""
