"""How many requests a second a server takes, found out on a clock that only the test moves."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from itertools import count

import pytest
from casdk._calls.allowance import (
    ASKED_PER_SECOND,
    DISTRUST_SECONDS,
    LATEST_OUTCOMES,
    LEAST_REQUESTS_PER_SECOND,
    QUIET_REQUESTS,
    Allowance,
)
from hypothesis import given
from hypothesis import strategies as st

RATE, BURST = 50, 5


class Bucket:
    """A limit: so many requests a second, and a few at once.

    Args:
        rates: Requests a second, by the time from which on that is so.
    """

    def __init__(self, rates, burst=BURST):
        self._rates, self._burst, self._left, self._at = rates, burst, float(burst), 0.0

    def __call__(self, now):
        rate = self._rates[max(since for since in self._rates if since <= now)]
        self._left, self._at = min(self._burst, self._left + (now - self._at) * rate), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Windows:
    """A limit of so many requests in each whole second; none of them begins with the clock."""

    def __init__(self, rate):
        self._rate, self._second, self._taken = rate, -1, 0

    def __call__(self, now):
        second = int(now + 0.37)
        if second != self._second:
            self._second, self._taken = second, 0
        self._taken += 1
        return self._taken <= self._rate


def at_random(share, seed):
    """Refuse such a share of the requests, whatever their rate."""
    chance = random.Random(seed)
    return lambda now: chance.random() >= share


def send(takes, requests, *, allowance=None, took=0.001, window=8, late=0.0):
    """Keep so many requests under way, each sent again when it was refused; return when they were taken, and refused.

    Args:
        takes: The server: a function from the time to whether it takes a request.
        requests: How many there are.
        allowance: What slows them down.
        took: Seconds that the server works at one.
        window: How many are under way, those that wait for their turn aside.
        late: Seconds by which a wait is longer than it should be, at most.
    """
    chance, order, now, next_at = random.Random(1), count(), 0.0, 0.0
    events, taken, refused, left, under_way, asleep = [], [], [], requests, 0, False

    def later(seconds, event, ticket=None):
        heapq.heappush(events, (now + seconds, next(order), event, ticket))

    while len(taken) < requests:
        while left and under_way < window and not asleep:
            rate = None if allowance is None else allowance.rate
            if rate is not None and next_at > now:
                asleep = True
                later(next_at - now + late * chance.random(), "wake")
                break
            left, under_way = left - 1, under_way + 1
            ticket = allowance.send(now) if allowance is not None and allowance.watches else None
            if rate is not None:
                next_at = now + 1 / rate
            if takes(now):
                later(took, "taken", ticket)
            else:
                later(0.001, "refused", ticket)
        now, _, event, ticket = heapq.heappop(events)
        if event == "wake":
            asleep = False
        elif event == "again":
            left += 1
        elif event == "taken":
            under_way -= 1
            taken.append(now)
            if allowance is not None and allowance.watches:
                allowance.accept(ticket, now)
        else:
            under_way -= 1
            refused.append(now)
            later(0.1 * (1 - 0.5 * chance.random()), "again")
            if allowance is not None:
                before = allowance.rate
                allowance.refuse(ticket, now)
                if before is None and allowance.rate is not None:
                    next_at = now + 1 / allowance.rate
    return taken, refused


def least_in_a_second(taken, since, until):
    """Return the fewest that were taken in any second of these."""
    counted = Counter(int(at) for at in taken)
    return min(counted[second] for second in range(since, until))


@pytest.mark.parametrize(("took", "late"), [(0.001, 0.0), (0.02, 0.0), (0.05, 0.001), (0.001, 0.002)])
def test_a_limit_is_found_and_kept_to(took, late):
    taken, refused = send(Bucket({0: RATE}), 10_000, allowance=Allowance(), took=took, late=late)
    assert len(refused) <= 20
    assert least_in_a_second(taken, 2, int(taken[-1])) >= 0.9 * RATE


@pytest.mark.parametrize("rate", [2, 10, 200, 1000])
def test_so_are_others(rate):
    taken, refused = send(Bucket({0: rate}), 20 * rate, allowance=Allowance())
    assert len(refused) <= 25
    assert taken[-1] <= 1.1 * 20 + 1


@pytest.mark.parametrize(("took", "late"), [(0.001, 0.0), (0.02, 0.002)])
@pytest.mark.parametrize("rate", [5, 20, 50])
def test_a_limit_by_whole_seconds_is_kept_to(rate, took, late):
    """It takes three quarters of what it might, as it shows less of its rate than a bucket does."""
    taken, refused = send(Windows(rate), 30 * rate, allowance=Allowance(), took=took, late=late)
    assert len(refused) <= 50
    assert taken[-1] <= 30 / 0.75


def test_while_nothing_is_taken_a_rate_is_only_suspended():
    allowance, now = begun(), 1.0
    rate = allowance.rate
    allowance.refuse(allowance.send(now), now)
    assert allowance.rate == rate / 2
    for _ in range(10):
        now += 1.0
        allowance.refuse(allowance.send(now), now)
    assert allowance.rate == ASKED_PER_SECOND
    allowance.accept(allowance.send(now + 1), now + 1)
    assert allowance.rate == rate


def test_a_limit_that_is_lowered_is_followed():
    taken, refused = send(Bucket({0: RATE, 20: RATE / 2}), 20 * RATE + 20 * RATE // 2, allowance=Allowance())
    assert len([at for at in refused if at >= 20]) <= 5
    assert least_in_a_second(taken, 22, 39) >= 0.9 * RATE / 2


def test_a_limit_that_is_raised_is_followed():
    taken, refused = send(Bucket({0: RATE, 10: 4 * RATE}), 5000, allowance=Allowance())
    assert len(refused) <= 25
    assert least_in_a_second(taken, int(taken[-1]) - 5, int(taken[-1])) >= 0.9 * 4 * RATE


def test_a_limit_that_is_gone_slows_nothing_down_after_a_time():
    allowance = Allowance()
    taken, refused = send(Bucket({0: RATE, 10: 1e9}), 60_000, allowance=allowance)
    assert allowance.rate is None
    assert len(refused) <= 20
    assert taken[-1] < 60


@pytest.mark.parametrize("share", [0.02, 0.1])
@pytest.mark.parametrize("took", [0.005, 0.02, 0.16])
def test_what_is_refused_at_random_slows_nothing_down(share, took):
    slowed = free = 0.0
    for seed in range(2):
        taken, _ = send(at_random(share, seed), 10_000, allowance=Allowance(), took=took)
        slowed += taken[-1]
        taken, _ = send(at_random(share, seed), 10_000, took=took)
        free += taken[-1]
    assert free / slowed >= 0.95


def test_nothing_is_noted_before_a_request_is_refused_nor_for_long_after_it():
    allowance = Allowance()
    assert not allowance.watches
    allowance.refuse(None, 0.0)
    assert allowance.watches
    for _ in range(LATEST_OUTCOMES):
        assert allowance.watches
        allowance.accept(allowance.send(0.1), 0.2)
    assert not allowance.watches


@given(st.lists(st.integers(LATEST_OUTCOMES - 1, 40), max_size=20))
def test_one_refusal_among_sixteen_requests_slows_nothing_down(distances):
    allowance, now = Allowance(), 0.0
    for distance in distances:
        allowance.refuse(allowance.send(now), now)
        for _ in range(distance):
            now += 0.01
            allowance.accept(allowance.send(now), now)
        assert allowance.rate is None


def test_two_refusals_begin_with_the_rate_of_what_was_taken():
    allowance = Allowance()
    allowance.refuse(None, 0.0)
    for number in range(1, 11):
        allowance.accept(allowance.send(number / 20), number / 20)
    assert not allowance.refuse(allowance.send(0.5), 0.5)
    assert allowance.rate == pytest.approx(20)


def test_a_server_that_takes_nothing_is_told_from_one_that_takes_some():
    allowance = Allowance()
    assert [allowance.refuse(None, 0.0) for _ in range(4)] == [False, False, False, True]
    rate = allowance.rate
    assert rate is not None
    assert allowance.refuse(allowance.send(1.0), 1.0)
    assert allowance.rate == rate / 2
    allowance.accept(allowance.send(2.0), 2.0)
    assert not allowance.refuse(allowance.send(3.0), 3.0)


def test_what_was_sent_at_another_rate_changes_none():
    allowance = begun()
    sent = [allowance.send(1.0 + number / 50) for number in range(8)]
    allowance.refuse(sent[0], 2.0)
    rate = allowance.rate
    assert not any(allowance.refuse(ticket, 2.0) for ticket in sent[1:])
    assert allowance.rate == rate


def begun():
    """Return one that has found a rate, as four requests were refused."""
    allowance = Allowance()
    for _ in range(4):
        allowance.refuse(None, 0.0)
    return allowance


def test_a_rate_that_no_request_waits_for_is_let_go():
    allowance, now = begun(), 0.0
    for _ in range(QUIET_REQUESTS):
        assert allowance.watches
        now += 0.5
        allowance.accept(allowance.send(now), now)
    assert (allowance.rate, allowance.watches) == (None, False)
    allowance.refuse(None, now)
    assert allowance.watches


def test_refusals_are_not_believed_for_a_while_once_they_were_those_of_no_limit():
    allowance, now = begun(), 0.0
    while allowance.rate is not None:
        for _ in range(9):
            now += 1 / allowance.rate
            allowance.accept(allowance.send(now), now)
        now += 1 / allowance.rate
        allowance.refuse(allowance.send(now), now)
    assert now < DISTRUST_SECONDS
    for _ in range(10):
        allowance.refuse(None, now + DISTRUST_SECONDS - 1)
    assert not allowance.watches
    allowance.refuse(None, now + DISTRUST_SECONDS)
    assert allowance.watches


@given(st.lists(st.tuples(st.sampled_from(["send", "accept", "refuse"]), st.integers(0, 20)), max_size=200))
def test_whatever_happens_a_rate_is_one(events):
    allowance, tickets, now = Allowance(), [], 0.0
    for event, number in events:
        now += number / 20
        if event == "send":
            tickets.append(allowance.send(now))
        else:
            getattr(allowance, event)(tickets.pop(number % len(tickets)) if tickets else None, now)
        assert allowance.rate is None or LEAST_REQUESTS_PER_SECOND <= allowance.rate < float("inf")
