"""A server that limits its rate is sent requests at that rate."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from casdk import Limits
from casdk.testing import Refuse

RATE = 200
FOUND_RATE, FOUND_ROOM = 50, 5
"""Rate of the bucket that the client has to find out by itself, in a test that takes minutes."""
ROOM = 50
"""Requests that a bucket may hold for tests in which none is refused: as a busy machine may deliver several at once."""


class Bucket:
    """What the server's script takes a request out of, or refuses it.

    Args:
        room: Requests that it holds at most.
        rate: How many come into it in a second.

    Attributes:
        refusals: How many it has refused.
        taken: When it was taken from.
    """

    def __init__(self, room: int, rate: float = RATE) -> None:
        self._lock, self._room, self._rate = threading.Lock(), room, rate
        self._tokens, self._filled_at = float(room), time.monotonic()
        self.refusals, self.taken = 0, []

    def __call__(self, request):
        with self._lock:
            now = time.monotonic()
            self._tokens = min(self._room, self._tokens + (now - self._filled_at) * self._rate)
            self._filled_at = now
            if self._tokens >= 1:
                self._tokens -= 1
                self.taken.append(now)
                return None
            self.refusals += 1
            return Refuse.overloaded()


TEXTS = [f"text {number}" for number in range(800)]


@pytest.mark.parametrize("limits", [Limits(requests_per_second=RATE / 2), Limits(items_per_second=RATE / 2 * 8)])
def test_nothing_is_refused_within_the_limits(make_server, connect_to, scheme, rows, limits):
    bucket = Bucket(ROOM)
    client = connect_to(make_server(bucket), scheme, limits=limits, timeout=50)
    np.testing.assert_array_equal(client.encode(TEXTS, batch_size=8), rows(TEXTS))
    assert bucket.refusals == 0


def test_all_calls_of_a_client_share_a_pace(make_server, connect_to, scheme):
    bucket = Bucket(ROOM)
    client = connect_to(make_server(bucket), scheme, limits=Limits(requests_per_second=RATE / 2), timeout=50)
    threads = [
        threading.Thread(target=client.encode, args=([f"thread {number}"] * 20,), kwargs={"batch_size": 1})
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bucket.refusals == 0


@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_a_limit_that_nobody_told_is_found(make_server, connect_to, scheme, rows):
    bucket = Bucket(room=2, rate=20)
    client = connect_to(make_server(bucket), scheme, timeout=50)
    np.testing.assert_array_equal(client.encode(TEXTS[:240], batch_size=8), rows(TEXTS[:240]))
    # Without a pace, each of the 8 requests in flight would be refused several times.
    assert bucket.refusals <= 30
    assert client._session.pace.slows


@pytest.mark.soak
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("told", "most"), [(True, 0), (False, 20)], ids=["told", "found"])
def test_it_is_kept_to_for_ten_thousand_items(make_server, connect_to, rows, figure, told, most):
    """By three clients at once, each over a scheme of its own to a server of its own: they wait nearly all the time."""
    texts = [f"text {number}" for number in range(10_000)]
    buckets = {scheme: Bucket(FOUND_ROOM, FOUND_RATE) for scheme in ("grpc", "http", "websocket")}
    limits = Limits(requests_per_second=FOUND_RATE) if told else None
    clients = [connect_to(make_server(bucket), scheme, limits=limits) for scheme, bucket in buckets.items()]
    with ThreadPoolExecutor(len(clients)) as threads:
        for found in threads.map(lambda client: client.encode(texts, batch_size=8), clients):
            np.testing.assert_array_equal(found, rows(texts))
    for scheme, bucket in buckets.items():
        within = [at - bucket.taken[0] for at in bucket.taken]
        seconds = [sum(second <= at < second + 1 for at in within) for second in range(2, int(within[-1]))]
        name = "told" if told else "found"
        figure(f"pace: refused of 1,250 requests, {scheme}, {name}", bucket.refusals)
        figure(f"pace: requests a second from the third on, {scheme}, {name}", sum(seconds) / len(seconds))
        assert bucket.refusals <= most
