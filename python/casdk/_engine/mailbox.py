"""How a thread posts functions to a loop that runs in another thread, with few wake-ups."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import sys
from collections import deque
from collections.abc import Callable
from typing import Final
from weakref import WeakKeyDictionary

__all__ = ["Mailbox", "mailbox_of"]


class Mailbox:
    """Functions that other threads have posted to a loop, which is woken once to run all of them.

    ``call_soon_threadsafe`` would wake it for each function, by a system call that releases the GIL. The engine's loop
    has one mailbox, and so has each loop of the caller's (`mailbox_of`).
    """

    def __init__(self) -> None:
        self._posts: deque[tuple[contextvars.Context, Callable[..., object], tuple[object, ...]]] = deque()
        self._reads = 0
        """How many times the loop has begun to run the posted functions."""
        self._woken_at = -1
        """The value of `_reads` when the loop was last woken: while they are equal, the loop will read once more."""
        self._event: int | None = None
        """The descriptor that wakes the loop, if it has one for that alone (`listen`)."""

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the loop woken by an eventfd, where the system has them; runs on the loop's thread, before it turns.

        asyncio wakes a loop through a pair of sockets, from which it reads twice: 15 us where an eventfd takes 4.
        """
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # without one, asyncio wakes the loop
                self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                loop.add_reader(self._event, self._on_event, loop)

    def post(
        self,
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context,
        function: Callable[..., object],
        *arguments: object,
    ) -> None:
        """Run a function on the loop, soon.

        Raises:
            RuntimeError: The loop is closed.
        """
        if loop.is_closed():
            raise RuntimeError("the loop is closed")
        self._posts.append((context, function, arguments))
        # The order of these lines matters. The function is appended first, so that the next read will find it. The loop
        # is noted as woken only after it was woken: a signal's handler that posts in between must wake the loop by
        # itself, and would wait for ever if it relied on a wake-up that has not been made.
        reads = self._reads
        if self._woken_at != reads:
            if sys.platform == "linux" and self._event is not None:
                os.eventfd_write(self._event, 1)
            else:
                loop.call_soon_threadsafe(self._read, loop)
            self._woken_at = reads

    def _on_event(self, loop: asyncio.AbstractEventLoop) -> None:
        if sys.platform == "linux" and self._event is not None:
            try:  # noqa: SIM105 - `suppress` would cost three calls each time that the loop is woken
                os.eventfd_read(self._event)
            except BlockingIOError:  # a forked child has read it
                pass
        self._read(loop)

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        self._reads += 1
        posts = self._posts
        try:
            for _ in range(len(posts)):
                context, function, arguments = posts.popleft()
                try:
                    context.run(function, *arguments)
                except Exception as error:
                    loop.call_exception_handler({"message": f"{function!r} failed", "exception": error})
        finally:
            if posts and self._woken_at != self._reads:
                loop.call_soon(self._read, loop)
                self._woken_at = self._reads


_mailboxes: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox]] = WeakKeyDictionary()


def mailbox_of(loop: asyncio.AbstractEventLoop) -> Mailbox:
    """Return the mailbox of a caller's loop; called on the engine."""
    mailbox = _mailboxes.get(loop)
    if mailbox is None:
        # A post that was never read refers to its loop, so the weak dictionary would never drop a closed loop.
        for other in (reference() for reference in _mailboxes.keyrefs()):
            if other is not None and other.is_closed():
                _mailboxes.pop(other, None)
        mailbox = _mailboxes[loop] = Mailbox()
    return mailbox
