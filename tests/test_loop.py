import asyncio
import gc
import os
import subprocess
import sys
import threading

import pytest
from casdk import Client
from casdk._engine.process import engine
from casdk._engine.waiting import run, run_async, run_pieces, run_pieces_async
from casdk.errors import ClosedError, ConfigError


def where():
    return threading.current_thread().name


def test_a_job_runs_on_the_one_engine():
    async def job(caller):
        return where(), asyncio.get_running_loop()

    (name, loop), (_, again) = run(job), run(job)
    assert name == "casdk-engine"
    assert loop is again is engine().loop


def test_a_call_does_not_walk_through_the_modules_of_its_process(monkeypatch):
    class Modules(dict):
        """What a large program has thousands of."""

        walks = 0

        def __iter__(self):
            Modules.walks += 1
            return super().__iter__()

    async def job(caller):
        return where()

    monkeypatch.setattr(sys, "modules", Modules(sys.modules))
    assert run(job) == "casdk-engine"
    assert Modules.walks == 0


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


def test_works_inside_a_running_loop():
    async def job(caller):
        return 7

    async def main():
        return run(job)

    assert asyncio.run(main()) == 7


def test_the_engine_refuses_to_wait_for_itself():
    async def inner(caller):
        return None

    async def job(caller):
        run(inner)

    with pytest.raises(ClosedError, match="own engine thread"):
        run(job)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_leaving_takes_the_job_back(mode):
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


def test_a_job_taken_back_before_its_first_line_never_begins(recwarn):
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


def test_closing_a_stream_takes_the_job_back():
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_starts_its_own():
    async def job(caller):
        return os.getpid()

    assert run(job) == os.getpid()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, str(run(job)).encode())
        os._exit(0)
    assert int(os.read(read, 20)) == child
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)
    assert run(job) == os.getpid()


INTERRUPTED = """
import random, signal
from casdk._engine import process as _engine
from casdk._engine.waiting import run

class Interrupt(Exception):
    pass

def interrupt(*_):
    if starting:
        raise Interrupt

async def job(caller):
    return 7

starting, hits = False, 0
signal.signal(signal.SIGALRM, interrupt)
for _ in range(50):
    _engine._engine, _engine._engines = None, {}
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 8e-4))
    try:
        starting = True
        _engine.engine()
        starting = False
    except (Interrupt, RuntimeError, KeyError) as error:
        starting, hits = False, hits + 1
        # Some lines of Thread.start raise an error of their own over an interrupt.
        assert isinstance(error, Interrupt) or isinstance(error.__context__, Interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert run(job) == 7
print(hits > 0)
"""


def test_an_interrupt_of_the_first_call_leaves_an_engine_that_works():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_an_async_call_without_a_loop_says_what_works():
    with Client("http://127.0.0.1:1") as client:
        call = client.aencode(["a"])
        with pytest.raises(ConfigError, match="the async verbs need a running asyncio loop; elsewhere"):
            call.send(None)
