"""What became of each item of a call that is over."""

from __future__ import annotations

from typing import Any

import msgspec

from casdk.errors import CasdkError, ItemError, NotDoneError

__all__ = ["Outcome", "Sent"]


class Sent(msgspec.Struct):
    """What went to the server, of the requests that it answered.

    Attributes:
        bytes: Of the messages, also of those that had to be sent to find out how the server prepares images, and how
            much crops lose.
        cropped: Pictures that went as crops.
        fidelity: The smallest cosine between the rows of crops without and with loss, once that is measured.
        asked: Those bytes that went to find something out, and were not counted with a piece of a stream so far.
    """

    bytes: int = 0
    cropped: int = 0
    fidelity: float | None = None
    asked: int = 0

    def ask(self, size: int) -> None:
        """Count bytes that went to find something out."""
        self.bytes += size
        self.asked += size

    def take_asked(self) -> int:
        """Return the bytes that went to find something out since this was called last."""
        asked, self.asked = self.asked, 0
        return asked


class Outcome(msgspec.Struct, frozen=True):
    """What became of each item of a call that is over.

    Attributes:
        read: Items that were read.
        bad: What each bad item failed with, by its index.
        left: Items that were read, and not done when the call was stopped, by their index.
        stopped: What stopped the call, if anything.
        missing: Indices of all items without a result, ascending.
        sent: What went to the server; of a call whose requests it shared with others nobody knows.
    """

    read: int
    bad: dict[int, ItemError]
    left: dict[int, Any]
    stopped: CasdkError | None
    missing: list[int]
    sent: Sent | None = None

    def errors(self) -> dict[int, ItemError]:
        """Return one error for each item without a result, by its index."""
        errors = dict(self.bad)
        reason = f"it was read, but not done when the call was stopped: {self.stopped}"
        for index, item in self.left.items():
            errors[index] = NotDoneError(index, item, reason, self.stopped)
        return errors
