"""The outcome of a call has an error for each item without a result, and counts all bytes that were sent."""

from casdk import DeadlineError, EmptyItemError, NotDoneError
from casdk._calls.outcome import Outcome, Sent


def test_each_item_without_a_result_has_an_error():
    bad, stopped = EmptyItemError(0, "", "it is empty"), DeadlineError("the call's time ran out")
    outcome = Outcome(3, {0: bad}, {2: "left"}, stopped, [0, 2])
    errors = outcome.errors()
    assert errors[0] is bad
    assert type(errors[2]) is NotDoneError
    assert (errors[2].index, errors[2].item, errors[2].cause) == (2, "left", stopped)
    assert "the call's time ran out" in str(errors[2])
    assert list(outcome.bad) == [0]


def test_what_was_asked_is_sent_and_taken_once():
    sent = Sent(bytes=10)
    sent.ask(5)
    sent.ask(2)
    assert sent.bytes == 17
    assert (sent.take_asked(), sent.take_asked()) == (7, 0)
