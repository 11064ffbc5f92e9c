"""Which server a request goes to, on a clock that only the test moves."""

from __future__ import annotations

import heapq
from collections import Counter
from itertools import count

import pytest
from casdk._calls.choice import (
    FIRST_PAUSE_SECONDS,
    LONGEST_BUSY_SECONDS,
    LONGEST_PAUSE_SECONDS,
    PROBE_REQUESTS,
    SLOW_START_SECONDS,
    TRUSTED_ANSWERS,
    Choice,
    PoolState,
    ServerRecord,
)
from casdk._calls.pace import Pace
from hypothesis import given
from hypothesis import strategies as st

SIZE = 1000


def sequential(choice, took, calls, now=0.0):
    """Make one call after the other; return how many each server got, and when the last one ended.

    Args:
        choice: The servers.
        took: Seconds that each of them takes.
        calls: How many.
        now: When the first begins.
    """
    got = Counter()
    for _ in range(calls):
        record = choice.next(now, SIZE)
        assignment = choice.send(record, now, SIZE, 1)
        position = choice.records.index(record)
        got[position] += 1
        now += took[position]
        choice.answer(assignment, now)
    return got, now


def crowded(choice, took, calls, window):
    """Keep so many requests in flight at servers that work at one at a time; return as `sequential` does."""
    got, now, free, order = Counter(), 0.0, [0.0] * len(choice.records), count()
    under_way, left = [], calls
    while left or under_way:
        while left and len(under_way) < window:
            record = choice.next(now, SIZE)
            position = choice.records.index(record)
            assignment = choice.send(record, now, SIZE, 1)
            free[position] = max(now, free[position]) + took[position]
            heapq.heappush(under_way, (free[position], next(order), assignment))
            got[position] += 1
            left -= 1
        now, _, assignment = heapq.heappop(under_way)
        choice.answer(assignment, now)
    return got, now


def limited(choice, rates, calls, window):
    """Keep so many requests in flight at servers that take 5 requests at once and so many a second, and refuse others.

    Returns:
        When each request was taken, and how often each server has refused one.
    """
    taken, refused, left, now, in_flight = [], Counter(), [(5.0, 0.0)] * len(rates), 0.0, 0
    events, order = [], count()

    def later(at, event, assignment=None):
        heapq.heappush(events, (at, next(order), event, assignment))

    for _ in range(calls):
        later(0.0, "begin")
    waiting = 0
    while len(taken) < calls:
        now, _, event, assignment = heapq.heappop(events)
        if event == "begin":
            waiting += 1
        elif event == "send":
            position = choice.records.index(assignment.record)
            tokens, at = left[position]
            tokens = min(5.0, tokens + (now - at) * rates[position])
            left[position] = (tokens - (tokens >= 1), now)
            later(now + 0.002, "taken" if tokens >= 1 else "refused", assignment)
        else:
            in_flight -= 1
            if event == "taken":
                taken.append(now)
                choice.answer(assignment, now)
            else:
                refused[choice.records.index(assignment.record)] += 1
                choice.refuse(assignment, now, 0.0)
                later(now + (0.0 if choice.is_ready(now) else 0.1), "begin")
        while waiting and in_flight < window:
            assignment = choice.send(choice.next(now, SIZE), now, SIZE, 1)
            later(assignment.began, "send", assignment)
            waiting, in_flight = waiting - 1, in_flight + 1
    return taken, refused


def records(number, **options):
    return [ServerRecord(**options) for _ in range(number)]


def away(choice, record, now, **options):
    """Have a request to a server fail on it; return for how long it is left out."""
    return choice.fail(choice.send(record, now, SIZE, 1), now, **options)


def test_servers_that_are_as_quick_take_turns():
    got, _ = sequential(Choice(records(3)), [0.02] * 3, 300)
    assert got == {0: 100, 1: 100, 2: 100}


def test_a_slow_server_gets_less_than_a_hundredth_of_single_calls_and_some():
    choice = Choice(records(3))
    sequential(choice, [0.02, 0.02, 0.2], 100)
    got, _ = sequential(choice, [0.02, 0.02, 0.2], 5000, 1000.0)
    assert 5000 / PROBE_REQUESTS / 2 < got[2] < 50


