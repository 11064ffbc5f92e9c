"""The core, fed with events: no server, no loop, no clock."""

import math

import pytest
from casdk._calls.batches import Batch
from casdk._calls.decisions import FREE_RETRIES, Call, RetryBudget
from casdk._calls.window import QUICK_SECONDS, Window
from casdk._rust import Kind
from casdk.config import Retry
from casdk.errors import (
    AuthError,
    DeadlineError,
    NotSupportedError,
    OverloadedError,
    RejectedError,
    ReplyError,
    ServerError,
    TransportError,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def make_call(**changes):
    settings = {
        "window": Window(4),
        "retry": Retry(attempts=3, backoff=1.0, max_backoff=8.0, jitter=0.5),
        "budget": RetryBudget(0.2),
        "errors": "raise",
        "resend": True,
        "draw": lambda: 0.0,
    }
    return Call(**{**settings, **changes})


def make_batch(start, size):
    return Batch(
        range(start, start + size), [f"text {i}" for i in range(start, start + size)], bytes([Kind.TEXT]) * size
    )


def boom(name="ValueError"):
    return ServerError("boom", name=name, for_item=True)


def test_pieces_before_their_turn_hold_back_what_is_read():
    call = make_call(window=Window(2))
    call.hold_back(2, full=False)
    assert call.room() == 2
    call.hold_back(3, full=False)
    assert call.room() == 1
    call.hold_back(1, full=True)
    assert call.room() == 0
    call.hold_back(0, full=False)
    assert call.room() == 2


def test_window_bounds_what_is_read_and_what_is_sent():
    call = make_call(window=Window(2))
    assert call.room() == 2
    call.add(make_batch(0, 3))
    call.add(make_batch(3, 3))
    assert call.room() == 0
    first, second = call.next_batch(0), call.next_batch(0)
    assert call.next_batch(0) is None
    assert call.room() == 0
    call.succeed(first, 3)
    assert call.room() == 1
    call.end_input()
    assert call.room() == 0
    assert not call.is_finished()
    call.succeed(second, 3)
    assert call.is_finished()
    assert call.done == 6


def test_a_window_grows_while_the_server_answers_at_once():
    window = Window(8, 32)
    call = make_call(window=window)
    for _ in range(5):
        call.answered(QUICK_SECONDS, 100)
    assert (window.size, call.room()) == (13, 13)
    for _ in range(30):
        call.answered(QUICK_SECONDS / 2, 100)
    assert (window.size, call.room()) == (32, 32)
    call.answered(QUICK_SECONDS * 1.01, 100)
    assert window.size == 31
    for _ in range(40):
        call.answered(QUICK_SECONDS * 2, 100)
    assert window.size == 8


def test_a_failed_request_takes_the_window_back():
    window = Window(8, 32)
    for _ in range(30):
        window.answered(0.0, 100)
    call = make_call(window=window)
    call.add(make_batch(0, 1))
    call.fail(call.next_batch(0), OverloadedError("busy"), 0)
    assert window.size == 8


def test_empty_input_finishes_at_once():
    call = make_call()
    call.end_input()
    assert call.is_finished()


def test_repeats_back_off_exponentially_and_end():
    call = make_call()
    call.add(make_batch(0, 1))
    call.end_input()
    now, waits = 0.0, []
    while True:
        batch = call.next_batch(now)
        call.fail(batch, TransportError("reset"), now)
        if call.is_finished():
            break
        waits.append(call.wake_at - now)
        assert call.next_batch(now) is None
        now = call.wake_at
    assert waits == [1.0, 2.0]
    assert isinstance(call.stopped, TransportError)


def test_jitter_shortens_a_wait_by_its_share():
    call = make_call(draw=lambda: 1.0)
    call.add(make_batch(0, 1))
    call.fail(call.next_batch(0.0), TransportError("reset"), 0.0)
    assert call.wake_at == 0.5


def test_retry_after_is_the_least_wait():
    call = make_call()
    call.add(make_batch(0, 1))
    call.fail(call.next_batch(0.0), OverloadedError("busy", retryable=True, retry_after=7.0), 0.0)
    assert call.wake_at == 7.0


@pytest.mark.parametrize(
    "error",
    [
        TransportError("bad certificate", retryable=False),
        ServerError("no"),
        ReplyError("garbage"),
        DeadlineError("late"),
    ],
)
def test_a_request_is_not_repeated_if_that_cannot_help(error):
    call = make_call()
    call.add(make_batch(0, 1))
    call.fail(call.next_batch(0.0), error, 0.0)
    assert call.stopped is error


@pytest.mark.parametrize(("sent", "repeated"), [(True, False), (False, True)])
def test_without_resend_only_what_never_left_is_repeated(sent, repeated):
    call = make_call(resend=False)
    call.add(make_batch(0, 1))
    call.fail(call.next_batch(0.0), TransportError("reset", sent=sent), 0.0)
    assert (call.stopped is None) is repeated


def test_budget_is_shared_and_earned_back():
    budget = RetryBudget(0.5)
    assert [budget.spend() for _ in range(FREE_RETRIES + 1)] == [True] * FREE_RETRIES + [False]
    budget.earn()
    assert not budget.spend()
    budget.earn()
    assert budget.spend()


def test_an_interruption_counts_as_no_attempt():
    call = make_call(retry=Retry(attempts=1))
    call.add(make_batch(0, 1))
    batch = call.next_batch(0.0)
    call.interrupt(batch)
    again = call.next_batch(0.0)
    assert again is batch
    assert again.attempts == 1


def test_tolerant_call_loses_a_batch_and_goes_on():
    call = make_call(tolerant=True)
    call.add(make_batch(0, 2))
    call.add(make_batch(2, 2))
    call.end_input()
    bad, good = call.next_batch(0.0), call.next_batch(0.0)
    call.fail(bad, ServerError("no"), 0.0)
    call.succeed(good, 2)
    assert call.is_finished()
    assert call.stopped is None
    assert [(index, error.index) for index, error in call.bad.items()] == [(index, index) for index in bad.indices]
    assert call.stopped is None


def run_against(call, bad):
    """Serve a call with an executor that fails on the bad items; return the requests it took."""
    requests, served = 0, []
    while (batch := call.next_batch(0.0)) is not None:
        requests += 1
        if bad.intersection(batch.indices):
            call.fail(batch, boom(), 0.0)
        else:
            served += batch.indices
            call.succeed(batch, len(batch))
    return requests, served


@settings(max_examples=300)
@given(st.data(), st.integers(1, 64))
def test_bad_items_are_named_within_the_bound(data, size):
    bad = data.draw(st.sets(st.integers(0, size - 1), max_size=8))
    call = make_call(errors="return", window=Window(1))
    call.add(make_batch(0, size))
    call.end_input()
    requests, served = run_against(call, bad)
    assert call.is_finished()
    assert set(call.bad) == bad
    assert sorted(served) == [i for i in range(size) if i not in bad]
    assert requests <= 1 + len(bad) * math.ceil(math.log2(max(size, 2))) + len(bad)
    for index, error in call.bad.items():
        assert isinstance(error, RejectedError)
        assert (error.index, error.item) == (index, f"text {index}")
        assert error.cause.name == "ValueError"


def test_raise_stops_at_the_first_bad_item():
    call = make_call(window=Window(1))
    call.add(make_batch(0, 8))
    run_against(call, {5})
    assert isinstance(call.stopped, RejectedError)
    assert call.stopped.index == 5


def test_an_executor_that_always_fails_is_not_searched_for_ever():
    call = make_call(errors="return", window=Window(1))
    for start in range(0, 32 * 100, 32):
        call.add(make_batch(start, 32))
    call.end_input()
    requests, _ = run_against(call, set(range(3200)))
    assert isinstance(call.stopped, ServerError)
    assert requests < 32 * 8 * 3


def test_a_transport_error_is_never_split():
    call = make_call(errors="return", window=Window(1))
    call.add(make_batch(0, 32))
    call.end_input()
    now, sizes = 0.0, []
    while not call.is_finished():
        batch = call.next_batch(now)
        if batch is None:
            now = call.wake_at
            continue
        sizes.append(len(batch))
        call.fail(batch, TransportError("gone"), now)
    assert sizes == [32, 32, 32]


@settings(max_examples=300)
@given(st.data(), st.integers(1, 64), st.integers(1, 20), st.booleans())
def test_what_is_too_large_is_halved_and_nothing_is_lost(data, size, most, resend):
    """Beside bad items, whose search a limit interrupts."""
    weights = data.draw(st.lists(st.integers(1, 25), min_size=size, max_size=size))
    bad = data.draw(st.sets(st.integers(0, size - 1), max_size=4)) if resend else set()
    call = make_call(errors="return", window=Window(1), resend=resend)
    call.add(make_batch(0, size))
    call.end_input()
    served, requests = [], 0
    while (batch := call.next_batch(0)) is not None:
        requests += 1
        if sum(weights[index] for index in batch.indices) > most:
            assert call.fail(batch, ServerError("larger", too_large=True, sent=False), 0) == "split"
        elif bad & set(batch.indices):
            call.fail(batch, boom(), 0)
        else:
            served += batch.indices
            call.succeed(batch, len(batch))
    assert call.is_finished()
    large = {index for index, weight in enumerate(weights) if weight > most}
    assert set(call.bad) == bad | large
    assert sorted(served) == [index for index in range(size) if index not in bad | large]
    assert requests <= 2 * size + len(bad) * (math.ceil(math.log2(max(size, 2))) + 1)


def test_what_was_executed_is_not_sent_again_in_halves():
    call = make_call(resend=False)
    call.add(make_batch(0, 8))
    error = ServerError("the reply is too large", too_large=True)
    assert call.fail(call.next_batch(0), error, 0) == "stop"
    assert call.stopped is error


def test_a_batch_that_is_not_to_blame_is_sent_again_without_an_attempt():
    call = make_call(retry=Retry(attempts=1), budget=RetryBudget(0))
    call.add(make_batch(0, 8))
    for _ in range(2 * FREE_RETRIES):
        batch = call.next_batch(0)
        assert call.fail(batch, TransportError("closed for another", away=False, blameless=True), 0) == "repeat"
    once = make_call(resend=False)
    once.add(make_batch(0, 8))
    error = TransportError("closed for another", away=False, blameless=True)
    assert once.fail(once.next_batch(0), error, 0) == "stop"


# what an index has to say when it stops


def sent(call, now=0.0):
    batch = call.next_batch(now)
    batch.sent = True
    return batch


def test_what_is_in_flight_is_not_confirmed():
    call = make_call(resend=False)
    for start in (0, 2, 4):
        call.add(make_batch(start, 2))
    first, _ = sent(call), sent(call)
    call.next_batch(0)  # which is still being packed
    assert call.unconfirmed == [0, 1, 2, 3]
    call.succeed(first, 2)
    assert call.unconfirmed == [2, 3]


REFUSALS = {
    "never left": TransportError("refused", sent=False),
    "not let in": AuthError("who are you"),
    "no such endpoint": NotSupportedError("no"),
    "busy": OverloadedError("later", retryable=True),
    "too large": ServerError("413", too_large=True, sent=False),
    "a handshake failed": ServerError("500", sent=False),
}
DOUBTS = {
    "cut": TransportError("reset"),
    "silent": DeadlineError("no answer"),
    "garbage": ReplyError("what"),
    "an executor failed, perhaps after another had stored": boom(),
    "its reply was too large": ServerError("larger than may be sent", too_large=True),
    "a proxy lost the server": TransportError("503"),
    "busy, said of one of several": OverloadedError("1013", retryable=True, shared=True),
    "not let in, said of one of several": AuthError("1008", shared=True),
}


@pytest.mark.parametrize("error", REFUSALS.values(), ids=REFUSALS)
def test_what_was_refused_is_known_not_to_be_stored(error):
    call = make_call(resend=False)
    call.add(make_batch(0, 2))
    call.fail(sent(call), error, 0)
    assert call.unconfirmed == []


@pytest.mark.parametrize("error", DOUBTS.values(), ids=DOUBTS)
def test_items_of_a_failed_request_may_be_stored(error):
    call = make_call(resend=False)
    call.add(make_batch(0, 2))
    call.fail(sent(call), error, 0)
    assert call.unconfirmed == [0, 1]


@pytest.mark.parametrize("error", REFUSALS.values(), ids=REFUSALS)
def test_items_that_may_be_stored_stay_so_after_a_refusal(error):
    call = make_call()
    call.add(make_batch(0, 2))
    assert call.fail(sent(call), TransportError("reset", away=False), 0) == "repeat"
    assert call.unconfirmed == [0, 1]
    call.fail(sent(call, 100.0), error, 0)
    assert call.unconfirmed == [0, 1]


def test_an_answer_shows_that_items_are_stored():
    call = make_call()
    call.add(make_batch(0, 2))
    assert call.fail(sent(call), TransportError("reset", away=False), 0) == "repeat"
    call.succeed(sent(call, 100.0), 2)
    assert call.unconfirmed == []


def test_attempts():
    """Of the request that failed in its error; of those without an answer in the call."""
    call = make_call()
    assert call.attempts == 0
    call.add(make_batch(0, 2))
    call.add(make_batch(2, 2))
    batch = call.next_batch(0)
    error = TransportError("reset", away=False)
    assert call.fail(batch, error, 0) == "repeat"
    assert (error.attempts, call.attempts) == (1, 1)
    call.next_batch(0)
    assert call.next_batch(100.0) is batch
    assert call.attempts == 2
    call.succeed(batch, 2)
    assert call.attempts == 1
