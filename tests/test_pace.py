"""How far apart requests are sent, on a clock that only the test moves."""

from __future__ import annotations

import pytest
from casdk._calls.pace import Pace
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
