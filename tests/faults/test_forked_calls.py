"""A fork in the middle of a call: the parent's call continues, and the child, which has no engine, gets an error."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import traceback
from contextlib import contextmanager

import numpy as np
import pytest
from casdk import ClosedError
from casdk.testing import Gate, Hold

# The children are forks of a process with threads on purpose: that is what is shown to be safe here.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
PATIENCE = 60
TEXTS = ["a", "b", "c", "d"]


class Fork:
    """Forks when it is called for the first time, and knows who is the child; the server answers "held" only then."""

    def __init__(self):
        self.pid = None
        self.gate = Gate()

    def __call__(self, *_):
        if self.pid is None:
            self.pid = os.fork()
            if self.pid == 0:
                # A child that hangs is killed, and its status says so.
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(PATIENCE)
            else:
                self.gate.open()

    async def later(self, *_):
        await asyncio.sleep(0)
        self()
        await asyncio.sleep(0)


def items(fork):
    yield from TEXTS[:2]
    fork()
    yield from TEXTS[2:]


async def items_of_a_loop(fork):
    for text in TEXTS:
        if text == "c":
            await fork.later()
        yield text


def in_a_generator(client, fork):
    return client.encode(items(fork), batch_size=1)


def in_a_callback(client, fork):
    return [response.data for response in client.encode(TEXTS, batch_size=1, on_done=fork, return_responses=True)]


def between_pieces(client, fork):
    pieces = client.stream(TEXTS, batch_size=1, prefetch=1)
    first = next(pieces)
    fork()
    return np.concatenate([first, *pieces])


async def in_a_generator_of_a_loop(client, fork):
    return await client.aencode(items(fork), batch_size=1)


async def in_an_async_generator(client, fork):
    return await client.aencode(items_of_a_loop(fork), batch_size=1)


async def in_an_async_callback(client, fork):
    responses = await client.aencode(TEXTS, batch_size=1, on_done=fork.later, return_responses=True)
    return [response.data for response in responses]


async def between_pieces_of_a_loop(client, fork):
    pieces = client.astream(TEXTS, batch_size=1, prefetch=1)
    first = await anext(pieces)
    fork()
    return np.concatenate([first, *[piece async for piece in pieces]])


async def in_another_task(client, fork):
    call = asyncio.create_task(client.aencode(["held"]))
    await asyncio.to_thread(fork.gate.wait_for, 1)
    fork()
    return await call


@contextmanager
def a_signal_forks(fork):
    """While the main thread waits for "held"."""
    parent, over = os.getpid(), threading.Event()

    def send():
        fork.gate.wait_for(1)
        os.kill(parent, signal.SIGUSR1)
        over.wait()  # a thread that ends during the fork may leave the child one of OpenSSL's locks

    before = signal.signal(signal.SIGUSR1, fork)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        over.set()
        signal.signal(signal.SIGUSR1, before)
    sender.join()


def in_a_signal_handler(client, fork):
    with a_signal_forks(fork):
        return client.encode(["held"])


async def in_a_signal_handler_of_a_loop(client, fork):
    with a_signal_forks(fork):
        return await client.aencode(["held"])


WAYS = [
    in_a_generator,
    in_a_callback,
    between_pieces,
    in_a_generator_of_a_loop,
    in_an_async_generator,
    in_an_async_callback,
    between_pieces_of_a_loop,
    in_another_task,
    in_a_signal_handler,
    in_a_signal_handler_of_a_loop,
]
HELD = {in_another_task, in_a_signal_handler, in_a_signal_handler_of_a_loop}


def check(client, rows, name):
    texts = [f"{name} {number}" for number in range(4)]
    np.testing.assert_array_equal(client.encode(texts, batch_size=3), rows(texts))
    np.testing.assert_array_equal(asyncio.run(client.aencode(texts)), rows(texts))


@pytest.mark.tls
@pytest.mark.parametrize("scheme", ["grpc", "https", "websocket"])
@pytest.mark.parametrize("way", WAYS)
def test_a_fork_in_the_middle_of_a_call(make_server, connect_to, scheme, rows, tally, way):
    fork = Fork()
    server = make_server(lambda request: Hold(fork.gate) if request.texts == ("held",) else None)
    client = connect_to(server, scheme)
    check(client, rows, "before")
    try:
        result = way(client, fork)
        result = asyncio.run(result) if asyncio.iscoroutine(result) else result
        assert fork.pid, "the child was answered"
    except ClosedError as error:
        if fork.pid != 0 or "forked in the middle of the call" not in str(error):
            raise
        check(client, rows, "child")
        os._exit(0)
    finally:
        if fork.pid == 0:
            traceback.print_exc()
            os._exit(1)
    if isinstance(result, np.ndarray):
        np.testing.assert_array_equal(result, rows(["held"] if way in HELD else TEXTS))
    else:
        assert len(result) == len(TEXTS)
    check(client, rows, "after")
    assert os.waitstatus_to_exitcode(os.waitpid(fork.pid, 0)[1]) == 0
    tally("forks: children in the middle of a call that were told")


def run_program(program, server, scheme):
    """Run a program that forks, with the server's address; return its exit status and what it printed."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PRELUDE + program, server.address(scheme)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.returncode, sorted(done.stdout.splitlines()), done.stderr


