"""How a thread, and a task on a loop, wait for a call: its result, its pieces, and how they leave it."""

import asyncio
import gc
import threading

import pytest
from casdk import Client
from casdk._engine.process import engine
from casdk._engine.waiting import run, run_async, run_pieces, run_pieces_async
from casdk.errors import ConfigError


def test_works_inside_a_running_loop():
    async def job(caller):
        return 7

    async def main():
        return run(job)

    assert asyncio.run(main()) == 7


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_leaving_cancels_the_job(mode):
    started, ended = threading.Event(), threading.Event()

    async def job(caller):
        try:
            started.set()
            if mode == "sync":
                await caller.call(interrupt)
            await asyncio.Event().wait()
        finally:
            ended.set()

    def interrupt():
        raise KeyboardInterrupt

    async def main():
        task = asyncio.create_task(run_async(job))
        await asyncio.to_thread(started.wait, 10)
        task.cancel()
        await task

    if mode == "sync":
        with pytest.raises(KeyboardInterrupt):
            run(job)
    else:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(main())
    assert ended.wait(10)


def test_a_job_that_is_cancelled_before_its_first_line_never_begins(recwarn):
    gate, begun = threading.Event(), []

    async def job(caller):
        begun.append(caller)

    async def main():
        engine().post(gate.wait)  # so that both letters are read in one turn
        task = asyncio.create_task(run_async(job))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        gate.set()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())

    async def later(caller):
        return "later"

    assert run(later) == "later"
    gc.collect()
    assert not begun
    assert not recwarn.list


async def count(caller):
    for number in range(5):
        taken = asyncio.get_running_loop().create_future()
        caller.hand_over(number, lambda taken=taken: taken.done() or taken.set_result(None))
        await taken
    return lambda: None


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_a_stream_returns_is_called_where_its_caller_is(asynchronous):
    def fail():
        raise ValueError(threading.current_thread().name)

    async def job(caller):
        await count(caller)
        return fail

    async def gather():
        async for piece in run_pieces_async(job):
            pieces.append(piece)  # noqa: PERF401

    pieces = []
    with pytest.raises(ValueError, match=threading.current_thread().name):
        asyncio.run(gather()) if asynchronous else pieces.extend(run_pieces(job))
    assert pieces == list(range(5))


def test_pieces_come_in_order_and_wait_to_be_taken():
    assert list(run_pieces(count)) == list(range(5))

    async def main():
        return [piece async for piece in run_pieces_async(count)]

    assert asyncio.run(main()) == list(range(5))


def test_closing_a_stream_cancels_the_job():
    ended = threading.Event()

    async def endless(caller):
        try:
            while True:
                await count(caller)
        finally:
            ended.set()

    pieces = run_pieces(endless)
    assert next(pieces) == 0
    pieces.close()
    assert ended.wait(10)


def test_an_async_call_without_a_loop_says_what_works():
    with Client("http://127.0.0.1:1") as client:
        call = client.aencode(["a"])
        with pytest.raises(ConfigError, match="the async verbs need a running asyncio loop; elsewhere"):
            call.send(None)
