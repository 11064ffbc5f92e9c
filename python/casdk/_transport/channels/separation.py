"""Which requests may share a websocket at the same time; both websocket channels have a `Separation`."""

from __future__ import annotations

import asyncio

__all__ = ["Separation"]


class Separation:
    """Keeps requests that may end the connection apart from requests that must not be sent twice.

    A request that is larger than any before may be too large. The server closes the websocket for that, and then it is
    not known whether it had begun with the others in flight.

    Attributes:
        accepted_bytes: Bytes of the largest request that was answered.
    """

    def __init__(self) -> None:
        self.accepted_bytes = 0
        self._untried = self._once = 0
        self._waiting: list[asyncio.Future[None]] = []

    async def enter(self, untried: bool, once: bool) -> None:
        """Wait until a request may be sent.

        Args:
            untried: Whether it is larger than any request before.
            once: Whether it must not be sent twice.
        """
        while (once and self._untried) or (untried and self._once):
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        self._untried += untried
        self._once += once

    def leave(self, untried: bool, once: bool) -> None:
        """Note that a request is over; the arguments are those of `enter`."""
        self._untried -= untried
        self._once -= once
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