PRELUDE = """
import os, signal, sys
from casdk import Client, CasdkError, ClosedError
client, pid = Client(sys.argv[1]), None

def fork():
    global pid
    pid = os.fork()
    if pid == 0:
        signal.alarm(15)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def await_child():
    say("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""

LEAVES = """
client.encode(["a"])

def items():
    yield "a"
    fork()
    if pid == 0 and sys.argv[1].startswith("http"):
        say("leaves")
        sys.exit(3)
    yield "b"

try:
    say("rows", len(client.encode(items(), batch_size=1)))
    await_child()
except ClosedError as error:
    say("told")
"""


@pytest.mark.parametrize(
    ("scheme", "said"), [("grpc", ["child 0", "rows 2", "told"]), ("http", ["child 3", "leaves", "rows 2"])]
)
def test_a_child_leaves_as_any_process_does(make_server, scheme, said):
    """By its end, or by ``sys.exit`` in the middle of the call; the parent's connections are not cleaned up in it."""
    assert run_program(LEAVES, make_server(), scheme) == (0, said, "")


READER = """
client.encode(["a"])

def items():
    yield "a"
    fork()
    if pid == 0:
        say("next", client.encode(["b"]).shape)
    yield "c"

say("rows", len(client.encode(items(), batch_size=1, reader="thread", timeout=15)))
await_child()
say("after", client.encode(["d"]).shape)
"""


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_fork_in_a_reader(make_server, scheme):
    """Its thread is all that the child has: it ends with the error, and the child with it."""
    status, said, err = run_program(READER, make_server(), scheme)
    assert (status, said) == (0, ["after (1, 32)", "child 1", "next (1, 32)", "rows 2"])
    assert err.splitlines()[-1].startswith("casdk.errors.ClosedError: this process was forked in the middle of a call")


CREDENTIAL = """
import asyncio

def token():
    fork()
    if pid == 0:
        say("child works")
    return "token"

async def token_of_a_loop():
    await asyncio.sleep(0)
    return token()

def encode(credential):
    with Client(sys.argv[1], credential=credential) as client:
        say("rows", len(client.encode(["a"])))
        await_child()
        say("rows", len(client.encode(["a", "b", "c"], batch_size=1)))

encode(token)
encode(token_of_a_loop)
"""


@pytest.mark.parametrize("scheme", ["http", "websocket"])
def test_a_fork_on_the_engine(make_server, scheme):
    """By a credential's callable: the child's copy of the engine sends nothing."""
    server = make_server(token="token")
    status, said, err = run_program(CREDENTIAL, server, scheme)
    assert (status, said) == (0, ["child 1"] * 2 + ["child works"] * 2 + ["rows 1"] * 2 + ["rows 3"] * 2)
    assert err.count("casdk.errors.ClosedError: this process was forked in the middle of a call") == 2
    assert server.counters.requests == 8


def work(queue, client):
    queue.put(client.encode(["in the child"]))


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_multiprocessing_in_a_callback(make_server, connect_to, scheme, rows):
    client, context = connect_to(make_server(), scheme), multiprocessing.get_context("fork")
    queue, workers = context.Queue(), []

    def start(response):
        workers.append(context.Process(target=work, args=(queue, client)))
        workers[-1].start()
        np.testing.assert_array_equal(queue.get(timeout=PATIENCE), rows(["in the child"]))
        workers[-1].join(PATIENCE)

    assert client.encode(TEXTS, batch_size=1, on_done=start) is None
    assert [worker.exitcode for worker in workers] == [0] * 4
    check(client, rows, "after")