def test_a_server_that_becomes_quick_is_noticed():
    choice = Choice(records(2))
    _, now = sequential(choice, [0.02, 0.2], 500)
    got, _ = sequential(choice, [0.02, 0.02], 4000, now)
    assert got[1] > 1000


def test_one_answer_that_takes_long_costs_a_server_little():
    choice = Choice(records(2))
    _, now = sequential(choice, [0.02, 0.02], 100)
    assignment = choice.send(choice.records[0], now, SIZE, 1)
    choice.answer(assignment, now + 0.5)
    got, _ = sequential(choice, [0.02, 0.02], 2000, now + 0.5)
    assert got[0] > 500


def test_requests_in_flight_are_spread_as_servers_are_quick():
    got, ended = crowded(Choice(records(3)), [0.02, 0.02, 0.04], 1000, 12)
    assert ended < 1.05 * 1000 / (1 / 0.02 + 1 / 0.02 + 1 / 0.04) + 0.5
    assert got[2] == pytest.approx(200, rel=0.25)


def test_weights_are_shares_of_what_is_in_flight():
    choice = Choice([ServerRecord(weight=1), ServerRecord(weight=3)])
    for _ in range(400):
        choice.send(choice.next(0.0, SIZE), 0.0, SIZE, 1)
    assert choice.records[1].in_flight == pytest.approx(3 * choice.records[0].in_flight, rel=0.1)


def test_the_number_of_requests_counts_beside_their_bytes():
    """Else a server that was sent short texts would look slower than one that was sent images."""
    choice = Choice(records(2))
    small, large = (
        choice.send(record, 0.0, size, 1) for record, size in zip(choice.records, (100, 30_000), strict=True)
    )
    choice.answer(small, 0.02)
    choice.answer(large, 0.03)
    slower, faster = (record.seconds_per_byte for record in choice.records)
    assert slower < 2 * faster


def test_a_server_that_fails_is_left_out_longer_each_time():
    choice = Choice(records(2))
    bad, good = choice.records
    pauses, now = [], 0.0
    for _ in range(12):
        seconds = away(choice, bad, now)
        assert (bad.state, choice.next(now, SIZE)) == ("away", good)
        assert choice.due(now + seconds - 0.001) == []
        now += seconds
        assert choice.due(now) == [bad]
        assert choice.due(now) == []
        choice.asked(bad, now, there=True)
        assert choice.next(now, SIZE) is bad
        pauses.append(seconds)
    assert pauses[:3] == [FIRST_PAUSE_SECONDS, 2 * FIRST_PAUSE_SECONDS, 4 * FIRST_PAUSE_SECONDS]
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


def test_a_server_comes_back_by_a_dry_run_then_one_request():
    choice = Choice(records(2))
    bad, good = choice.records
    away(choice, bad, 0.0)
    assert choice.due(1.0) == [bad]
    assert choice.next(1.0, SIZE) is good
    choice.asked(bad, 1.0, there=False)
    assert bad.ask_at == pytest.approx(1.0 + 2 * FIRST_PAUSE_SECONDS)
    assert choice.due(2.0) == [bad]
    choice.asked(bad, 2.0, there=True)
    assert bad.state == "returning"
    assert choice.next(2.0, SIZE) is bad
    assignment = choice.send(bad, 2.0, SIZE, 1)
    assert choice.next(2.0, SIZE) is good
    assert choice.answer(assignment, 2.1)
    assert bad.state == "ready"


def test_the_one_request_is_another_if_the_first_is_taken_back():
    choice = Choice(records(2))
    bad, _ = choice.records
    away(choice, bad, 0.0)
    choice.due(1.0)
    choice.asked(bad, 1.0, there=True)
    choice.take_back(choice.send(bad, 1.0, SIZE, 1), 1.1)
    assert choice.next(1.1, SIZE) is bad


def test_a_server_that_is_back_starts_slowly():
    choice = Choice(records(2, seconds_per_byte=1e-6))
    back, _ = choice.records
    back.back_at = 100.0

    def share(now):
        sent = [choice.send(choice.next(now, SIZE), now, SIZE, 1) for _ in range(200)]
        of_it = sum(assignment.record is back for assignment in sent) / len(sent)
        for assignment in sent:
            choice.take_back(assignment, now)
        return of_it

    assert share(100.0) < 0.12
    assert 0.25 < share(100.0 + SLOW_START_SECONDS / 2) < 0.4
    assert 0.45 < share(100.0 + SLOW_START_SECONDS) < 0.55


