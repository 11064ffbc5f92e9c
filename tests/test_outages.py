"""A call whose server is away for a while, on a clock that only events move: no server, no loop."""

import heapq
import itertools
import math
from collections import Counter

import pytest
from casdk._calls.batches import Batch
from casdk._calls.decisions import CULPRIT_OUTAGES, Call, RetryBudget
from casdk._calls.outages import PATIENCE_SECONDS, Outage, ServerState
from casdk._calls.window import Window
from casdk._rust import Kind
from casdk.config import Retry
from casdk.errors import AuthError, OverloadedError, ProtocolMismatchError, ServerError, TLSError, TransportError
from hypothesis import given
from hypothesis import strategies as st


def make_batch(start, size):
    return Batch(
        range(start, start + size), [f"text {i}" for i in range(start, start + size)], bytes([Kind.TEXT]) * size
    )


AWAY = {
    "refused": lambda: TransportError("refused", sent=False),
    "reset": lambda: TransportError("reset"),
    "502, 503": lambda: TransportError("bad gateway"),
    "503 to a handshake": lambda: TransportError("unavailable", sent=False),
}
HERE = {
    "unknown host": TransportError("no such host", sent=False, away=False),
    "bad certificate": TLSError("expired", retryable=False, sent=False),
    "another protocol": ProtocolMismatchError("no gRPC", retryable=False),
    "504": TransportError("gateway timeout", away=False),
    "429": OverloadedError("busy", retryable=True),
    "401": AuthError("who are you"),
    "500": ServerError("boom"),
}
LATENCY = 0.25


def empty_budget():
    budget = RetryBudget(0.0)
    while budget.spend():
        pass
    return budget


def make_patient_call(**changes):
    """A call of a client that had an answer, and whose budget is spent."""
    settings = {
        "window": Window(4),
        "retry": Retry(),
        "budget": empty_budget(),
        "errors": "raise",
        "resend": True,
        "draw": lambda: 0.0,
        "server": ServerState(answered=True),
    }
    return Call(**{**settings, **changes})


class Simulation:
    """A call against a server that is away at times, on a clock that only events move.

    Args:
        call: The call.
        count: Its batches, of one item each.
        away: Intervals, ascending: what is under way when one begins is reset, what is sent meanwhile fails at once.
        failure: Returns what a request gets that is sent while the server is away.

    Attributes:
        now: When the call was over.
        sent: When each request was sent, and its batch's first index, in order.
        reached: How often the bytes of each batch have reached the server.
        most_asking: Most requests in flight at once that were sent while the call knew that the server is away.
    """

    def __init__(self, call, count, away, failure=AWAY["refused"]):
        self.now = 0.0
        self.sent = []
        self.reached = Counter()
        self.most_asking = 0
        unread = [make_batch(index, 1) for index in reversed(range(count))]
        flight, order, asking = [], itertools.count(), set()
        while not call.is_finished():
            while unread and call.room() > 0:
                call.add(unread.pop())
            if not unread:
                call.end_input()
            while (batch := call.next_batch(self.now)) is not None:
                self.sent.append((self.now, batch.indices[0]))
                ends, error = self._serve(away, failure)
                if error is None or error.sent:
                    self.reached[batch.indices[0]] += 1
                if call.outage is not None and not call.outage.given_up:
                    asking.add(batch)
                    self.most_asking = max(self.most_asking, len(asking))
                heapq.heappush(flight, (ends, next(order), batch, error))
            wake_at = call.wake_at
            if wake_at is not None and (not flight or wake_at < flight[0][0]):
                assert wake_at > self.now, "it would turn for ever"
                self.now = wake_at
                continue
            self.now, _, batch, error = heapq.heappop(flight)
            asking.discard(batch)
            if error is None:
                call.answered(LATENCY, 100, batch)
                call.succeed(batch, 1)
            else:
                call.fail(batch, error, self.now)

    def _serve(self, away, failure):
        for start, end in away:
            if start <= self.now < end:
                return self.now + 0.001, failure()
            if self.now < start <= self.now + LATENCY:
                return start, TransportError("reset")
        return self.now + LATENCY, None


