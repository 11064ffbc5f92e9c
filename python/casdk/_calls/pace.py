"""How fast the requests of a client may follow each other; there is no I/O here, and no clock.

Two things slow a client down: what its `Limits` say, and a server that refuses requests because there are too many.
Such a server mostly fills a bucket with so many requests a second, and takes one out for each. It does not say how
many; that is found out here. At each refusal the bucket is empty: so what it took between two refusals, divided by the
time between them, is the rate at which it is filled.
"""

from __future__ import annotations

from math import inf
from typing import Final

__all__ = ["Pace"]

LEAST_REQUESTS_PER_SECOND: Final = 0.1
"""No server's refusals slow a client down further than this."""
MEASURED_REQUESTS: Final = 8
"""So many requests have to be taken between two refusals, for the time between them to say how fast a server is."""
BELOW: Final = 0.98
"""How much of the measured rate is used, as the measure is off by a request or so."""
SEARCH_REQUESTS: Final = 5
SEARCH_STEP: Final = 1.25
"""Before there is a measure, the rate is raised by this factor after each so many requests without a refusal."""
FIRST_STEP: Final = 1.1
FIRST_STEP_SECONDS: Final = 0.5
"""With a measure, the rate is raised by this factor after so many seconds without a refusal: the bucket may have run
over while the rate was searched for, and then it is filled faster than was measured."""
LEAST_STEP: Final = 1.02
LONGEST_STEP_SECONDS: Final = 64.0
"""After each refusal the step becomes half as large and takes twice as long, down and up to these: a client that knows
the rate hardly tries to exceed it."""


class Pace:
    """Says when the next request may be sent, for all calls of a client.

    Args:
        requests_per_second: As the client's `Limits` say; ``None`` for as many as the server takes.
        items_per_second: The same of items.

    Attributes:
        slows: Whether requests have to wait for their turn.
        next_at: When the next request may be sent.
    """

    def __init__(self, requests_per_second: float | None = None, items_per_second: float | None = None) -> None:
        self._most = inf if requests_per_second is None else requests_per_second
        self._rate = self._most
        self._seconds_an_item = 0.0 if items_per_second is None else 1 / items_per_second
        self.slows = requests_per_second is not None or items_per_second is not None
        self.next_at = 0.0
        self._slowed_at: float | None = None
        self._taken = 0
        self._is_measured = False
        self._raise_at = inf
        self._step, self._step_seconds = SEARCH_STEP, 0.0

    @property
    def requests_per_second(self) -> float:
        """Requests a second that may be sent now, at most."""
        return self._rate

    def send(self, now: float, items: int) -> None:
        """A request is sent, which the next one has to keep its distance from."""
        if now >= self._raise_at:
            self._rate = min(self._rate * self._step, self._most)
            self._plan_raise(now)
        self.next_at = now + max(1 / self._rate, items * self._seconds_an_item)

    def _plan_raise(self, now: float) -> None:
        seconds = self._step_seconds if self._is_measured else SEARCH_REQUESTS / self._rate
        self._raise_at = now + seconds if self._rate < self._most else inf

    def taken(self, sent_at: float) -> None:
        """The server took a request.

        Args:
            sent_at: When it was sent.
        """
        if self._slowed_at is not None and sent_at >= self._slowed_at:
            self._taken += 1

    def refused(self, now: float, sent_at: float, retry_after: float | None) -> None:
        """The server refused a request, as there are too many.

        Args:
            now: When the refusal came.
            sent_at: When the request was sent.
            retry_after: Seconds that the server asked to wait.
        """
        since = self._slowed_at
        if since is not None and sent_at < since:
            return  # it was on its way already when the pace was slowed down
        self.slows = True
        measured = None
        if since is not None and self._taken >= MEASURED_REQUESTS:
            measured = self._taken / (sent_at - since) * BELOW
        if self._is_measured:
            rate = self._rate / self._step if measured is None else measured
            self._step = max(1 + (self._step - 1) / 2, LEAST_STEP)
            self._step_seconds = min(self._step_seconds * 2, LONGEST_STEP_SECONDS)
        elif measured is not None:
            rate, self._is_measured = measured, True
            self._step, self._step_seconds = FIRST_STEP, FIRST_STEP_SECONDS
        else:
            # Nothing is known but that the server answered in this time.
            rate = min(self._rate, 1 / max(now - sent_at, 1e-3)) / 2
        self._rate = max(min(rate, self._rate), LEAST_REQUESTS_PER_SECOND)
        self._taken = 0
        self._slowed_at = now + (retry_after or 0.0)
        self.next_at = self._slowed_at + 1 / self._rate
        self._plan_raise(self._slowed_at)
