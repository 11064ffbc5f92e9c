"""The outcome of a call that is over: which items have a result, which failed, and what was sent for them."""

from __future__ import annotations

from typing import Any

import msgspec

from casdk.errors import CasdkError, ItemError, NotDoneError

__all__ = ["Outcome", "Sent"]


class Sent(msgspec.Struct):
    """How much was sent to the server, in the requests that it answered.

    Attributes:
        bytes: Bytes of the messages, those that find out how the server treats images included.
        cropped: Pictures that were sent as crops.
        fidelity: The smallest cosine between the rows of crops without and with loss, once it is measured.
        asked: Bytes of messages that find something out and are not counted with a piece of a stream so far.
    """

    bytes: int = 0
    cropped: int = 0
    fidelity: float | None = None
    asked: int = 0

    def ask(self, size: int) -> None:
        """Count the bytes of a message that finds something out."""
        self.bytes += size
        self.asked += size

    def take_asked(self) -> int:
        """Return the bytes that `ask` has counted since this was called last."""
        asked, self.asked = self.asked, 0
        return asked


class Outcome(msgspec.Struct, frozen=True):
    """What became of each item of a call that is over.

    Attributes:
        read: How many items were read.
        bad: The error of each bad item, by its index.
        left: Items that were read, and not done when the call was stopped, by their index.
        stopped: The error that stopped the call, if it was stopped.
        missing: Indices of all items without a result, ascending.
        sent: How much was sent; ``None`` if the call shared its requests with others.
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
