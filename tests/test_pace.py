"""The time between two requests, on a clock that only the test moves."""

from __future__ import annotations

import pytest
from casdk._calls.pace import LONGEST_PAUSE_SECONDS, Pace
from hypothesis import given
from hypothesis import strategies as st


def test_nothing_waits_without_a_limit():
    assert not Pace().slows


def test_requests_keep_their_distance():
    pace = Pace(requests_per_second=4)
    assert pace.slows
    pace.send(10.0, 32)
    assert pace.next_at == 10.25


def test_items_are_what_the_next_request_waits_for():
    pace = Pace(items_per_second=64)
    assert pace.slows
    pace.send(10.0, 32)
    assert pace.next_at == 10.5
    pace.send(10.5, 1)
    assert pace.next_at == pytest.approx(10.5 + 1 / 64)


def test_both_limits_hold():
    pace = Pace(requests_per_second=4, items_per_second=64)
    pace.send(0.0, 1)
    assert pace.next_at == 0.25
    pace.send(1.0, 64)
    assert pace.next_at == 2.0


@given(
    st.floats(0.5, 1000),
    st.lists(st.tuples(st.integers(1, 256), st.floats(0, 2)), min_size=1, max_size=200),
)
def test_no_second_has_more_than_its_items_and_one_request(rate, requests):
    """The burst is one request at most: what is sent in any second before its last request is within the rate."""
    pace, now, sent = Pace(items_per_second=rate), 0.0, []
    for items, later in requests:
        now = max(now + later, pace.next_at)
        pace.send(now, items)
        sent.append((now, items))
    for first, (began, _) in enumerate(sent):
        within = [items for at, items in sent[first:] if at < began + 1]
        assert sum(within[:-1]) <= rate * 1 + 1e-6


def test_nothing_is_refused_by_a_limit_that_the_caller_has_set():
    """Of a bucket of 5 that is filled with 50 a second, for 10,000 requests."""
    pace, now, left = Pace(requests_per_second=50), 0.0, 5.0
    for _ in range(10_000):
        left, now = min(5.0, left + (pace.next_at - now) * 50), pace.next_at
        pace.send(now, 1)
        assert left >= 1
        left -= 1


def refuse(pace, times, now=0.0, asked=0.0):
    for _ in range(times):
        pace.refuse(None, now, asked)


def test_a_server_that_refuses_requests_slows_them_down():
    pace = Pace()
    refuse(pace, 3, now=1.0)
    assert not pace.slows
    refuse(pace, 1, now=1.0)
    assert pace.slows
    rate = pace.allowance.rate
    assert pace.next_at == pytest.approx(1 + 1 / rate)
    pace.send(2.0, 1)
    assert pace.next_at == pytest.approx(2 + 1 / rate)


def test_the_callers_limit_holds_beside_the_rate_that_is_found():
    pace = Pace(items_per_second=1)
    refuse(pace, 4)
    pace.send(1.0, 8)
    assert pace.next_at == 9.0


def test_a_server_that_takes_nothing_is_left_alone_as_long_as_it_asks():
    pace = Pace()
    refuse(pace, 4, asked=3.0)
    assert pace.next_at == 3.0
    pace.refuse(pace.allowance.send(3.0), 3.0, LONGEST_PAUSE_SECONDS)
    assert pace.next_at == 3.0 + LONGEST_PAUSE_SECONDS
    pace.refuse(pace.allowance.send(8.0), 8.0, 3600.0)
    assert pace.next_at == 3.0 + LONGEST_PAUSE_SECONDS


def test_a_server_that_takes_requests_meanwhile_asks_for_the_refused_ones():
    pace = Pace()
    refuse(pace, 1)
    for number in range(8):
        pace.accept(pace.allowance.send(number / 10), number / 10)
    pace.refuse(None, 1.0, 30.0)
    assert pace.slows
    assert pace.next_at < 2


def test_it_slows_nothing_down_any_more_when_requests_come_slowly_anyway():
    pace, now = Pace(), 0.0
    refuse(pace, 4)
    while pace.slows and now < 100:
        now += 0.5
        pace.accept(pace.allowance.send(now), now)
    assert not pace.slows
