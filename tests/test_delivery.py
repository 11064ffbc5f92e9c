"""The pieces of a stream count as memory until the caller takes them, and not after the call."""

import random

import numpy as np
import pytest
from casdk._calls.decisions import Call, RetryBudget
from casdk._calls.delivery import Delivery
from casdk._calls.session import ByteBudget, ByteShare
from casdk._calls.tasks import Tasks
from casdk._calls.window import Window
from casdk.config import Retry

PIECE = np.zeros((2, 4), np.float32)


class Receiver:
    """Has two pieces whose turn it is, and one that waits for its own."""

    pieces = True
    held_back = 1, PIECE.nbytes

    def __init__(self, divides=False):
        self.divides = divides

    def divide(self):
        return self.divides

    def ready(self):
        return [PIECE, PIECE]


class Caller:
    """Notes what is handed over."""

    def __init__(self):
        self.handed = []

    def hand_over(self, piece, taken):
        self.handed.append((piece, taken))


def delivery_of(receiver):
    call = Call(
        window=Window(8), retry=Retry(), budget=RetryBudget(0.1), errors="raise", resend=True, draw=random.random
    )
    return Delivery(call, receiver, Tasks(call.stop), ByteShare(ByteBudget(1 << 20)))


def test_pieces_count_until_they_are_taken():
    delivery, caller = delivery_of(Receiver()), Caller()
    room, budget = delivery.call.room(), delivery.untaken.budget
    delivery.hand_over(caller)
    assert (budget.held, delivery.call.room()) == (2 * PIECE.nbytes, room - 2)
    for piece, taken in caller.handed:
        assert piece is PIECE
        taken()
    assert (budget.held, delivery.call.room()) == (0, room)


@pytest.mark.parametrize("handed_over_before", [True, False])
def test_pieces_of_a_call_that_is_over_do_not_count(handed_over_before):
    delivery, caller = delivery_of(Receiver()), Caller()
    if handed_over_before:
        delivery.hand_over(caller)
    delivery.end(caller)
    delivery.end(caller)
    if not handed_over_before:
        delivery.hand_over(caller)
    assert delivery.untaken.budget.held == 0
    for _, taken in caller.handed:
        taken()
    assert delivery.untaken.budget.held == 0


@pytest.mark.parametrize("divides", [True, False])
def test_what_is_complete_of_a_piece_is_handed_over_at_the_end(divides):
    delivery, caller = delivery_of(Receiver(divides)), Caller()
    delivery.end(caller)
    delivery.end(caller)
    assert len(caller.handed) == (2 if divides else 0)
    assert delivery.untaken.budget.held == 0
