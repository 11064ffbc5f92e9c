"""casdk's own threads: there are no more than needed, they keep no object alive, and never delay an exit."""

import gc
import subprocess
import sys
import threading
import weakref
from concurrent.futures import CancelledError

import pytest
from casdk._engine.threads import Workers, start
from casdk.errors import TransportError


def test_work_comes_back_from_daemons_of_that_name():
    pool = Workers(2, "cook")
    thread = pool.submit(threading.current_thread).result(10)
    assert thread.daemon
    assert thread.name == "cook_0"
    assert pool.submit(max, 3, 5, key=lambda number: -number).result(10) == 3
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 / 0).result(10)


def test_there_are_no_more_threads_than_work():
    pool = Workers(8, "cook")
    for _ in range(5):
        assert pool.submit(threading.current_thread).result(10).name == "cook_0"


def test_there_are_no_more_threads_than_asked_for():
    pool, gate, busy = Workers(2, "cook"), threading.Event(), threading.Semaphore(0)

    def work():
        busy.release()
        gate.wait()
        return threading.current_thread().name

    futures = [pool.submit(work) for _ in range(5)]
    busy.acquire()
    busy.acquire()
    gate.set()
    assert {future.result(10) for future in futures} == {"cook_0", "cook_1"}


def test_cancelled_work_is_not_done():
    pool, gate = Workers(1, "cook"), threading.Event()
    first, second = pool.submit(gate.wait), pool.submit(gate.clear)
    assert second.cancel()
    gate.set()
    assert first.result(10)
    assert pool.submit(gate.is_set).result(10)
    with pytest.raises(CancelledError):
        second.result(10)


def test_an_idle_thread_keeps_nothing():
    class Thing:
        pass

    pool, thing = Workers(1, "cook"), Thing()
    gone = weakref.ref(thing)
    assert pool.submit(lambda thing: thing, thing).result(10) is thing
    pool.submit(int).result(10)
    del thing
    gc.collect()
    assert gone() is None


NO_THREADS = """
import resource, threading
from casdk import Client
from casdk._engine.threads import Workers, start
from casdk.errors import TransportError
pool, gate = Workers(2, "cook"), threading.Event()
first = pool.submit(gate.wait)
threading.stack_size(1 << 34)
resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33))
for begin in (lambda: start(print, "more"), lambda: Client("http://127.0.0.1:1").encode(["a"])):
    try:
        begin()
    except TransportError as error:
        assert not error.retryable
        print(error)
second = pool.submit(gate.is_set)
gate.set()
print(first.result(), second.result())
"""


def test_a_system_without_threads_is_named_and_those_that_run_go_on():
    done = subprocess.run([sys.executable, "-c", NO_THREADS], capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0].startswith("the thread more cannot be started: can't start new thread")
    assert lines[1].startswith("the thread casdk-engine cannot be started")
    assert lines[2] == "True True"


def test_what_is_wrong_with_the_thread_is_not_taken_for_a_lack_of_threads(monkeypatch):
    def interrupted(thread):
        raise RuntimeError("release unlocked lock")

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(RuntimeError, match="unlocked") as caught:
        start(print, "more")
    assert not isinstance(caught.value, TransportError)
