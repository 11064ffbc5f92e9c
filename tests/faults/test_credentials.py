"""A credential's coroutine is the caller's code, and delays only the calls of its own client."""

import asyncio
import inspect
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from casdk import ClosedError, ConfigError, DeadlineError
from casdk.testing import Never

from .places import Watch

TIMEOUT = 0.3
OVERRUN = 0.1
TRIES = 10
"""A busy machine may pause us; what is held up, is held up every time."""


def end_in_time(act, stopwatch):
    for left in reversed(range(TRIES)):
        with stopwatch() as watch, pytest.raises(DeadlineError):
            act()
        if watch.seconds <= TIMEOUT + OVERRUN or not left:
            break
    assert TIMEOUT - 0.02 <= watch.seconds <= TIMEOUT + OVERRUN


@pytest.fixture
def blocking():
    """A coroutine function that blocks its loop, an event that says that it does, and one that ends this."""
    entered, release = threading.Event(), threading.Event()

    async def credential():
        entered.set()
        release.wait(60)
        return "token"

    yield credential, entered, release
    release.set()


def test_all_coroutines_run_on_one_loop_of_their_own(make_server, connect_to, scheme, call, rows):
    server, note = make_server(token="token"), Watch()

    async def credential():
        note()
        await asyncio.sleep(0)
        return "token"

    for _ in range(2):
        np.testing.assert_array_equal(
            call(connect_to(server, scheme, credential=credential), "encode", ["a"]), rows("a")
        )
    [(name, loop, _)] = note.places
    assert name == "casdk-credential"
    assert loop.is_running()


def test_one_that_blocks_holds_up_nobodys_deadline(make_server, connect_to, scheme, call, blocking, stopwatch):
    credential, entered, _ = blocking
    blocked = connect_to(make_server(), scheme, credential=credential, timeout=TIMEOUT)
    other = connect_to(make_server(Never()), scheme, timeout=TIMEOUT)
    end_in_time(lambda: call(blocked, "encode", ["a"]), stopwatch)
    assert entered.is_set()
    end_in_time(lambda: call(other, "encode", ["a"]), stopwatch)


def test_one_that_blocks_holds_up_no_other_credential(make_server, connect_to, scheme, call, rows, blocking):
    credential, entered, release = blocking

    async def other():
        return "token"

    server = make_server(token="token")
    with ThreadPoolExecutor(1) as pool:
        blocked = pool.submit(connect_to(server, scheme, credential=credential, timeout=60).encode, ["a"])
        assert entered.wait(20)
        client = connect_to(server, scheme, credential=other, timeout=20)
        np.testing.assert_array_equal(call(client, "encode", ["a"]), rows("a"))
        assert not blocked.done()
        release.set()
        np.testing.assert_array_equal(blocked.result(), rows("a"))


def test_one_that_never_returns_is_cancelled_at_the_deadline(make_server, connect_to, scheme, call, stopwatch):
    ended = threading.Event()

    async def credential():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    client = connect_to(make_server(), scheme, credential=credential, timeout=TIMEOUT)
    end_in_time(lambda: call(client, "encode", ["a"]), stopwatch)
    assert ended.wait(20)


@pytest.mark.parametrize("kind", ["function", "coroutine"])
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_ends_more_than_a_call_reaches_the_caller(make_server, connect_to, kind, error, rows):
    server, given = make_server(token="token"), []

    def function():
        given.append(len(given))
        if given == [0]:
            raise error
        return "token"

    async def coroutine():
        return function()

    client = connect_to(server, "http", credential=coroutine if kind == "coroutine" else function, timeout=20)
    with pytest.raises(error):
        client.encode(["a"])
    np.testing.assert_array_equal(client.encode(["a"]), rows("a"))


def test_what_belongs_to_the_callers_loop_cannot_be_awaited(make_server, connect_to):
    async def main():
        theirs = asyncio.get_running_loop().create_future()

        async def credential():
            return await theirs

        client = connect_to(make_server(), "http", credential=credential, timeout=20)
        with pytest.raises(ConfigError, match="the credential's callable raised RuntimeError") as caught:
            await client.aencode(["a"])
        assert "different loop" in str(caught.value.__cause__)

    asyncio.run(main())


def test_what_belongs_to_the_callers_loop_can_be_asked_of_it(make_server, connect_to, rows):
    """As the docs have it."""

    async def main():
        loop = asyncio.get_running_loop()

        async def ask():
            assert asyncio.get_running_loop() is loop
            return "token"

        async def credential():
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ask(), loop))

        client = connect_to(make_server(token="token"), "http", credential=credential, timeout=20)
        np.testing.assert_array_equal(await client.aencode(["a"]), rows("a"))

    asyncio.run(main())


def test_a_call_in_one_is_refused(make_server, connect_to):
    server = make_server()
    inner = connect_to(server, "http", timeout=20)

    async def credential():
        return await inner.aencode(["token"])

    client = connect_to(server, "http", credential=credential, timeout=20)
    with pytest.raises(ClosedError, match="cannot be called from its own engine thread, nor from its workers"):
        client.encode(["a"])


def test_a_coroutine_that_comes_when_its_call_is_over(make_server, connect_to):
    """It is closed, since Python would warn about a coroutine that is never awaited."""
    asked, release, made = threading.Event(), threading.Event(), []

    async def token():
        return "token"

    def credential():
        asked.set()
        release.wait(20)
        made.append(token())
        return made[-1]

    client = connect_to(make_server(), "grpc", credential=credential)
    for seconds in (0.05, 1.0, 10.0):  # on a busy machine, the time may be over before it is asked for
        with pytest.raises(DeadlineError):
            client.encode(["a"], timeout=seconds)
        if asked.is_set():
            break
    release.set()
    until = time.monotonic() + 20
    while not made or any(inspect.getcoroutinestate(one) != inspect.CORO_CLOSED for one in made):
        assert time.monotonic() < until
        time.sleep(0.001)


LEAVE = """
import asyncio, atexit, sys, threading, time
from casdk import Client, DeadlineError

async def blocks():
    time.sleep(600)

async def works():
    return await asyncio.to_thread(str, "token")

def call_late():
    print(Client(sys.argv[1], credential=works, timeout=20).encode(["b"]).shape)

atexit.register(call_late)
try:
    Client(sys.argv[1], credential=blocks, timeout=0.2).encode(["a"])
except DeadlineError:
    print("late")
"""


@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_nothing_waits_for_one_at_exit(make_server, scheme):
    """Nor is the executor of its loop one that has ended by then."""
    command = [sys.executable, "-W", "error", "-c", LEAVE, make_server(token="token").address(scheme)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "late\n(1, 32)\n", "")
