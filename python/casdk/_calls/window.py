"""How many requests of a call may be in flight; there is no I/O here."""

from __future__ import annotations

from typing import Final

__all__ = ["GROWN_WINDOW_REQUESTS", "WINDOW_REQUESTS", "WINDOW_REQUESTS_EACH", "Window"]

WINDOW_REQUESTS: Final = 8
"""Requests in flight per call, unless the client says: enough to keep a server busy that takes its time."""
WINDOW_REQUESTS_EACH: Final = 4
"""The same for each of several servers, where that comes to more: one that it works at, and some that wait."""
GROWN_WINDOW_REQUESTS: Final = 32
"""Requests in flight that a window may grow to: with more of them, the client often does a step for several at once."""
QUICK_SECONDS: Final = 0.02
"""The window grows if a request is answered within this time, the wait behind all others in flight included. A server
that takes longer has another request to work at already."""
LIGHT_BYTES: Final = 8 << 20
"""The window grows only while all requests and replies in flight come to no more: then it costs little memory."""


class Window:
    """How many requests of a call may be in flight; the calls of a client without a ``prefetch`` share one.

    Args:
        size: How many requests at first, and at least.
        most: How many at most; by default the window does not grow.

    Attributes:
        size: How many requests now.
    """

    def __init__(self, size: int, most: int | None = None) -> None:
        self.size: int = size
        self._least = size
        self._most = size if most is None else most

    def answered(self, took: float, size: int) -> None:
        """Note that a request was answered.

        Args:
            took: Seconds from handing the request to the channel until its reply was there.
            size: Bytes of request and reply together.
        """
        if took <= QUICK_SECONDS and self.size * size <= LIGHT_BYTES:
            if self.size < self._most:
                self.size += 1
        elif self.size > self._least:
            self.size -= 1

    def failed(self) -> None:
        """Note that a request failed, since the server may be overloaded."""
        self.size = self._least
