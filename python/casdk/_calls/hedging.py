"""Which requests of a pool are sent to a second server as well, and when; there is no I/O here, and no clock.

A request is hedged if its server has not answered after the time in which 95 of 100 requests of the same verb were
answered lately. That time is known for requests of a usual size, so only these are hedged. The number of hedges is
limited to a share of all requests: each request saves up that share of a hedge, and a hedge costs a whole one.
"""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import Final

__all__ = ["Hedging"]

REMEMBERED_TIMES: Final = 256
"""So many requests of each verb, the latest, are remembered with their times."""
LEAST_TIMES: Final = 32
"""With fewer remembered times, nothing is hedged."""
NEW_TIMES: Final = 16
"""After so many new times, the time after which a request is late is calculated again."""
ANSWERED_SHARE: Final = 0.95
"""A request that takes longer than this share of all requests is late."""
ALIKE_RATIO: Final = 2.0
"""Requests of at most so many times more, or fewer, bytes than the median are compared, and hedged."""
MOST_SAVED_HEDGES: Final = 10.0
"""So many hedges are saved up at most. When all servers become slow at once, hedges would make them slower."""


class Hedging:
    """Decides which requests of a pool may be sent to a second server; a `PooledWay` has one.

    Args:
        share: The share of all requests that may be hedged, from 0 to 1.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._saved = 0.0
        self._times: dict[str, _Times] = {}

    def send(self, verb: str, size: int) -> float | None:
        """Note that a request is sent; return after how many seconds it is late, ``None`` if it cannot be hedged.

        Args:
            verb: The verb's endpoint.
            size: Size of the request in bytes.
        """
        self._saved = min(MOST_SAVED_HEDGES, self._saved + self._share)
        times = self._times.get(verb)
        return None if times is None else times.late_after(size)

    def answer(self, verb: str, size: int, seconds: float) -> None:
        """Note that a request was answered, by the first or the second server.

        Args:
            verb: The verb's endpoint.
            size: Size of the request in bytes.
            seconds: Seconds since it was sent to the first server. If the second server has answered it, the first one
                would have taken even longer, and the request was late in either case.
        """
        times = self._times.get(verb)
        if times is None:
            times = self._times[verb] = _Times()
        times.add(size, seconds)

    @property
    def may_hedge(self) -> bool:
        """Whether one more request may be hedged."""
        return self._saved >= 1

    def hedge(self) -> None:
        """Note that a request is sent to a second server."""
        self._saved -= 1


class _Times:
    """The times that the latest requests of one verb took; `Hedging` has one for each verb."""

    def __init__(self) -> None:
        self._known: deque[tuple[int, float]] = deque(maxlen=REMEMBERED_TIMES)
        self._new = 0
        self._median = 0
        self._late_after: float | None = None

    def add(self, size: int, seconds: float) -> None:
        """Add the time of one more request."""
        self._known.append((size, seconds))
        self._new += 1
        if len(self._known) >= LEAST_TIMES and (self._new >= NEW_TIMES or self._late_after is None):
            self._new = 0
            self._median = sorted(size for size, _ in self._known)[len(self._known) // 2]
            alike = sorted(seconds for size, seconds in self._known if self._is_alike(size))
            self._late_after = alike[ceil(ANSWERED_SHARE * len(alike)) - 1]

    def late_after(self, size: int) -> float | None:
        """Return after how many seconds a request of so many bytes is late, if that is known."""
        return self._late_after if self._is_alike(size) else None

    def _is_alike(self, size: int) -> bool:
        return self._median / ALIKE_RATIO <= size <= self._median * ALIKE_RATIO