@st.composite
def outages(draw):
    """Intervals in which the server is away, none of them for too long, with time enough between them to be found."""
    away, now = [], 0.0
    for _ in range(draw(st.integers(1, 6))):
        now += draw(st.floats(6.0, 12.0))
        end = now + draw(st.floats(0.01, PATIENCE_SECONDS - 6.0))
        away.append((now, end))
        now = end
    return away


def enough(away):
    """How many requests, one after the other, take until the server has been away for the last time."""
    present = away[-1][1] - sum(end - start for start, end in away)
    return math.ceil(present / LATENCY)


@given(outages(), st.sampled_from(sorted(AWAY)), st.integers(1, 8), st.floats(0, 1), st.integers(2, 5))
def test_a_server_that_comes_back_is_waited_for(away, what, window, random, attempts):
    """With a budget that is spent, and however many times it was asked: nothing is lost, nothing is sent in a crowd."""
    call = make_patient_call(window=Window(window), retry=Retry(attempts=attempts), draw=lambda: random)
    count = enough(away) * window
    run = Simulation(call, count, away, AWAY[what])
    assert call.stopped is None
    assert call.done == count
    assert run.most_asking <= 1
    for start, end in away:
        # Doubled from 0.1 s up to 5 s, half of it at random; at first what was in flight, too.
        asked = sum(start <= at < end for at, _ in run.sent)
        assert asked <= window + 8 + (end - start) / 2.5


@given(st.floats(2.0, 200.0), st.floats(0, 1), st.sampled_from(sorted(AWAY)), st.booleans())
def test_a_server_that_stays_away_is_given_up_when_patience_is_over(patience, random, what, on_its_own):
    given_one = Retry(attempts=5, patience=patience)
    retry, patience = (Retry(attempts=5), PATIENCE_SECONDS) if on_its_own else (given_one, patience)
    call = make_patient_call(retry=retry, draw=lambda: random)
    run = Simulation(call, 1000, [(3.0, math.inf)], AWAY[what])
    assert type(call.stopped) is TransportError
    assert call.stopped.away
    assert 3 + patience <= run.now <= 3 + patience + 0.01


def test_little_patience_does_not_take_attempts_away():
    call = make_patient_call(retry=Retry(patience=0.5, jitter=0), budget=RetryBudget(1.0))
    run = Simulation(call, 1, [(0.0, math.inf)])
    assert [round(at, 1) for at, _ in run.sent] == [0.0, 0.1, 0.3, 0.5, 1.3]


@pytest.mark.parametrize(
    "changes",
    [
        {"server": ServerState()},
        {"retry": Retry(attempts=1)},
        {"retry": Retry(attempts=1), "server": ServerState()},
        {"retry": Retry(patience=0)},
    ],
    ids=["never answered", "one attempt", "both", "said so"],
)
@pytest.mark.parametrize("what", AWAY)
def test_who_does_not_wait(changes, what):
    call = make_patient_call(**{"budget": RetryBudget(1.0), **changes})
    run = Simulation(call, 3, [(0.0, math.inf)], AWAY[what])
    assert call.stopped.away
    assert run.now < 1.6
    assert max(Counter(index for _, index in run.sent).values()) == changes.get("retry", Retry()).attempts


def test_one_request_does_not_wait_and_a_second_one_changes_that():
    """Whether the second one was sent, or only read."""
    alone = make_patient_call(budget=RetryBudget(1.0))
    assert Simulation(alone, 1, [(0.0, math.inf)]).now < 1.6
    for window in (1, 2):
        call = make_patient_call(window=Window(window))
        call.add(make_batch(0, 1))
        assert call.patience == 0
        call.add(make_batch(1, 1))
        assert call.patience == PATIENCE_SECONDS
        call.next_batch(0.0)
        assert call.patience == PATIENCE_SECONDS
    halves = make_patient_call(window=Window(1), errors="return")
    halves.add(make_batch(0, 4))
    halves.end_input()
    halves.fail(halves.next_batch(0.0), ServerError("boom", for_item=True), 0.0)
    assert halves.patience == PATIENCE_SECONDS


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_patience_that_is_given_holds_for_all(attempts):
    """For a single request of a client that never had an answer, and with one attempt."""
    call = make_patient_call(retry=Retry(attempts=attempts, patience=20), server=ServerState())
    run = Simulation(call, 1, [(0.0, 19.0)])
    assert (call.stopped, call.done) == (None, 1)
    assert 19 <= run.now < 25


