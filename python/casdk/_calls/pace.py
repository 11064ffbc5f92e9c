"""How fast requests may follow each other, as `Limits` say and a server shows; there is no I/O here, and no clock."""

from __future__ import annotations

from typing import Final

import msgspec

from casdk._calls.allowance import Allowance, Ticket

__all__ = ["Pace"]

LONGEST_PAUSE_SECONDS: Final = 5.0
"""How long a server may ask to be sent nothing at all. Requests that it asks to wait for longer do so by themselves, or
fail, as `Retry` says; those of other calls have to find that out as soon."""


class Pace(msgspec.Struct):
    """Decides when the next request may be sent, to one server or for all calls of a client.

    Attributes:
        requests_per_second: The most requests a second; ``None`` for as many as the server takes.
        items_per_second: The most items a second; ``None`` for as many as the server takes.
        next_at: When the next request may be sent, in the engine's time.
        allowance: The rate that the server takes, found out from the requests that it refuses.
        slows: Whether requests have to wait for their turn.
    """

    requests_per_second: float | None = None
    items_per_second: float | None = None
    next_at: float = 0.0
    allowance: Allowance = msgspec.field(default_factory=Allowance)
    slows: bool = False

    def __post_init__(self) -> None:
        self._adapt()

    def _adapt(self) -> None:
        self.slows = (self.requests_per_second or self.items_per_second or self.allowance.rate) is not None

    def send(self, now: float, items: int) -> None:
        """Note that a request is sent, which the next request has to keep a distance from."""
        seconds = 0.0
        if self.requests_per_second is not None:
            seconds = 1 / self.requests_per_second
        if self.items_per_second is not None:
            seconds = max(seconds, items / self.items_per_second)
        if (rate := self.allowance.rate) is not None:
            seconds = max(seconds, 1 / rate)
        self.next_at = now + seconds

    def take_turn(self, now: float, items: int) -> float:
        """Return when a request may be sent, and count it as sent at that time."""
        moment = max(now, self.next_at)
        self.send(moment, items)
        return moment

    def accept(self, ticket: Ticket | None, now: float) -> None:
        """Note that the server has taken a request.

        Args:
            ticket: The request's ticket, from `Allowance.send`.
            now: The time.
        """
        self.allowance.accept(ticket, now)
        self._adapt()

    def refuse(self, ticket: Ticket | None, now: float, asked: float) -> None:
        """Note that the server has refused a request because there are too many.

        Args:
            ticket: The request's ticket, from `Allowance.send`.
            now: The time.
            asked: Seconds that the server asked to wait; 0 if it did not ask.
        """
        before = self.allowance.rate
        takes_nothing = self.allowance.refuse(ticket, now)
        self._adapt()
        if (rate := self.allowance.rate) is None:
            return
        if before is None:
            self.next_at = max(self.next_at, now + 1 / rate)
        if takes_nothing and asked <= LONGEST_PAUSE_SECONDS:
            # A server that takes other requests meanwhile has asked for a wait of this one request only.
            self.next_at = max(self.next_at, now + asked)
