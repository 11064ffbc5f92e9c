from casdk import DeadlineError, EmptyItemError, NotDoneError
from casdk._calls.outcome import Outcome


def test_each_item_without_a_result_has_an_error():
    bad, stopped = EmptyItemError(0, "", "it is empty"), DeadlineError("the call's time ran out")
    outcome = Outcome(3, {0: bad}, {2: "left"}, stopped, [0, 2])
    errors = outcome.errors()
    assert errors[0] is bad
    assert type(errors[2]) is NotDoneError
    assert (errors[2].index, errors[2].item, errors[2].cause) == (2, "left", stopped)
    assert "the call's time ran out" in str(errors[2])
    assert list(outcome.bad) == [0]
