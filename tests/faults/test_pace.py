"""A server that takes so many requests a second and no more: it is asked no faster than that."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from casdk import Limits
from casdk.testing import Refuse

RATE = 200
ROOM = 50
"""Requests that a bucket may hold for tests in which none is refused: as a busy machine may deliver several at once."""


class Bucket:
    """What the server's script takes a request out of, or refuses it.

    Args:
        room: Requests that it holds at most.

    Attributes:
        refusals: How many it has refused.
    """

    def __init__(self, room: int) -> None:
        self._lock, self._room = threading.Lock(), room
        self._tokens, self._filled_at = float(room), time.monotonic()
        self.refusals = 0

    def __call__(self, request):
        with self._lock:
            now = time.monotonic()
            self._tokens = min(self._room, self._tokens + (now - self._filled_at) * RATE)
            self._filled_at = now
            if self._tokens >= 1:
                self._tokens -= 1
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
