"""A call in the middle of another one of the same thread, at whatever line: from a signal's handler, a finalizer, a
callback or the content. The inner one works or raises a CasdkError at once; the outer one works.
"""

import asyncio
import contextlib
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import casdk
import numpy as np
import pytest
from casdk import CasdkError, Client, ClosedError, _modules
from casdk._engine import process as _engine
from casdk._engine.waiting import run

OURS = str(Path(casdk.__file__).parent)
CHANNELS = ("grpc", "http", "websocket")
ONE_CHANNEL = ["grpc", *(pytest.param(channel, marks=pytest.mark.soak) for channel in CHANNELS[1:])]
"""For what is code of the engine's and the client's at nearly every line: one is enough, and `make soak` has all."""


@contextmanager
def interrupted(line, act):
    """Run a function before one line of casdk's in this thread, as a signal's handler would; yield whether it was."""
    seen, reached = 0, []

    def trace(frame, event, argument):
        nonlocal seen
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        if event == "line":
            seen += 1
            if seen == line:
                sys.settrace(None)
                reached.append(act())
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield reached
    finally:
        sys.settrace(before)


def at_every_line(outer, act):
    """Interrupt a function at each of its lines in casdk; return what the interruptions returned."""
    found = []
    for line in itertools.count(1):
        with interrupted(line, act) as reached:
            outer()
        if not reached:
            return found
        found += reached
    raise AssertionError


def check_equal(outer, row):
    np.testing.assert_array_equal(outer(), row)


@pytest.mark.parametrize("coalesce", [False, pytest.param(True, marks=pytest.mark.soak), 1.0])
def test_at_every_line_of_a_call(connect, coalesce):
    """Those of the caller's thread, on which the scheme is all the same."""
    client = connect("websocket", coalesce=coalesce)
    row = client.encode(["a"])
    for outer in (lambda: client.encode(["a"]), lambda: np.concatenate(list(client.stream(["a"])))):
        check = partial(check_equal, outer, row)
        found = at_every_line(check, lambda: client.encode(["a"]))
        assert len(found) > 50
        assert all(np.array_equal(rows, row) for rows in found)


def test_at_every_line_of_an_async_call(connect):
    client = connect("websocket")
    row = client.encode(["a"])

    async def outer():
        np.testing.assert_array_equal(await client.aencode(["a"]), row)

    found = at_every_line(lambda: asyncio.run(outer()), lambda: client.encode(["a"]))
    assert len(found) > 50
    assert all(np.array_equal(rows, row) for rows in found)


class SignalError(Exception):
    """Raised by a signal's handler, as many do who want a time limit."""


def signalled():
    raise SignalError


@pytest.mark.parametrize("verb", ["encode", "stream", "search"])
def test_what_a_handler_raises_at_any_line_reaches_the_caller(connect, verb):
    """As it is: it is nothing that the caller's objects have raised. The next call works."""
    client = connect("http")
    row = client.encode(["a"])
    calls = {
        "encode": lambda: client.encode(iter(["a"]), batch_size=1, timeout=20, on_done=None, errors="raise"),
        "stream": lambda: list(client.stream(iter(["a"]), batch_size=1, errors="raise")),
        "search": lambda: client.search(["a"], limit=1, show_progress=False),
    }
    for line in itertools.count(1):
        with contextlib.suppress(SignalError), interrupted(line, signalled):
            calls[verb]()
            break
    assert line > 50
    np.testing.assert_array_equal(client.encode(["a"]), row)


@pytest.fixture
def no_engine():
    """A function that forgets the engine, as if no call had been made yet; the real one is back at the end."""
    before = _engine._engine, _engine._engines

    def end():
        for engine in _engine._engines.values():
            if engine is not before[0]:
                [thread] = [thread for thread in threading.enumerate() if thread.ident == engine._ident]
                engine.loop.call_soon_threadsafe(engine.loop.stop)
                thread.join()
                engine.loop.close()

    def forget():
        end()
        _engine._engine, _engine._engines = None, {}

    yield forget
    end()
    _engine._engine, _engine._engines = before


async def job(caller):
    return caller.engine


def test_at_every_line_of_the_first_call(no_engine):
    for line in itertools.count(1):
        no_engine()
        with interrupted(line, lambda: run(job)) as inner:
            outer = run(job)
        assert run(job) is outer
        if not inner:
            break
        assert inner == [outer]
    assert line > 20


