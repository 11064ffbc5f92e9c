"""How fast the requests of a client may follow each other, as its `Limits` say; there is no I/O here, and no clock."""

from __future__ import annotations

import msgspec

__all__ = ["Pace"]


class Pace(msgspec.Struct):
    """Says when the next request may be sent, for all calls of a client.

    Attributes:
        requests_per_second: At most so many; ``None`` for as many as the server takes.
        items_per_second: The same of items.
        next_at: When the next request may be sent.
    """

    requests_per_second: float | None = None
    items_per_second: float | None = None
    next_at: float = 0.0

    @property
    def slows(self) -> bool:
        """Whether requests have to wait for their turn."""
        return self.requests_per_second is not None or self.items_per_second is not None

    def send(self, now: float, items: int) -> None:
        """A request is sent, which the next one has to keep its distance from."""
        seconds = 0.0
        if self.requests_per_second is not None:
            seconds = 1 / self.requests_per_second
        if self.items_per_second is not None:
            seconds = max(seconds, items / self.items_per_second)
        self.next_at = now + seconds