def test_what_was_sent_before_a_server_went_away_makes_no_pause_longer():
    choice = Choice(records(2))
    bad, _ = choice.records
    sent = [choice.send(bad, 0.0, SIZE, 1) for _ in range(8)]
    assert choice.fail(sent[0], 1.0) == FIRST_PAUSE_SECONDS
    assert [choice.fail(assignment, 1.0) for assignment in sent[1:]] == [None] * 7
    assert bad.ask_at == 1.0 + FIRST_PAUSE_SECONDS
    assert (bad.in_flight, bad.waiting_bytes) == (0, 0)


def test_an_answer_to_what_was_sent_before_brings_no_server_back():
    choice = Choice(records(2))
    bad, _ = choice.records
    early = choice.send(bad, 0.0, SIZE, 1)
    away(choice, bad, 0.5)
    assert not choice.answer(early, 0.6)
    assert bad.state == "away"


def test_the_pause_is_the_first_one_again_once_a_server_is_trusted():
    choice = Choice(records(2))
    bad, _ = choice.records
    for now in range(4):
        away(choice, bad, float(now))
    bad.state = "ready"
    for _ in range(TRUSTED_ANSWERS):
        choice.answer(choice.send(bad, 5.0, SIZE, 1), 5.1)
    assert away(choice, bad, 6.0) == FIRST_PAUSE_SECONDS


def test_if_all_are_away_each_is_asked_in_its_turn():
    choice = Choice(records(3))
    state = PoolState(choice)
    for record in choice.records:
        assert state.has_another(0.0)
        away(choice, record, 0.0)
    assert not state.has_another(0.0)
    asked = []
    for now in range(1, 7):
        record = choice.next(float(now), SIZE)
        asked.append(choice.records.index(record))
        away(choice, record, float(now))
    assert asked == [0, 1, 2, 0, 1, 2]
    last = choice.records[0]
    assert choice.answer(choice.send(last, 9.0, SIZE, 1), 9.1)
    assert state.has_another(9.1)


def test_a_busy_server_is_left_alone_as_long_as_it_asked():
    choice = Choice(records(2))
    busy, other = choice.records
    choice.refuse(choice.send(busy, 0.0, SIZE, 1), 0.0, 3.0)
    assert {choice.next(2.9, SIZE) for _ in range(3)} == {other}
    assert (busy.may_take(2.9), busy.may_take(3.0)) == (False, True)
    choice.refuse(choice.send(other, 0.0, SIZE, 1), 0.0, float("inf"))
    assert other.busy_until == LONGEST_BUSY_SECONDS
    choice.refuse(choice.send(busy, 3.0, SIZE, 1), 3.0, 1.0)
    assert not choice.is_ready(3.5)
    assert choice.next(3.5, SIZE) is busy


def test_a_server_that_was_asked_to_be_avoided_is_the_last_resort():
    choice = Choice(records(2))
    first, second = choice.records
    assert choice.next(0.0, SIZE, avoid=first) is second
    away(choice, second, 0.0)
    assert choice.next(0.0, SIZE, avoid=first) is first


def test_servers_that_read_another_codec_are_left_out_if_asked():
    choice = Choice([ServerRecord(codec="proto"), ServerRecord(codec="json")])
    assert choice.next(0.0, SIZE, codec="json") is choice.records[1]
    away(choice, choice.records[1], 0.0)
    assert not choice.is_ready(0.0, "json")
    assert choice.is_ready(0.0, "proto")


def test_a_server_that_drains_gets_nothing():
    choice = Choice(records(2))
    choice.records[0].state = "draining"
    assert {id(choice.next(0.0, SIZE)) for _ in range(5)} == {id(choice.records[1])}
    assert choice.fail(choice.send(choice.records[0], 0.0, SIZE, 1), 0.0) is None
    away(choice, choice.records[1], 0.0)
    assert choice.next(0.0, SIZE) is choice.records[1]


def test_the_pace_of_a_server_delays_requests_and_moves_them_elsewhere():
    choice = Choice([ServerRecord(pace=Pace(requests_per_second=10)), ServerRecord(seconds_per_byte=1e-9)])
    paced, _ = choice.records
    assert [choice.send(paced, 0.0, SIZE, 1).began for _ in range(3)] == pytest.approx([0.0, 0.1, 0.2])
    assert choice.next(0.0, SIZE) is choice.records[1]


