"""Each process has one engine, even if its start is interrupted."""

import os
import subprocess
import sys

import pytest
from casdk._engine.waiting import run


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


def test_it_is_one_and_the_same_for_threads_that_call_first_at_the_same_time():
    script = """
import threading
from casdk._engine.process import engine

barrier, found = threading.Barrier(20), []

def first():
    barrier.wait()
    found.append(engine())

threads = [threading.Thread(target=first) for _ in range(20)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(found), len(set(map(id, found))), sum(thread.name == "casdk-engine" for thread in threading.enumerate()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("20 1 1\n", "")


AT_EXIT = """
import atexit, sys
from casdk._engine.process import engine

class Late:
    def __del__(self, engine=engine, print=print, flush=sys.stdout.flush):
        try:
            engine()
        except Exception as error:
            print(type(error).__name__, error)
            flush()

late = Late()
sys.modules["late"] = late
"""


def test_none_is_started_while_python_exits():
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("ClosedError Python is exiting: no call can be made any more\n", "")
