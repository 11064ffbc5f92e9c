"""Requests reserve memory in the order in which they ask, and the pressure is high while the process is too large."""

import asyncio
import threading

import pytest
from casdk.server.memory import BusyError, Memory, Pressure, TooLargeError, _resident, _trim


def _thread(memory, amount, held, leave):
    def hold():
        with memory.hold(amount):
            held.set()
            leave.wait(20)

    started = threading.Thread(target=hold)
    started.start()
    return started


def test_who_asks_for_more_than_there_is_waits_its_turn():
    memory = Memory(100, "tests")
    leave, events = threading.Event(), [threading.Event() for _ in range(4)]
    with memory.hold(60):
        large = _thread(memory, 90, events[0], leave)
        while not memory._waiting:
            pass
        small = _thread(memory, 10, events[1], leave)
        assert not events[1].wait(0.1), "a small one passes the large one that came before it"
    assert events[0].wait(20)
    assert events[1].wait(20)
    leave.set()
    for thread in (large, small):
        thread.join()
    assert memory._free == 100


async def test_a_task_waits_without_its_loop_and_may_stop_waiting():
    memory = Memory(100, "tests")
    async with memory.hold_on_loop(60):
        waiting = asyncio.ensure_future(_hold(memory, 60))
        behind = asyncio.ensure_future(_hold(memory, 30))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert await asyncio.wait_for(behind, 20) == 30
    assert memory._free == 100


async def _hold(memory, amount):
    async with memory.hold_on_loop(amount):
        return amount


async def test_what_is_given_in_the_moment_of_leaving_is_given_back():
    memory = Memory(100, "tests")
    entered = memory.hold_on_loop(100)
    await entered.__aenter__()
    waiting = asyncio.ensure_future(_hold(memory, 100))
    await asyncio.sleep(0)
    await entered.__aexit__(None, None, None)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert memory._free == 100


async def test_more_than_there_will_ever_be_is_refused_at_once():
    memory = Memory(10 << 20, "tests")
    words = "takes about 11 MiB, and the server has 10 MiB for tests"
    with pytest.raises(TooLargeError, match=words), memory.hold(11 << 20):
        pass
    with pytest.raises(TooLargeError, match=words):
        await _hold(memory, 11 << 20)
    assert not issubclass(BusyError, TooLargeError)


async def test_a_process_that_grows_is_under_pressure_until_it_shrinks():
    _trim()  # or the watch would give back what other tests have freed, and the process would not have grown
    pressure = Pressure(64 << 20)
    called = asyncio.Event()
    pressure.relieved_by(called.set)
    watching = asyncio.ensure_future(pressure.watch())
    await asyncio.sleep(0)
    before = _resident()
    grown = bytearray(b"\1") * (200 << 20)
    assert _resident() - before >= 150 << 20
    await asyncio.wait_for(pressure.high.wait(), 20)
    assert called.is_set()
    del grown
    while pressure.high.is_set():  # noqa: ASYNC110 - an Event has no way to wait for its end
        await asyncio.sleep(0.01)
    watching.cancel()
