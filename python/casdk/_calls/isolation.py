"""How the bad item of a batch is found by sending halves of it; there is no I/O here.

Of a batch that the executor failed on, only the first half is sent; if it passes, the bad item is in the other half,
which then need not be sent as it is. So one bad item of a batch of ``b`` costs ``ceil(log2 b)`` requests, and one more
for all the halves that were put off.
"""

from __future__ import annotations

from casdk._calls.batches import Batch
from casdk.errors import ServerError

__all__ = ["Isolation"]


class Isolation:
    """The search for the bad item of a batch that the executor failed on; `Call` has one for each such batch.

    Attributes:
        group: Items of which at least one is bad.
        error: The server's latest error about them.
        put_off: Halves that were never sent.
    """

    def __init__(self, batch: Batch, error: ServerError) -> None:
        self.group = batch
        self.error = error
        self.put_off: list[Batch] = []

    @property
    def middle(self) -> int:
        """Where the second half of the group begins."""
        return (len(self.group) + 1) // 2

    def probe(self) -> Batch:
        """Return the half of the group that is sent next."""
        half = self.group.part(0, self.middle)
        half.isolation = self
        return half

    def passed(self) -> None:
        """Note that the half just sent is good, so the bad item is in the other one."""
        self.group = self.group.part(self.middle)

    def failed(self, error: ServerError) -> None:
        """Note that the half just sent is bad; the other one may be bad, too."""
        self.put_off.append(self.group.part(self.middle))
        self.group = self.group.part(0, self.middle)
        self.error = error

    def leave(self) -> list[Batch]:
        """End the search; return all batches that were not sent, without the half just sent."""
        return [self.group.part(self.middle), *reversed(self.put_off)]

    def rest(self) -> Batch | None:
        """Return all that was put off as one batch."""
        rest: Batch | None = None
        for batch in reversed(self.put_off):
            rest = batch if rest is None else rest.joined(batch)
        return rest
