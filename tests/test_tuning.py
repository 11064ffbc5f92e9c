"""The search for batch size and window, against servers that are formulas, on a clock that only they move."""

import heapq
import math
from itertools import islice
from typing import NamedTuple

import pytest
from casdk._calls.tuning import FIRST_ITEMS, MOST_BATCH_ITEMS, MOST_TRIALS, Point, Tuning
from casdk._calls.window import GROWN_WINDOW_REQUESTS, WINDOW_REQUESTS
from hypothesis import given, settings
from hypothesis import strategies as st

ITEM_BYTES = 100


class Server(NamedTuple):
    """One worker that takes requests in turn, behind a network.

    Attributes:
        cost: Seconds for a request of so many items.
        latency: Seconds that a request and its reply are on the way, together.
        most: Requests that it takes in before it refuses another.
        largest: Items that a request may have.
        routes: Whether its replies say how long it had the request.
    """

    cost: object
    latency: float = 0.0
    most: float = math.inf
    largest: float = math.inf
    routes: bool = True

    def rate(self, point):
        """Items per second, once it goes on evenly."""
        cost = self.cost(point.batch_size)
        return point.batch_size * min(1 / cost, point.window / (self.latency + cost))

    def best_rate(self):
        sizes, windows = range(1, MOST_BATCH_ITEMS + 1), range(1, GROWN_WINDOW_REQUESTS + 1)
        return max(self.rate(Point(size, window)) for size in sizes for window in windows)


class Reply(NamedTuple):
    came_at: float
    sent_at: float
    items: int
    trial: int
    served: float
    refused: str = ""


def replies(server, tuning):
    """Send what the tuning says, and tell it of each reply; yield them."""
    flying, now, free = [], 0.0, 0.0
    while True:
        while len(flying) < tuning.size:
            items, arrival = tuning.batch_size, now + server.latency / 2
            served, refused = 0.0, ""
            if items > server.largest:
                refused = "size"
            elif sum(reply.came_at - server.latency / 2 > arrival for reply in flying) >= server.most:
                refused = "number"
            else:
                free = max(arrival, free) + server.cost(items)
                served = free - arrival
            reply = Reply(arrival + served + server.latency / 2, now, items, tuning.trial, served, refused)
            heapq.heappush(flying, reply)
        reply = heapq.heappop(flying)
        now = reply.came_at
        if reply.refused == "size":
            tuning.refused_size(reply.items)
        elif reply.refused == "number":
            tuning.refused(reply.sent_at, now)
        else:
            tuning.answered(now - reply.sent_at, reply.items * ITEM_BYTES)
            if reply.trial == tuning.trial:
                served = reply.served if server.routes else 0.0
                tuning.measured(now, reply.items, now - reply.sent_at, served, reply.items * ITEM_BYTES)
        assert 1 <= tuning.batch_size <= MOST_BATCH_ITEMS
        assert 1 <= tuning.size <= GROWN_WINDOW_REQUESTS
        yield reply


