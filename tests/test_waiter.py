"""A reply resumes its request in the same turn of the loop, with and without a task."""

import asyncio
from contextvars import ContextVar, copy_context

import pytest
from casdk._engine.waiter import Waiter


async def outcome_of(waiter):
    await waiter
    return waiter.outcome if waiter.is_reply else waiter.result()


async def begun(waiter):
    task = asyncio.create_task(outcome_of(waiter))
    await asyncio.sleep(0)
    return task


async def test_a_task_goes_on_with_a_reply_in_the_turn_in_which_it_came():
    waiter = Waiter()
    assert asyncio.isfuture(waiter)
    task, seen = await begun(waiter), []

    def receive():
        waiter.reply(b"reply")
        seen.append(task.done())

    asyncio.get_running_loop().call_soon(receive)
    assert await asyncio.wait_for(task, 10) == b"reply"
    assert seen == [True]


async def test_a_task_goes_on_later_with_a_reply_that_another_task_reads():
    waiter = Waiter()
    task = await begun(waiter)
    waiter.reply(b"reply")
    assert not task.done()
    assert await asyncio.wait_for(task, 10) == b"reply"


async def test_an_outcome_that_is_no_reply_resumes_one_turn_later():
    refused, broken = Waiter(), Waiter()
    tasks = [await begun(refused), await begun(broken)]
    refused.set_result("refused")
    broken.set_exception(ValueError("broken"))
    assert not any(task.done() for task in tasks)
    assert await asyncio.wait_for(tasks[0], 10) == "refused"
    with pytest.raises(ValueError, match="broken"):
        await asyncio.wait_for(tasks[1], 10)
    assert broken.error is None  # its traceback refers to frames that refer to the waiter


async def test_a_waiter_that_is_done_returns_its_outcome_at_once():
    waiter = Waiter()
    waiter.reply(b"reply")
    with pytest.raises(StopIteration) as end:
        outcome_of(waiter).send(None)
    assert end.value.value == b"reply"


async def test_a_cancelled_task_stops_waiting():
    waiter = Waiter()
    task = await begun(waiter)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert waiter.done
    assert not waiter.cancel()


async def test_an_awaiter_without_a_task_is_called_in_its_own_context():
    variable = ContextVar("variable", default="the connection's")
    waiter, seen = Waiter(), []
    context = copy_context()
    context.run(variable.set, "the call's")
    waiter.when_done(lambda done: seen.append((done.outcome, variable.get())), context)
    waiter.reply(b"reply")
    assert seen == [(b"reply", "the call's")]
