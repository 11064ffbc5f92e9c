"""Which requests of a pool are hedged, on a clock that only the test moves."""

from __future__ import annotations

import random

import numpy as np
import pytest
from casdk._calls.hedging import LEAST_TIMES, MOST_SAVED_HEDGES, REMEMBERED_TIMES, Hedging
from hypothesis import given
from hypothesis import strategies as st

SIZE = 1000


def hedging_that_knows(seconds, size=SIZE, share=1.0):
    """Return one that has seen these times of ``encode``."""
    hedging = Hedging(share)
    for took in seconds:
        hedging.send("encode", size)
        hedging.answer("encode", size, took)
    return hedging


def test_nothing_is_late_before_enough_is_known():
    hedging = hedging_that_knows([0.01] * (LEAST_TIMES - 1))
    assert hedging.send("encode", SIZE) is None
    hedging.answer("encode", SIZE, 0.01)
    assert hedging.send("encode", SIZE) == 0.01


def test_late_is_what_takes_longer_than_95_of_100():
    times = [number / 1000 for number in range(1, REMEMBERED_TIMES + 1)]
    random.Random(1).shuffle(times)
    assert hedging_that_knows(times).send("encode", SIZE) == np.percentile(times, 95, method="inverted_cdf")


def test_only_the_latest_times_count():
    assert hedging_that_knows([1.0] * 1000 + [0.01] * REMEMBERED_TIMES).send("encode", SIZE) == 0.01


@pytest.mark.parametrize(("size", "is_hedged"), [(499, False), (500, True), (1000, True), (2000, True), (2001, False)])
def test_only_requests_of_about_as_many_bytes_as_most_are_hedged(size, is_hedged):
    assert (hedging_that_knows([0.01] * 100).send("encode", size) is not None) == is_hedged


def test_the_times_of_large_requests_say_nothing_of_small_ones():
    hedging = hedging_that_knows([0.01] * 40)
    for _ in range(30):
        hedging.answer("encode", 100 * SIZE, 5.0)
        hedging.answer("encode", SIZE, 0.01)
    assert hedging.send("encode", SIZE) == 0.01


def test_each_verb_has_times_of_its_own():
    assert hedging_that_knows([0.01] * 100).send("rank", SIZE) is None


def test_few_hedges_are_saved_up():
    hedging, hedged = hedging_that_knows([0.01] * 10_000, share=0.05), 0
    while hedging.may_hedge:
        hedging.hedge()
        hedged += 1
    assert hedged == MOST_SAVED_HEDGES


@given(st.floats(0, 1), st.lists(st.integers(0, 60), max_size=60))
def test_never_more_than_the_share_is_hedged(share, wanted):
    """However many of the requests in a row are late after each other one."""
    hedging, sent, hedged = Hedging(share), 0, 0
    for requests in wanted:
        for _ in range(requests):
            hedging.send("encode", SIZE)
            sent += 1
        while hedging.may_hedge:
            hedging.hedge()
            hedged += 1
        assert hedged <= share * sent + 1
        assert hedged >= min(share * requests, MOST_SAVED_HEDGES) - 1.001


def test_stragglers_cost_a_third_or_less():
    chance, hedging, hedged = random.Random(1), Hedging(0.05), 0
    alone, with_it = [], []

    def draw():
        return chance.uniform(0.009, 0.011) * (10 if chance.random() < 0.02 else 1)

    for _ in range(20_000):
        took, late_after = draw(), hedging.send("encode", SIZE)
        alone.append(took)
        if late_after is not None and took > late_after and hedging.may_hedge:
            hedging.hedge()
            hedged += 1
            took = min(took, late_after + draw())
        hedging.answer("encode", SIZE, took)
        with_it.append(took)
    assert 3 * np.percentile(with_it, 99) < np.percentile(alone, 99)
    assert hedged <= 0.05 * len(alone) + 1
