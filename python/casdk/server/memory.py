"""Limits the memory of requests: they reserve bytes and wait for them, and the growth of the process is watched.

The `Dispatcher` and the `ImageReader` reserve `Memory` before they allocate; `gateway.py` watches the `Pressure`.
"""

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
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
WATCH_SECONDS = 0.05
"""Time between two looks at the size of the process."""
TRIM_LOOKS = 100
"""Number of looks after which a grown process returns small freed pieces, such as gRPC's, to the system."""
M_MMAP_THRESHOLD = -3
"""The constant of this name in ``<malloc.h>``."""


def give_back_what_is_freed() -> None:
    """Let glibc return large pieces of memory to the system as soon as they are freed.

    By default glibc adapts, and keeps freed pieces of up to 32 MiB, the size of a decoded image. After a few large
    images the process would then stay as large as everything that its threads ever held at once.
    """
    if hasattr(LIBC, "mallopt"):
        LIBC.mallopt(M_MMAP_THRESHOLD, MIB)


def _trim() -> None:
    if hasattr(LIBC, "malloc_trim"):
        LIBC.malloc_trim(0)


class TooLargeError(ValueError):
    """A request would need more memory than the server has."""


class BusyError(Exception):
    """There is no memory for a request now, but there may be later."""


class Memory:
    """A budget of bytes that requests reserve in the order in which they ask, so that a large one is not overtaken.

    The bytes are only counted, not allocated: each request states beforehand what its work will take.

    Args:
        total: Bytes of the budget.
        name: What they are for, as in "memory for replies".
    """

    def __init__(self, total: int, name: str) -> None:
        self.total = total
        self.name = name
        self._free = total
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, Callable[[], object]]] = deque()

    @contextlib.contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Reserve bytes for a ``with``; the thread waits until they are free.

        Raises:
            TooLargeError: The budget is smaller.
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
        """Reserve bytes for an ``async with``; the task waits until they are free.

        Raises:
            TooLargeError: The budget is smaller.
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
        """Reserve bytes now, or join the queue; return whether it joined. `wake` is called once they are reserved."""
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
    """Watches whether the process has grown by more than requests may take together.

    A message reserves memory when it has arrived. Until then gRPC and websockets collect its bytes and do not report
    how many there are, so only the growth of the process shows that too much is arriving at once. On systems that do
    not report the size of a process, the pressure is never high.

    Args:
        most: Bytes by which the process may grow.

    Attributes:
        high: Set while the process has grown by more.
    """

    def __init__(self, most: int) -> None:
        self.high: asyncio.Event = asyncio.Event()
        self._most = most
        self._relief: list[Callable[[], None]] = []

    def relieved_by(self, turn_away: Callable[[], None]) -> None:
        """Call a function regularly while the pressure is high."""
        self._relief.append(turn_away)

    async def watch(self) -> None:
        """Watch the process until the task is cancelled."""
        before, looked = _resident(), 0
        while before:
            grown = _resident() - before
            looked += 1
            if (grown > self._most and not self.high.is_set()) or (
                grown > self._most // 10 and looked % TRIM_LOOKS == 0
            ):
                _trim()  # freed small pieces must not be mistaken for arriving messages
                grown = _resident() - before
            if grown > self._most:
                self.high.set()
                for turn_away in self._relief:
                    turn_away()
            else:
                self.high.clear()
            await asyncio.sleep(WATCH_SECONDS)


def _resident() -> int:
    """Return the resident memory of the process in bytes; 0 if the system does not report it."""
    try:
        return int(STATM.read_text().split()[1]) * PAGE_BYTES
    except OSError:
        return 0
