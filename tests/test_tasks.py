"""The tasks and requests of one call wake it when they end, with and without an asyncio task of their own."""

import asyncio

import pytest
from casdk._calls.tasks import Tasks
from casdk._engine.waiter import Waiter


class Call:
    """What stops the tasks, and the tasks."""

    def __init__(self):
        self.stopped = []
        self.tasks = Tasks(self.stopped.append)


async def test_an_error_of_a_task_stops_the_call_and_wakes_it():
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


class Request:
    """Waits for a reply, as a request does, and for something else if the test says so."""

    def __init__(self, call, then=None):
        self.waiter, self.seen = Waiter(), []
        self._tasks, self._then = call.tasks, then

    async def work(self):
        try:
            await self.waiter
            self.seen.append(self.waiter.outcome if self.waiter.is_reply else self.waiter.result())
            if self._then is not None:
                await self._then
                self.seen.append(asyncio.current_task() is not None)
        except BaseException as error:
            self.seen.append(type(error).__name__)
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._tasks.end(self)

    def begin(self):
        return self._tasks.carry_on(self, self.work())


async def test_a_request_needs_no_task_to_go_on_with_its_reply():
    call = Call()
    request, tasks = Request(call), asyncio.all_tasks()
    assert not request.begin()
    assert list(call.tasks.running) == [request]
    request.waiter.reply(b"reply")
    assert request.seen == [b"reply"]
    assert not call.tasks.running
    assert asyncio.all_tasks() == tasks


async def test_a_request_whose_reply_is_there_is_over_at_once():
    call = Call()
    request = Request(call)
    request.waiter.reply(b"reply")
    assert request.begin()
    assert request.seen == [b"reply"]


@pytest.mark.parametrize("first", ["reply", "set_result", "set_exception"])
async def test_a_request_that_waits_for_more_than_a_reply_gets_a_task(first):
    call, gate = Call(), asyncio.get_running_loop().create_future()
    request = Request(call, gate)
    request.begin()
    getattr(request.waiter, first)(ValueError("broken"))
    sleeping = asyncio.create_task(call.tasks.sleep(None))
    gate.set_result(None)
    await asyncio.wait_for(sleeping, 10)
    assert len(request.seen) == (1 if first == "set_exception" else 2)
    assert request.seen[-1] in (True, "ValueError")


async def test_a_request_that_never_had_to_wait_for_its_reply_gets_a_task_too():
    call, gate = Call(), asyncio.get_running_loop().create_future()
    request = Request(call, gate)
    request.waiter.reply(b"reply")
    assert not request.begin()
    assert call.tasks.running[request].task is not None
    gate.set_result(None)
    await asyncio.wait_for(call.tasks.sleep(None), 10)
    assert request.seen == [b"reply", True]


@pytest.mark.parametrize("then", [False, True], ids=["for its reply", "for more"])
async def test_a_cancelled_request_stops_waiting(then):
    call = Call()
    request = Request(call, asyncio.get_running_loop().create_future() if then else None)
    request.begin()
    if then:
        request.waiter.reply(b"reply")
    await asyncio.wait_for(call.tasks.cancel_all(), 10)  # before the first turn of its task, if it has one
    assert request.seen == [b"reply", "CancelledError"][not then :]
    assert not call.tasks.running


async def test_a_request_that_is_cancelled_as_it_fails_ends_once():
    call = Call()
    request = Request(call)
    request.begin()
    request.waiter.set_exception(ValueError("broken"))
    await asyncio.wait_for(call.tasks.cancel_all(), 10)
    await asyncio.sleep(0)
    assert request.seen == ["CancelledError"]
