"""The search for a bad item, by halves of its batch."""

import math

import pytest
from casdk._calls.batches import Batch
from casdk._calls.isolation import Isolation
from casdk._rust import Kind
from casdk.errors import ServerError
from hypothesis import given
from hypothesis import strategies as st

ERROR = ServerError("boom", name="ValueError", for_item=True)


def make_isolation(size):
    texts = [f"text {index}" for index in range(size)]
    return Isolation(Batch(range(size), texts, bytes([Kind.TEXT]) * size), ERROR)


@given(st.integers(1, 300).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1))))
def test_one_bad_item_is_found_in_the_promised_number_of_requests(size_and_bad):
    size, bad = size_and_bad
    isolation, requests, good = make_isolation(size), 0, []
    while len(isolation.group) > 1:
        half, requests = isolation.probe(), requests + 1
        assert half.isolation is isolation
        if bad in half.indices:
            isolation.failed(ERROR)
        else:
            isolation.passed()
            good += half.indices
    assert list(isolation.group.indices) == [bad]
    assert requests <= math.ceil(math.log2(size))
    rest = isolation.rest()
    assert sorted([*good, bad, *(() if rest is None else rest.indices)]) == list(range(size))


def test_what_was_put_off_is_sent_in_its_order():
    isolation = make_isolation(8)
    assert isolation.rest() is None
    isolation.failed(ERROR)
    isolation.failed(ERROR)
    rest = isolation.rest()
    assert list(rest.indices) == [2, 3, 4, 5, 6, 7]
    assert rest.items == [f"text {index}" for index in range(2, 8)]


@pytest.mark.parametrize(("failures", "left"), [(0, [[4, 5, 6, 7]]), (1, [[2, 3], [4, 5, 6, 7]])])
def test_a_search_that_ends_early_leaves_all_but_the_half_just_sent(failures, left):
    isolation = make_isolation(8)
    for _ in range(failures):
        isolation.failed(ERROR)
    half = isolation.probe()
    assert [list(batch.indices) for batch in isolation.leave()] == left
    assert list(half.indices) == list(range(left[0][0]))


def test_the_last_error_is_what_is_said_of_the_item():
    isolation, last = make_isolation(4), ServerError("once more", for_item=True)
    isolation.failed(last)
    assert isolation.error is last