@pytest.mark.parametrize("what", HERE)
def test_what_does_not_mean_away_is_not_waited_for(what):
    error = HERE[what]
    call = make_patient_call(budget=RetryBudget(1.0))
    call.add(make_batch(0, 1))
    call.add(make_batch(1, 1))
    outcome = call.fail(call.next_batch(0.0), error, 0.0)
    assert outcome == ("repeat" if error.retryable else "stop")
    assert call.outage is None


@pytest.mark.parametrize("what", HERE)
def test_another_answer_ends_the_wait(what):
    """A request that asks for the server and gets another error has found the server, or another reason."""
    call = make_patient_call(budget=RetryBudget(1.0))
    for index in range(2):
        call.add(make_batch(index, 1))
    first, second = call.next_batch(0.0), call.next_batch(0.0)
    assert call.fail(first, AWAY["refused"](), 0.0) == "wait"
    assert call.fail(second, AWAY["refused"](), 0.0) == "wait"
    assert call.next_batch(0.0) is None
    assert call.next_batch(call.wake_at) is first
    assert call.wake_at is None
    call.fail(first, HERE[what], 1.0)
    assert call.outage is None


def test_an_older_answer_does_not_end_the_wait():
    """It may have been on its way when the server went."""
    call = make_patient_call()
    for index in range(3):
        call.add(make_batch(index, 1))
    lost, older = call.next_batch(0.0), call.next_batch(0.0)
    call.fail(lost, AWAY["reset"](), 0.1)
    call.answered(0.1, 100, older)
    call.succeed(older, 1)
    assert call.outage is not None
    assert call.next_batch(0.1) is None
    asking = call.next_batch(call.wake_at)
    call.answered(0.1, 100, asking)
    assert call.outage is None


def test_who_asks_may_be_taken_back():
    """For a fork, or because nothing of it was left to send: then the next one asks."""
    call = make_patient_call()
    for index in range(3):
        call.add(make_batch(index, 1))
    call.fail(call.next_batch(0.0), AWAY["reset"](), 0.0)
    asking = call.next_batch(1.0)
    assert call.next_batch(1.0) is None
    call.interrupt(asking)
    assert call.next_batch(1.0) is not None
    other = call.outage.asking
    assert call.next_batch(1.0) is None
    call.succeed(other, 0)
    assert call.outage is not None
    assert call.next_batch(1.0) is not None


@given(outages(), st.sampled_from(sorted(AWAY)))
def test_an_index_waits_only_while_nothing_has_left(away, what):
    call = make_patient_call(resend=False, window=Window(2))
    run = Simulation(call, enough(away) * 2, away, AWAY[what])
    assert max(run.reached.values()) == 1
    if call.stopped is not None:
        assert call.stopped.sent


def test_an_index_is_waited_for_until_its_server_listens():
    call = make_patient_call(resend=False)
    Simulation(call, 2, [(0.0, 30.0)])
    assert (call.stopped, call.done) == (None, 2)


def test_a_request_that_takes_the_server_down_each_time_is_the_reason():
    """Or a call would go on for ever, and with it the restarts."""
    call = make_patient_call(window=Window(1))
    call.add(make_batch(0, 1))
    call.add(make_batch(1, 1))
    call.end_input()
    now, crashes = 0.0, 0
    while not call.is_finished():
        batch = call.next_batch(now)
        if batch is None:
            now = call.wake_at
        elif batch.indices[0] == 0 and call.outage is None:
            crashes += 1
            call.fail(batch, TransportError("reset"), now)
        else:  # a request that asks while it starts gets an answer
            call.answered(0.1, 100, batch)
            call.interrupt(batch)
    assert isinstance(call.stopped, TransportError)
    assert crashes == CULPRIT_OUTAGES