@pytest.mark.soak
@pytest.mark.parametrize("channel", ONE_CHANNEL)
def test_at_every_line_of_the_first_client(server, channel, monkeypatch):
    """As far as its modules are there: see `test_signals` for the others."""
    monkeypatch.setattr(_modules, "_loaded", set())
    address = server.address(channel)
    Client(address).close()  # the modules are there from here on

    def make():
        _modules._loaded.clear()
        Client(address).close()

    def interrupt():
        try:
            Client(address).close()
        except casdk.ConfigError as error:
            return str(error)
        return None

    found = at_every_line(make, interrupt)
    assert set(found) == {None, "a client cannot be made while the code that this interrupts makes the first one"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("scheme", ONE_CHANNEL)
def test_at_every_line_of_a_fork(connect, scheme):
    client = connect(scheme)
    row = client.encode(["a"])
    parent = os.getpid()

    def interrupt():
        try:
            return np.array_equal(client.encode(["a"]), row)
        except ClosedError as error:
            return str(error)

    def fork():
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

    found = at_every_line(fork, lambda: interrupt() if os.getpid() == parent else os._exit(0))
    assert {True, "casdk cannot be called in the middle of a fork of the same thread"} == set(found)
    np.testing.assert_array_equal(client.encode(["a"]), row)


@pytest.mark.soak
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("scheme", ONE_CHANNEL)
def test_a_fork_at_every_line_of_a_fork(connect, scheme):
    """As a signal's handler makes it. The children of both work, and so does the parent."""
    client = connect(scheme)
    row = client.encode(["a"])
    parent = os.getpid()

    def fork():
        child = os.fork()
        if child == 0:
            sys.settrace(None)
            signal.alarm(60)  # one that hangs has another status
            # A call in each would take long.
            os._exit(0 if next(number) % 8 or np.array_equal(client.encode(["a"]), row) else 1)
        next(number)
        return os.waitpid(child, 0)[1]

    outcomes, number = [], itertools.count()
    found = at_every_line(lambda: outcomes.append(fork()), lambda: fork() if os.getpid() == parent else 0)
    assert len(found) > 10
    assert set(found) | set(outcomes) == {0}
    np.testing.assert_array_equal(client.encode(["a"]), row)


SIGNALS = """
import collections, faulthandler, random, signal, sys
faulthandler.dump_traceback_later(100, exit=True)
from casdk import CasdkError, Client

def handle(number, frame):
    try:
        with Client(sys.argv[1]) as inner:
            assert inner.encode(["inner"]).shape == (1, 512)
        outcomes["worked"] += 1
    except CasdkError:
        outcomes["refused"] += 1
    if again:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 3e-3))

outcomes, again = collections.Counter(), True
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 3e-2))
with Client(sys.argv[1]) as client:
    while outcomes["worked"] < 50:
        assert client.encode(["outer"]).shape == (1, 512)
    again = False
print("well")
"""


@pytest.mark.parametrize("scheme", ONE_CHANNEL)
def test_signals(server, scheme):
    """Their handlers make a client and a call, from the first client on."""
    command = [sys.executable, "-c", SIGNALS, server.address(scheme)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "well\n", done.stderr


@pytest.mark.parametrize("scheme", CHANNELS)
@pytest.mark.parametrize("coalesce", [False, True])
def test_finalizers(connect, scheme, coalesce):
    """They run on whatever thread the garbage collector does, the engine's among them."""
    client = connect(scheme, coalesce=coalesce)
    row = client.encode(["a"])
    outcomes, until = [], time.monotonic() + 0.5

    class Cycle:
        def __init__(self):
            self.itself = self

        def __del__(self):
            try:
                outcomes.append(np.array_equal(client.encode(["a"]), row))
            except CasdkError as error:
                outcomes.append(str(error))

    def work():
        while time.monotonic() < until or not outcomes:
            Cycle()
            np.testing.assert_array_equal(client.encode(["a"]), row)

    before = gc.get_threshold()
    threads = [threading.Thread(target=work) for _ in range(3)]
    try:
        gc.set_threshold(60, 2, 2)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.set_threshold(*before)
        gc.collect()
    assert set(outcomes) <= {True, "casdk cannot be called from its own engine thread, nor from its workers"}
    assert outcomes


def test_a_finalizer_on_the_engine_closes_without_a_wait(connect, scheme):
    client, closed = connect(scheme), threading.Event()
    client.encode(["a"])

    shut = client._session.aclose

    async def aclose():
        await shut()
        closed.set()

    client._session.aclose = aclose
    _engine.engine().post(client.close)
    assert closed.wait(10)
    with pytest.raises(ClosedError, match="the client is closed"):
        client.encode(["a"])


def test_callbacks_and_content_call_the_client(client, call, mode):
    row = client.encode(["a"])
    found = []

    def content():
        for text in ("a", "b", "a"):
            found.append(client.encode([text])[0])
            yield text

    def on_done(response):
        found.append(client.encode(["a"])[0])

    call(client, "encode", content(), on_done=on_done, batch_size=1)
    assert len(found) == 6
    assert sum(np.array_equal(embedding, row[0]) for embedding in found) == 5
