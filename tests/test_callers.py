"""The caller's own code runs where the caller is, and its exceptions come back unchanged."""

import asyncio
import threading
from contextvars import ContextVar
from functools import partial

import pytest
from casdk._engine.callers import Caller, EscapedError, report_endings
from casdk._engine.waiting import run, run_async


def where():
    return threading.current_thread().name


def test_the_callers_code_runs_where_the_caller_is():
    async def job(caller):
        return await caller.call(where)

    assert run(job) == where()
    assert asyncio.run(run_async(job)) == where()


def test_a_coroutine_of_the_callers_runs_on_its_loop():
    async def own():
        return asyncio.get_running_loop()

    async def job(caller):
        return await caller.call(own)

    async def main():
        return await run_async(job), asyncio.get_running_loop()

    mine, loop = asyncio.run(main())
    assert mine is loop


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("y")])
def test_errors_pass_both_ways(error):
    def fail():
        raise error

    async def job(caller):
        await caller.call(fail)

    with pytest.raises(type(error)) as caught:
        run(job)
    assert caught.value is error
    with pytest.raises(type(error)):
        asyncio.run(run_async(job))


@pytest.mark.parametrize("ending", [KeyboardInterrupt("x"), SystemExit(3), asyncio.CancelledError()])
def test_what_ends_more_than_a_call_is_wrapped_on_the_engine_alone(ending):
    """asyncio would end the engine's loop with it."""
    seen = []

    def fail():
        raise ending

    async def job(caller):
        try:
            await caller.call(fail)
        except EscapedError as error:
            seen.append(error.original)
            raise

    async def job_on_worker(caller):
        try:
            await caller.run_on_worker(fail)
        except EscapedError as error:
            seen.append(error.original)
            raise

    with pytest.raises(type(ending)) as caught:
        run(job_on_worker)
    assert seen == [ending]
    assert caught.value is ending
    if not isinstance(ending, asyncio.CancelledError):
        with pytest.raises(type(ending)):
            run(job)
    assert run(still_there) == "casdk-engine"


async def still_there(caller):
    return where()


def test_a_stop_iteration_passes_as_what_it_is():
    """A future refuses it, and a coroutine turns it into a RuntimeError."""
    seen = []

    async def job(caller):
        try:
            await caller.call(partial(next, iter(())))
        except RuntimeError as error:
            seen.append(type(error.__cause__))
            return "caught"

    assert run(job) == "caught"
    assert seen == [StopIteration]


def test_a_worker_has_the_context_of_the_caller_and_changes_none():
    variable = ContextVar("variable", default="none")

    def look():
        before = variable.get()
        variable.set("the worker's")
        return before, where()

    async def job(caller):
        return await caller.run_on_worker(look)

    variable.set("the caller's")
    seen, thread = run(job)
    assert seen == "the caller's"
    assert thread.startswith("casdk-read")
    assert variable.get() == "the caller's"


def test_a_job_that_cannot_be_made_is_the_error_of_its_call():
    def job(caller):
        raise LookupError("no job")

    with pytest.raises(LookupError, match="no job"):
        run(job)
    with pytest.raises(LookupError, match="no job"):
        asyncio.run(run_async(job))


class Recorded(Caller):
    """A caller on a loop, or on none, that records the endings it receives."""

    def __init__(self, loop, received):
        self.loop, self.received = loop, received

    def receive(self, endings):
        self.received.append([caller for caller, _, _ in endings])

    def _put(self, piece, taken): ...

    def _ask(self, function, answer): ...

    def end_in_child(self, error): ...


def test_each_loop_is_woken_once_for_all_that_ended():
    received, one, other = [], object(), object()
    first, second, third = (Recorded(loop, received) for loop in (one, other, one))
    thread, another = Recorded(None, received), Recorded(None, received)
    report_endings([(caller, None, None) for caller in (first, thread, second, third, another)])
    assert received == [[thread], [another], [first, third], [second]]
