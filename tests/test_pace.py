"""How fast requests follow each other, at a server with a bucket, on a clock that only the test moves."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from heapq import heappop, heappush

import pytest
from casdk._calls.pace import LEAST_REQUESTS_PER_SECOND, Pace
from hypothesis import given
from hypothesis import strategies as st


@dataclass
class Bucket:
    """A server that takes so many requests a second, and so many at once.

    Attributes:
        tokens: Requests that it would take now.
    """

    rate: float
    burst: int
    tokens: float = field(init=False)
    filled_at: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = self.burst

    def take(self, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.filled_at) * self.rate)
        self.filled_at = now
        taken = self.tokens >= 1
        self.tokens -= taken
        return taken


@dataclass
class Ran:
    """What came of a run.

    Attributes:
        taken: When the server took each request.
        refusals: How many it refused.
    """

    taken: list[float] = field(default_factory=list)
    refusals: int = 0

    def rate(self, since: float) -> float:
        """Requests a second that the server took from a time on, the last second left out."""
        until = self.taken[-1] - 1
        return sum(since <= at < until for at in self.taken) / (until - since)


def run(pace: Pace, bucket: Bucket, requests: int, *, window: int = 8, latency: float = 0.002, seed: int = 0) -> Ran:
    """Send requests, so many in flight at most, and each refused one again; time passes from event to event."""
    draw, ran, now = random.Random(seed), Ran(), 0.0
    on_the_way: list[tuple[float, bool, float]] = []
    due = [0.0] * requests
    while due or on_the_way:
        may_send_at = max(due[0], pace.next_at) if due and len(on_the_way) < window else float("inf")
        if may_send_at <= (on_the_way[0][0] if on_the_way else float("inf")):
            now = max(now, may_send_at)
            heappop(due)
            pace.send(now, 1)
            took = bucket.take(now)
            heappush(on_the_way, (now + latency * draw.uniform(0.5, 1.5), took, now))
            continue
        now, took, sent_at = heappop(on_the_way)
        if took:
            pace.taken(sent_at)
            ran.taken.append(now)
        else:
            ran.refusals += 1
            pace.refused(now, sent_at, None)
            heappush(due, now + 0.05 * draw.uniform(0.5, 1))
    return ran


@pytest.mark.parametrize("seed", range(5))
def test_a_servers_rate_is_found_with_few_refusals(seed):
    ran = run(Pace(), Bucket(50, 5), 10_000, seed=seed)
    assert ran.refusals <= 20
    assert ran.rate(since=3) >= 0.9 * 50


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_refused_within_the_limits(seed):
    ran = run(Pace(50), Bucket(50, 5), 10_000, seed=seed)
    assert ran.refusals == 0
    assert ran.rate(since=0) == pytest.approx(50, rel=0.01)


@given(
    rate=st.floats(5, 2000),
    burst=st.integers(1, 50),
    latency=st.floats(0.0005, 0.02),
    seed=st.integers(0, 1000),
)
def test_any_bucket_is_kept_to(rate, burst, latency, seed):
    seconds = 40
    ran = run(Pace(), Bucket(rate, burst), int(rate * seconds), latency=latency, seed=seed)
    assert len(ran.taken) == int(rate * seconds)
    assert ran.refusals <= 40
    assert ran.rate(since=20) >= 0.6 * min(rate, 8 / (1.5 * latency))


def test_a_server_that_takes_more_again_gets_more():
    pace, bucket = Pace(), Bucket(10, 1)
    run(pace, bucket, 200)
    assert pace.requests_per_second == pytest.approx(10, rel=0.2)
    bucket.rate, now = 1000.0, pace.next_at
    for _ in range(20_000):
        now = pace.next_at
        pace.send(now, 1)
        pace.taken(now)
    assert pace.requests_per_second > 20


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


def test_a_server_that_asks_for_time_gets_it():
    pace = Pace()
    assert not pace.slows
    pace.send(1.0, 1)
    pace.refused(1.01, 1.0, 30.0)
    assert pace.slows
    assert pace.next_at > 31.01


def test_refusals_of_what_was_on_its_way_count_once():
    pace = Pace(100)
    for at in (1.0, 1.01, 1.02):
        pace.send(at, 1)
    pace.refused(1.03, 1.0, None)
    slowed = pace.requests_per_second, pace.next_at
    pace.refused(1.04, 1.01, None)
    pace.refused(1.05, 1.02, None)
    assert (pace.requests_per_second, pace.next_at) == slowed


def test_however_many_refusals_something_is_sent():
    pace = Pace()
    for number in range(1000):
        pace.send(float(number), 1)
        pace.refused(number + 0.5, float(number), None)
    assert pace.requests_per_second == LEAST_REQUESTS_PER_SECOND


def test_the_limit_is_never_exceeded():
    pace = Pace(100)
    pace.send(0.0, 1)
    pace.refused(0.01, 0.0, None)
    for _ in range(10_000):
        pace.send(pace.next_at, 1)
        pace.taken(pace.next_at)
        assert pace.requests_per_second <= 100
    assert pace.requests_per_second == 100
