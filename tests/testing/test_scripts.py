"""Scripts of the fault server: plans, random faults that can be repeated, and gates."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from casdk.testing.scripts import Fault, Gate, Mix, Request, planner


def request(number=0):
    return Request(number, 0, "grpc", "r", "/encode", {"authorization": "token"}, ("a",), 10)


ONE, OTHER = Fault(), Fault()


@pytest.mark.parametrize(
    ("rules", "plans"),
    [
        (None, [(), ()]),
        (ONE, [(ONE,), (ONE,)]),
        ([ONE], [(ONE,), ()]),
        ([None, (ONE, OTHER)], [(), (ONE, OTHER)]),
        (lambda request: ONE if request.number else None, [(), (ONE,)]),
        (lambda request: [ONE, OTHER], [[ONE, OTHER], [ONE, OTHER]]),
    ],
)
def test_a_plan_for_each_request(rules, plans):
    plan = planner(rules)
    assert [plan(request(number)) for number in range(2)] == plans


def test_a_list_is_used_up_whatever_the_numbers_are():
    plan = planner([ONE, OTHER])
    assert [plan(request(number)) for number in (7, 7, 7)] == [(ONE,), (OTHER,), ()]


def test_a_draw_is_the_same_for_a_seed_and_a_number():
    shares = {ONE: 0.3, OTHER: 0.2}
    first, second, third = Mix(1, shares), Mix(1, shares), Mix(2, shares)
    draws = [[mix(request(number)) for number in range(2000)] for mix in (first, second, third)]
    assert draws[0] == draws[1] != draws[2]
    assert first.injected == sum(fault is not None for fault in draws[0])
    for fault, share in shares.items():
        # Five standard deviations of 2000 draws.
        assert abs(draws[0].count(fault) / 2000 - share) < 0.055


def test_shares_are_of_one_whole():
    Mix(1, {ONE: 0.5, OTHER: 0.5})
    with pytest.raises(ValueError, match=r"must not add up to more than 1, not 1\.2"):
        Mix(1, {ONE: 0.6, OTHER: 0.6})


def test_the_credential_of_a_request():
    assert request().authorization == "token"
    assert Request(0, 0, "grpc", "r", "/", {}, (), 0).authorization is None


async def test_a_gate_lets_the_oldest_pass_first_and_then_everyone():
    gate, passed = Gate(), []

    async def go(number):
        await gate.arrive()
        passed.append(number)

    tasks = [asyncio.create_task(go(number)) for number in range(4)]
    await asyncio.to_thread(gate.wait_for, 4)
    gate.let(2)
    await asyncio.gather(*tasks[:2])
    assert passed == [0, 1]
    gate.open()
    await asyncio.gather(*tasks)
    await asyncio.wait_for(gate.arrive(), 10)
    assert sorted(passed[2:]) == [2, 3]
    assert gate.arrived == 5


def test_a_gate_waits_across_threads_and_says_how_many_came():
    gate = Gate()
    with ThreadPoolExecutor(1) as pool:
        arriving = pool.submit(asyncio.run, gate.arrive())
        gate.wait_for(1)
        with pytest.raises(TimeoutError, match=r"1 of 2 requests came within 0\.01 s"):
            gate.wait_for(2, timeout=0.01)
        gate.open()
        assert arriving.result(10) is None


async def test_whoever_left_the_gate_is_not_let_through():
    gate = Gate()
    leaving = asyncio.create_task(gate.arrive())
    await asyncio.to_thread(gate.wait_for, 1)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    gate.open()
    await asyncio.wait_for(gate.arrive(), 10)