def test_a_server_that_refuses_requests_is_slowed_down_by_itself():
    choice = Choice(records(2))
    limited, other = choice.records
    for _ in range(4):
        choice.refuse(choice.send(limited, 0.0, SIZE, 1), 0.0, 0.0)
    rate = limited.pace.allowance.rate
    assert rate is not None
    assert other.pace.allowance.rate is None
    first, second = (choice.send(limited, 1.0, SIZE, 1) for _ in range(2))
    assert (first.began, second.began) == (1.0, pytest.approx(1.0 + 1 / rate))
    assert choice.next(1.0, SIZE) is other


@pytest.mark.parametrize("rates", [(50, 50), (50, 200), (50, 50, 50)])
def test_servers_that_limit_the_rate_are_used_as_far_as_they_allow(rates):
    taken, refused = limited(Choice(records(len(rates))), rates, 10 * sum(rates), 12)
    assert max(refused.values()) <= 40
    since_the_third_second = [at for at in taken if at >= 2]
    assert len(since_the_third_second) >= 0.9 * sum(rates) * (taken[-1] - 2)


def test_once_it_is_slowed_down_it_gets_no_pause_that_it_has_not_asked_for():
    choice = Choice(records(1))
    [limited] = choice.records
    for _ in range(4):
        choice.refuse(choice.send(limited, 0.0, SIZE, 1), 0.0, 0.0)
    assert limited.busy_until == FIRST_PAUSE_SECONDS
    choice.refuse(choice.send(limited, 1.0, SIZE, 1), 1.0, 0.0)
    assert limited.may_take(1.0)
    choice.refuse(choice.send(limited, 2.0, SIZE, 1), 2.0, 3.0)
    assert not limited.may_take(4.9)


def test_what_it_takes_is_noted_until_it_refuses_none_for_a_while():
    choice = Choice(records(1))
    [once] = choice.records
    choice.refuse(choice.send(once, 0.0, SIZE, 1), 0.0, 0.0)
    for number in range(1, 17):
        assert once.pace.allowance.watches
        choice.answer(choice.send(once, float(number), SIZE, 1), float(number))
    assert not once.pace.allowance.watches


EVENTS = st.sampled_from(["send", "answer", "fail", "take_back", "refuse", "ask"])


@given(st.lists(st.tuples(EVENTS, st.integers(0, 9)), max_size=80))
def test_whatever_happens_there_is_a_server_and_nothing_stays_counted(events):
    choice, under_way, now = Choice(records(3)), [], 0.0
    for event, number in events:
        now += number / 10
        if event == "send":
            under_way.append(choice.send(choice.next(now, SIZE), now, SIZE, 1))
        elif event == "ask":
            for record in choice.due(now):
                choice.asked(record, now, there=number % 2 == 0)
        elif under_way:
            assignment = under_way.pop(number % len(under_way))
            arguments = (1.0,) if event == "refuse" else ()
            getattr(choice, event)(assignment, now, *arguments)
        assert choice.next(now, SIZE) in choice.records
        assert sum(record.in_flight for record in choice.records) == len(under_way)
    for assignment in under_way:
        choice.answer(assignment, now)
    assert [(record.in_flight, record.waiting_bytes) for record in choice.records] == [(0, 0)] * 3


def test_the_second_server_is_the_one_that_is_expected_to_be_done_first():
    choice = Choice(records(3, seconds_per_byte=1e-6))
    choice.records[1].seconds_per_byte = 1e-5
    sent = choice.send(choice.records[0], 0.0, SIZE, 1)
    assert choice.second(1.0, SIZE, sent) is choice.records[2]


@pytest.mark.parametrize(
    "other",
    [
        ServerRecord(codec="json"),
        ServerRecord(state="away"),
        ServerRecord(state="returning"),
        ServerRecord(state="draining"),
        ServerRecord(busy_until=2.0),
        ServerRecord(pace=Pace(1.0, next_at=2.0)),
    ],
    ids=["codec", "away", "returning", "draining", "busy", "paced"],
)
def test_a_server_that_cannot_take_a_request_at_once_is_no_second_one(other):
    first = ServerRecord()
    choice = Choice([first, other])
    assert choice.second(1.0, SIZE, choice.send(first, 0.0, SIZE, 1)) is None
