"""How threads hand work to a loop that is not theirs."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from typing import Final
from weakref import WeakKeyDictionary

__all__ = ["Mailbox", "mailbox_of"]


class Mailbox:
    """Functions that other threads want to be run on a loop, which is woken once for all of them.

    ``call_soon_threadsafe`` wakes it for each, by a system call that gives the GIL away.
    """

    def __init__(self) -> None:
        self._letters: deque[tuple[contextvars.Context, Callable[..., object], tuple[object, ...]]] = deque()
        self._reads = 0
        self._rung = -1

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
        self._letters.append((context, function, arguments))
        # In this order. Whoever finds that the loop is woken for the next read has left the letter before that read
        # begins; and nobody finds it before it is true: a signal's handler may post here in the middle of a post.
        reads = self._reads
        if self._rung != reads:
            loop.call_soon_threadsafe(self._read, loop)
            self._rung = reads

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        self._reads += 1
        letters = self._letters
        try:
            for _ in range(len(letters)):
                context, function, arguments = letters.popleft()
                try:
                    context.run(function, *arguments)
                except Exception as error:
                    loop.call_exception_handler({"message": f"{function!r} failed", "exception": error})
        finally:
            if letters and self._rung != self._reads:
                loop.call_soon(self._read, loop)
                self._rung = self._reads


_mailboxes: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox]] = WeakKeyDictionary()


def mailbox_of(loop: asyncio.AbstractEventLoop) -> Mailbox:
    """Return the mailbox of a caller's loop; called on the engine."""
    mailbox = _mailboxes.get(loop)
    if mailbox is None:
        # An unread letter leads back to its loop, so that a closed one would be kept for ever.
        for other in (reference() for reference in _mailboxes.keyrefs()):
            if other is not None and other.is_closed():
                _mailboxes.pop(other, None)
        mailbox = _mailboxes[loop] = Mailbox()
    return mailbox
