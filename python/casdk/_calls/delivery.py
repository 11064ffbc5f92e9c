"""How a stream hands its pieces over to the caller, and counts the bytes of those that were not taken yet."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from casdk._calls.answers import Answer
from casdk._calls.decisions import Call
from casdk._calls.session import BYTE_SHARES, ByteShare
from casdk._calls.tasks import Tasks
from casdk._engine.callers import Caller

__all__ = ["Delivery"]


class Delivery(msgspec.Struct, eq=False):
    """Hands over the pieces of one call, in order; its `Run` has one if the call's answer comes in pieces.

    Attributes:
        call: The decisions, which count the pieces that the caller has not taken.
        receiver: The answer that has the pieces.
        tasks: The call's tasks, which are woken when a piece is taken.
        untaken: Bytes of the pieces that the caller has not taken.
        is_over: Whether the call is over, so that the remaining pieces may never be taken.
    """

    call: Call
    receiver: Answer
    tasks: Tasks
    untaken: ByteShare
    is_over: bool = False

    def hand_over(self, caller: Caller[Any]) -> None:
        """Hand over the pieces that are complete and next in order."""
        for piece in self.receiver.ready():
            size = piece.nbytes
            self.call.deliver()
            if not self.is_over:
                self.untaken.hold(size)
            caller.hand_over(piece, partial(self._taken, size))
        whole, size = self.receiver.held_back
        self.call.hold_back(whole, full=size >= self.untaken.budget.most // BYTE_SHARES)

    def _taken(self, size: int) -> None:
        """Note that the caller has taken a piece, which may be after the end of the call."""
        if not self.is_over:
            self.call.delivered()
            self.untaken.hold(-size)
            self.tasks.wake()

    def end(self, caller: Caller[Any]) -> None:
        """Hand over what is complete of joined requests, and stop counting untaken pieces: the call is over."""
        if not self.is_over:
            if self.receiver.divide():
                self.hand_over(caller)
            self.is_over = True
            self.untaken.hold(-self.untaken.held)