def test_who_tolerates_losses_loses_nothing_to_a_restart():
    call = make_patient_call(tolerant=True)
    Simulation(call, 50, [(0.5, 40.0)], AWAY["502, 503"])
    assert (call.done, call.bad) == (50, {})


def test_who_tolerates_losses_waits_once():
    """What is lost when patience is over is lost quickly from then on, and an answer lets the call wait again."""
    call = make_patient_call(tolerant=True, window=Window(1))
    run = Simulation(call, 1000, [(1.0, 100.0), (110.0, 140.0)], AWAY["502, 503"])
    assert call.done + len(call.bad) == 1000
    assert call.bad
    assert all(at < 100.1 for at, index in run.sent if index in call.bad)


@pytest.mark.parametrize("what", ["502, 503", "503 to a handshake"])
def test_many_waits_are_not_too_many_for_a_float(what):
    call = make_patient_call(retry=Retry(backoff=0.0, max_backoff=0.0, patience=100.0))
    run = Simulation(call, 5, [(0.0, math.inf)], AWAY[what])
    assert 1000 < len(run.sent) <= 100 / 0.02 + 5
    call = make_patient_call(retry=Retry(attempts=2000, backoff=0.001, max_backoff=0.001, patience=0))
    budgeted = Simulation(call, 1, [(0.0, math.inf)], AWAY["refused"])
    assert len(budgeted.sent) == 2000


# Retry-After


@pytest.mark.parametrize(
    ("retry", "asked", "waits"),
    [
        (Retry(), 59.0, True),
        (Retry(), 61.0, False),
        (Retry(), math.inf, False),
        (Retry(patience=5.0), 5.0, True),
        (Retry(patience=0.0), 5.0, True),
        (Retry(patience=0.0), 5.1, False),
        (Retry(max_backoff=3600.0), 3600.0, True),
        (Retry(patience=7200.0), 7200.0, True),
        (Retry(patience=7200.0), 7200.1, False),
    ],
)
@pytest.mark.parametrize("away", [False, True])
def test_retry_after_is_honoured_as_long_as_a_call_waits(retry, asked, waits, away):
    call = make_patient_call(retry=retry, budget=RetryBudget(1.0))
    error = OverloadedError("429", retryable=True, retry_after=asked)
    if away:
        error = TransportError("503", retry_after=asked)
    call.add(make_batch(0, 1))
    call.add(make_batch(1, 1))
    batch = call.next_batch(10.0)
    outcome = call.fail(batch, error, 10.0)
    if waits:
        assert batch.not_before == 10.0 + asked
    else:
        assert (outcome, call.stopped) == ("stop", error)


def test_a_wait_that_is_asked_for_may_end_after_patience():
    """It is not cut short: then the server would only refuse once more."""
    call = make_patient_call(retry=Retry(patience=60.0))
    for index in range(2):
        call.add(make_batch(index, 1))
    call.fail(call.next_batch(0.0), TransportError("503", retry_after=40.0), 0.0)
    assert call.wake_at == 40.0
    call.fail(call.next_batch(40.0), TransportError("503", retry_after=40.0), 40.0)
    assert call.wake_at == 80.0


def test_an_outage_is_told_once_for_all_calls_of_a_client():
    server = ServerState()
    assert server.wait("first call")
    assert not server.wait("second call")
    assert server.is_back()
    assert not server.is_back()
    assert server.wait("second call")
    server.leave("second call")
    assert server.wait("third call")


def test_the_last_request_asks_when_patience_is_over():
    outage = Outage(100.0)
    outage.wait(100.0, 5.0, 0.0, 60.0)
    assert outage.ask_at == 105.0
    outage.wait(158.0, 5.0, 0.0, 60.0)
    assert outage.ask_at == 160.0
    outage.wait(158.0, 5.0, 7.0, 60.0)
    assert outage.ask_at == 165.0
