"""A coroutine runs without a task while it waits for replies, and in a task if it waits for anything else."""

import asyncio
from contextvars import ContextVar, copy_context

import pytest
from casdk._engine.steps import Steps, have_task, tasks_of
from casdk._engine.waiter import Waiter


class Work:
    """Waits for some things, one after the other, and notes what came of each, and whether a task carried it on."""

    def __init__(self, *waits_for, begins=True):
        self.seen = []
        self.steps = Steps(self._run(waits_for))
        if begins:
            self.steps.go_on()

    async def _run(self, waits_for):
        try:
            for awaitable in waits_for:
                await awaitable
                outcome = awaitable.result() if asyncio.isfuture(awaitable) else None
                self.seen.append((outcome, self._has_task()))
        except BaseException as error:
            self.seen.append((type(error), self._has_task()))
            if isinstance(error, asyncio.CancelledError):
                raise

    def _has_task(self):
        return self.steps.task is not None and asyncio.current_task() is self.steps.task

    async def ended(self):
        async with asyncio.timeout(10):
            await asyncio.wait(tasks_of([self.steps]))


def future():
    return asyncio.get_running_loop().create_future()


async def test_replies_resume_a_coroutine_without_a_task():
    first, second = Waiter(), Waiter()
    asyncio.get_running_loop().call_soon(first.reply, "first")
    work = Work(first, second)
    await asyncio.sleep(0)
    assert work.seen == [("first", False)]
    asyncio.get_running_loop().call_soon(second.reply, "second")
    await asyncio.sleep(0)
    assert work.seen == [("first", False), ("second", False)]
    assert (work.steps.work, tasks_of([work.steps])) == (None, [])


async def test_a_coroutine_that_waits_for_anything_else_gets_a_task_and_keeps_it():
    waiter, other = Waiter(), future()
    work = Work(other, waiter)
    [task] = tasks_of([work.steps])
    assert task.get_name() == "casdk"
    other.set_result("other")
    waiter.reply("reply")
    await work.ended()
    assert work.seen == [("other", True), ("reply", True)]


async def test_waiting_for_a_turn_of_the_loop_gets_a_task_once():
    work = Work(have_task(), have_task(), have_task(), begins=False)
    asyncio.get_running_loop().call_soon(work.steps.go_on)  # where no task is the current one
    await asyncio.sleep(0)
    assert work.seen == []
    await asyncio.sleep(0)
    assert work.seen == [(None, True)] * 3


async def test_a_coroutine_whose_request_failed_goes_on_in_a_task():
    waiter = Waiter()
    work = Work(waiter)
    waiter.set_exception(ValueError("broken"))
    await asyncio.sleep(0)
    await work.ended()
    assert work.seen == [(ValueError, True)]


@pytest.mark.parametrize("wait_for", [Waiter, future])
async def test_a_coroutine_is_cancelled_where_it_waits(wait_for):
    waited_for = wait_for()
    work = Work(waited_for)
    assert work.steps.cancelling() == 0
    work.steps.cancel()
    assert work.steps.cancelling() == 1
    if isinstance(waited_for, Waiter):
        waited_for.reply("too late")
    await work.ended()
    assert work.seen == [(asyncio.CancelledError, True)]


async def test_a_coroutine_that_is_over_is_not_cancelled():
    work = Work()
    work.steps.cancel()
    assert tasks_of([work.steps]) == []


async def test_a_coroutine_has_the_same_context_with_and_without_a_task():
    variable, seen = ContextVar("variable", default="none"), []

    async def run(waiter, other):
        variable.set("its own")
        await waiter
        seen.append(variable.get())
        await other
        seen.append(variable.get())

    waiter, other = Waiter(), future()
    steps = Steps(run(waiter, other))
    copy_context().run(steps.go_on)
    waiter.reply("reply")
    other.set_result(None)
    async with asyncio.timeout(10):
        await asyncio.wait(tasks_of([steps]))
    assert seen == ["its own"] * 2
    assert variable.get() == "none"