def search(server, row_items=1, **limits):
    """Search to the end; return the tuning and the replies."""
    tuning = Tuning(32 // row_items, row_items=row_items)
    tuning.begin(**{"window": WINDOW_REQUESTS, **limits})
    seen, coming = [], replies(server, tuning)
    while not tuning.is_over:
        seen.append(next(coming))
    return tuning, seen


def gpu(items):
    """A step per 64 items, and a slower device where a batch does not fit into its memory."""
    return 0.002 + 0.02 * math.ceil(items / 64) * (1 if items <= 64 else 1.2)


SERVERS = {
    "fast": Server(lambda items: 0.0002 + 2e-6 * items, latency=0.0001),
    "gpu": Server(gpu, latency=0.0005),
    "far": Server(lambda items: 0.001 + 2e-5 * items, latency=0.05),
}


@pytest.mark.parametrize("routes", [True, False], ids=["with routes", "without"])
@pytest.mark.parametrize("name", SERVERS)
def test_what_is_chosen_is_within_5_percent_of_the_best(name, routes):
    server = SERVERS[name]._replace(routes=routes)
    tuning, _ = search(server)
    assert tuning.best == (tuning.batch_size, tuning.size)
    assert server.rate(tuning.best) >= 0.95 * server.best_rate()
    if name == "gpu":
        assert tuning.batch_size == 64
        assert tuning.size == (3 if routes else WINDOW_REQUESTS)


@pytest.mark.parametrize("name", SERVERS)
def test_items_of_a_row_stay_together(name):
    """Also where a request of rows is too large, and where a server refuses some: rows are what is counted."""
    server = SERVERS[name]._replace(largest=200, most=6)
    tuning, seen = search(server, row_items=2)
    assert {reply.items % 2 for reply in seen} == {0}
    assert tuning.batch_size == 2 * tuning.best.batch_size
    alone, _ = search(server)
    assert server.rate(Point(tuning.batch_size, tuning.size)) >= 0.95 * server.rate(alone.best)
    known = Tuning.known(*tuning.best, row_items=2)
    assert (known.batch_size, known.best) == (tuning.batch_size, tuning.best)


def test_a_row_is_the_least_that_a_request_has():
    server = Server(lambda items: 0.01 * items**2)
    tuning, seen = search(server, row_items=2)
    assert (tuning.batch_size, min(reply.items for reply in seen)) == (2, 2)
    tuning, _ = search(Server(lambda items: 0.01 + 1e-4 * items, largest=3), row_items=2)
    assert tuning.best.batch_size == 1


@given(
    st.floats(-4, -1).map(lambda power: 10**power),
    st.floats(-6, -4).map(lambda power: 10**power),
    st.sampled_from([0.0, 0.001, 0.02, 0.1]),
    st.booleans(),
)
@settings(max_examples=8)
def test_any_server_with_a_cost_per_request_and_per_item(each, per_item, latency, routes):
    server = Server(lambda items: each + per_item * items, latency, routes=routes)
    tuning, _ = search(server)
    assert server.rate(tuning.best) >= 0.95 * server.best_rate()


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("point", [Point(8, 1), Point(64, 3), Point(512, 32)])
def test_the_formula_says_what_the_servers_do(name, point):
    server, tuning = SERVERS[name], Tuning.known(*point)
    tuning.begin(point.window, point.window)
    seen = list(islice(replies(server, tuning), 40 * point.window + 1))
    first, last = seen[4 * point.window], seen[-1]
    assert 36 * point.window * point.batch_size / (last.came_at - first.came_at) == pytest.approx(server.rate(point))


@pytest.mark.parametrize("name", SERVERS)
def test_it_backs_off_where_the_server_refuses(name):
    server = SERVERS[name]._replace(most=4)
    tuning, seen = search(server)
    assert any(reply.refused for reply in seen)
    assert tuning.size <= WINDOW_REQUESTS // 2
    assert not any(reply.refused for reply in islice(replies(server, tuning), 100))


def test_requests_that_are_too_large_are_tried_once():
    server = SERVERS["fast"]._replace(largest=100)
    tuning, seen = search(server)
    assert tuning.batch_size == 64
    assert {reply.items for reply in seen if reply.refused} == {128}


def test_limits_are_kept():
    tuning, seen = search(SERVERS["far"], window=4, most_window=4, most_bytes=70 * ITEM_BYTES)
    assert tuning.best == (64, 4)
    assert {reply.items for reply in seen} == {32, 64}


def test_no_more_is_in_flight_than_a_stop_can_wait_for():
    slow = Server(lambda items: items / 30)
    tuning, seen = search(slow)
    assert tuning.best == (32, 2)
    assert max(reply.items for reply in seen) == 32
    assert seen[-1].came_at < 60


def test_a_short_input_stays_as_it_begins():
    tuning = Tuning(32)
    tuning.begin(WINDOW_REQUESTS)
    sent = list(islice(replies(Server(lambda items: 0.1), tuning), FIRST_ITEMS // 32))
    assert {reply.items for reply in sent} == {32}
    tuning.end()
    assert tuning.best == (32, WINDOW_REQUESTS)
    assert not tuning.has_compared


def test_a_search_that_is_always_disturbed_ends():
    tuning = Tuning(32)
    tuning.begin(WINDOW_REQUESTS)
    for trial in range(MOST_TRIALS):
        assert (tuning.trial, tuning.is_over) == (trial, False)
        tuning.measured(float(trial), 32, 0.1, 0.1, 32)
        tuning.disturbed()
    assert tuning.is_over
    assert (tuning.batch_size, tuning.size) == (32, WINDOW_REQUESTS)


def test_after_the_search_the_window_alone_backs_off_and_grows_back():
    tuning = Tuning.known(64, 12)
    tuning.begin(8, 32)
    assert tuning.is_over
    assert (tuning.batch_size, tuning.size) == (64, 12)
    tuning.refused(1.0, 2.0)
    tuning.refused(1.5, 2.1)  # in flight with the first
    tuning.refused(2.2, 2.3)  # nothing was answered in between
    assert tuning.size == 6
    tuning.failed()
    for _ in range(6):
        assert tuning.size == 6
        tuning.answered(0.1, 100)
    assert tuning.size == 7
    for _ in range(7 + 8 + 9 + 10 + 11):
        tuning.answered(0.1, 100)
    assert tuning.size == 12
    tuning.answered(0.1, 100)
    assert (tuning.batch_size, tuning.size) == (64, 12)


def test_what_was_found_keeps_within_the_limits_of_another_client():
    tuning = Tuning.known(600, 32)
    tuning.begin(8, 16)
    assert (tuning.batch_size, tuning.size) == (600, 16)
    tuning.begin(3, 3)
    assert tuning.size == 3
