import asyncio

import pytest
from casdk._calls.tasks import Tasks


class Call:
    """What stops the tasks, and the tasks."""

    def __init__(self):
        self.stopped = []
        self.tasks = Tasks(self.stopped.append)


async def test_what_a_task_raises_stops_the_call_and_wakes_it():
    call, error = Call(), ValueError("broken")

    async def fail():
        raise error

    call.tasks.spawn(fail)
    async with asyncio.timeout(10):
        await call.tasks.sleep(None)
    assert call.stopped == [error]
    assert not call.tasks.running


async def test_a_sleep_ends_by_itself():
    await asyncio.wait_for(Call().tasks.sleep(asyncio.get_running_loop().time()), 10)


async def test_a_wake_without_a_sleep_is_none():
    call = Call()
    call.tasks.wake()
    sleeping = asyncio.create_task(call.tasks.sleep(None))
    await asyncio.sleep(0)
    assert not sleeping.done()
    call.tasks.wake()
    call.tasks.wake()
    await asyncio.wait_for(sleeping, 10)


async def test_cancelled_tasks_have_ended():
    call, ended = Call(), []

    async def work(name):
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(name)

    call.tasks.spawn(work, "sends")
    call.tasks.spawn(work, "reads", reads=True)
    await asyncio.sleep(0)
    await asyncio.wait_for(call.tasks.cancel_all(), 10)
    assert sorted(ended) == ["reads", "sends"]
    assert not call.tasks.running
    assert not call.tasks.readers
    assert call.stopped == []


@pytest.mark.parametrize("reads", [False, True])
async def test_answers_are_those_of_tasks_that_send(reads):
    call, gate = Call(), asyncio.Event()
    call.tasks.spawn(gate.wait, reads=reads)
    waiting = asyncio.create_task(call.tasks.wait_for_answers(10))
    for _ in range(3):
        await asyncio.sleep(0)
    assert waiting.done() is reads
    gate.set()
    await asyncio.wait_for(waiting, 10)
