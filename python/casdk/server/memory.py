"""How many bytes requests may hold at once: who asks for more waits, and what nobody could ask for is watched."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

__all__ = ["BusyError", "Memory", "Pressure", "TooLargeError", "give_back_what_is_freed"]

MIB = 1 << 20
LIBC = ctypes.CDLL(None)
STATM = Path("/proc/self/statm")
PAGE = os.sysconf("SC_PAGE_SIZE")
WATCH_SECONDS = 0.05
TRIMMED = 100
"""Looks after which a grown process gives back what was freed in small pieces, as gRPC's are."""
M_MMAP_THRESHOLD = -3
"""Of ``<malloc.h>``."""


def give_back_what_is_freed() -> None:
    """Have glibc return large pieces of memory to the system as soon as they are freed.

    By itself it learns to keep pieces of up to 32 MiB, as an image is made of, and after a few large images the
    process stays as large as all that its threads ever held at once.
    """
    if hasattr(LIBC, "mallopt"):
        LIBC.mallopt(M_MMAP_THRESHOLD, MIB)


def _trim() -> None:
    if hasattr(LIBC, "malloc_trim"):
        LIBC.malloc_trim(0)


class TooLargeError(ValueError):
    """One holder would need more than there is, however long it waited."""


class BusyError(Exception):
    """There is no memory for it now; later there may be."""


class Memory:
    """A number of bytes that holders share: first come, first served, so that a large one is not passed for ever.

    It is only counted, not allocated: whoever holds says beforehand what its work will take.

    Args:
        total: Bytes there are.
        name: What they are for, as errors say it.
    """

    def __init__(self, total: int, name: str) -> None:
        self.total = total
        self.name = name
        self._free = total
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, Callable[[], object]]] = deque()

    @contextlib.contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Hold so many bytes; a thread waits for them.

        Raises:
            TooLargeError: There are not as many.
        """
        turn = threading.Event()
        self._ask(amount, turn.set)
        turn.wait()
        try:
            yield
        finally:
            self._give_back(amount)

    @contextlib.asynccontextmanager
    async def hold_on_loop(self, amount: int) -> AsyncIterator[None]:
        """Hold so many bytes; a task waits for them.

        Raises:
            TooLargeError: There are not as many.
        """
        loop = asyncio.get_running_loop()
        turn = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(turn.set)

        waiting = self._ask(amount, wake)
        try:
            if waiting:
                await turn.wait()
        except asyncio.CancelledError:
            self._take_back(amount, wake)
            raise
        try:
            yield
        finally:
            self._give_back(amount)

    def _ask(self, amount: int, wake: Callable[[], object]) -> bool:
        """Take bytes, or a place in the queue; return whether it is the latter. `wake` is called in any case."""
        if amount > self.total:
            raise TooLargeError(
                f"this takes about {amount // MIB} MiB, and the server has {self.total // MIB} MiB for {self.name}"
            )
        with self._lock:
            if self._waiting or amount > self._free:
                self._waiting.append((amount, wake))
                return True
            self._free -= amount
        wake()
        return False

    def _take_back(self, amount: int, wake: Callable[[], object]) -> None:
        """Leave the queue, or return the memory, if that was granted in the same moment."""
        with self._lock:
            try:
                self._waiting.remove((amount, wake))
            except ValueError:
                had_it = True
            else:
                had_it = False
        self._give_back(amount if had_it else 0)

    def _give_back(self, amount: int) -> None:
        with self._lock:
            self._free += amount
            served = []
            while self._waiting and self._waiting[0][0] <= self._free:
                asked, wake = self._waiting.popleft()
                self._free -= asked
                served.append(wake)
        for wake in served:
            wake()


class Pressure:
    """Whether the process has grown by more than requests may take together.

    What a message takes is asked for when it has arrived. Until then gRPC and websockets collect its bytes, and do not
    say how many there are; so the growth of the process shows when too much is arriving at once. Where the system does
    not say how large a process is, there is no pressure.

    Args:
        most: Bytes by which it may grow.

    Attributes:
        high: Set while it has grown by more.
    """

    def __init__(self, most: int) -> None:
        self.high: asyncio.Event = asyncio.Event()
        self._most = most
        self._relief: list[Callable[[], None]] = []

    def relieved_by(self, turn_away: Callable[[], None]) -> None:
        """Have a function called, again and again, while the pressure is high."""
        self._relief.append(turn_away)

    async def watch(self) -> None:
        """Look at it for ever."""
        before, looked = _resident(), 0
        while before:
            grown = _resident() - before
            looked += 1
            if (grown > self._most and not self.high.is_set()) or (grown > self._most // 10 and looked % TRIMMED == 0):
                _trim()  # what was freed in small pieces is not what arrives
                grown = _resident() - before
            if grown > self._most:
                self.high.set()
                for turn_away in self._relief:
                    turn_away()
            else:
                self.high.clear()
            await asyncio.sleep(WATCH_SECONDS)


def _resident() -> int:
    """Return how much memory the process has, 0 where that cannot be known."""
    try:
        return int(STATM.read_text().split()[1]) * PAGE
    except OSError:
        return 0
