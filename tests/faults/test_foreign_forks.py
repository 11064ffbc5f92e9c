"""A fork by C code, as uWSGI forks: it runs none of Python's hooks, so nothing is closed or dropped before it.
And forks beside gRPC of somebody else's, whose hooks give up.

The fork by C code is libc's, through ctypes. CPython itself hangs in the child of such a fork if another thread wanted
the interpreter in that moment, whatever it runs. So the engine stands still at a lock of the test's during the fork,
and threads are switched when they wait and at no other time.
"""

import subprocess
import sys

import pytest

PATIENCE = 100

PRELUDE = """
import asyncio, ctypes, os, signal, sys, threading, traceback
from pathlib import Path
import numpy as np
from casdk import TLS, Client, ConfigError
from casdk._engine import process as _engine
from casdk._engine import threads as _threads
address, other, ca, image, *transport = sys.argv[1:]
tls = TLS(ca=ca) if address.partition(":")[0].endswith("s") else None
client = Client(address, tls=tls, coalesce=True, transport=transport[0] if transport else None)
pid = None

def fork():
    global pid
    sys.setswitchinterval(100)
    rows = client.encode(["a", "b"])
    gate, still = threading.Lock(), threading.Event()
    gate.acquire()

    def stand_still():
        still.set()
        gate.acquire()

    _engine.engine().post(stand_still)
    still.wait()
    pid = ctypes.PyDLL(None).fork()  # PyDLL and not CDLL: it must hold the interpreter
    sys.setswitchinterval(0.005)
    if pid == 0:
        signal.alarm(15)
    else:
        gate.release()
    return rows

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def await_child(pid):
    say("a child ended with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

def check(client, rows, name):
    with client:
        np.testing.assert_array_equal(client.encode(["a", "b"]), rows)
        np.testing.assert_array_equal(asyncio.run(client.aencode(["a", "b"])), rows)
        np.testing.assert_array_equal(np.concatenate(list(client.stream(iter(["a", "b"]), batch_size=1))), rows)
        assert client.encode([Path(image)] * 2).shape == rows.shape
    say(name, "works")
"""


def run_program(program, server, scheme, other, images, tmp_path, *transport, patience=PATIENCE):
    """Run a program that forks; return its status and what it and its children printed."""
    ca = tmp_path / "ca.pem"
    ca.write_bytes(server.ca)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PRELUDE + program]
    addresses = [server.address(scheme), server.address(other)]
    done = subprocess.run(
        [*command, *addresses, str(ca), str(images["png"]), *transport],
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if "skipping fork() handlers" not in line]  # gRPC's
    assert (done.returncode, said) == (0, [])
    return sorted(done.stdout.splitlines())


WORKS = """
rows = fork()
if pid == 0:
    fresh = Client(address, tls=tls)
    check(client, rows, "the client of the parent")
    grandchild = os.fork()
    check(fresh, rows, "a client of the child" if grandchild else "a client of a grandchild")
    if grandchild:
        await_child(grandchild)
else:
    np.testing.assert_array_equal(client.encode(["a", "b"]), rows)
    await_child(pid)
    check(client, rows, "the parent")
"""


def test_a_child_works(make_server, scheme, images, tmp_path):
    """And so do its children by `os.fork`; all of them end as other processes do."""
    server = make_server()
    assert run_program(WORKS, server, scheme, scheme, images, tmp_path) == [
        "a child ended with 0",
        "a child ended with 0",
        "a client of a grandchild works",
        "a client of the child works",
        "the client of the parent works",
        "the parent works",
    ]


STRANDED = """
rows = fork()
if pid == 0:
    calls = {
        "encode": lambda client: client.encode(["a"]),
        "aencode": lambda client: asyncio.run(client.aencode(["a"])),
        "stream": lambda client: list(client.stream(iter(["a"]))),
    }
    for each in (client, Client(address, tls=tls, transport="libraries")):
        for name, call in calls.items():
            try:
                say(name, "works", call(each))
            except ConfigError as error:
                say(error)
        each.close()
    with Client(other) as by_another_way:
        check(by_another_way, rows, "the default")
else:
    np.testing.assert_array_equal(client.encode(["a", "b"]), rows)
    await_child(pid)
    check(client, rows, "the parent")
"""


@pytest.mark.parametrize("scheme", ["grpc", "grpcs"])
def test_a_child_that_inherits_grpcio_is_told_what_works(make_server, scheme, images, tmp_path):
    """Its core does not survive such a fork, in any program: each call says so, and nothing hangs."""
    lines = run_program(STRANDED, make_server(), scheme, "grpc", images, tmp_path, "libraries")
    told = [line for line in lines if line.startswith("grpcio does not survive how this process was forked")]
    assert len(told) == 6
    assert all("lazy-apps" in line and 'transport="libraries"' in line for line in told)
    assert [line for line in lines if line not in told] == [
        "a child ended with 0",
        "the default works",
        "the parent works",
    ]


UNUSED = """
pid = ctypes.PyDLL(None).fork()
if pid == 0:
    check(client, np.asarray(Client(other).encode(["a", "b"])), "an unused client")
else:
    await_child(pid)
"""


@pytest.mark.parametrize("scheme", ["grpc", "websocket"])
def test_a_client_that_was_not_used_before(make_server, scheme, images, tmp_path):
    lines = run_program(UNUSED, make_server(), scheme, scheme, images, tmp_path)
    assert lines == ["a child ended with 0", "an unused client works"]


DROPPED = """
import gc
for how in ("kept", "dropped", "closed"):
    fork()
    if pid == 0:
        if how != "kept":
            if how == "closed":
                client.close()
            del client
            gc.collect()
        say("leaves with a client", how)
        break
    await_child(pid)
    say("parent", client.encode(["c"]).shape)
"""


@pytest.mark.parametrize("scheme", ["grpc", "websocket"])
def test_a_child_that_makes_no_call(make_server, scheme, images, tmp_path):
    """Nothing that belongs to its parent is ever deallocated: that would use the parent's connections."""
    assert run_program(DROPPED, make_server(), scheme, scheme, images, tmp_path) == [
        *["a child ended with 0"] * 3,
        *(f"leaves with a client {how}" for how in ("closed", "dropped", "kept")),
        *["parent (1, 32)"] * 3,
    ]


HELD = """
client.encode(["a"])
lock = _engine._starting()
held = threading.Event()

def hold():
    with lock:
        held.set()
        threading.Event().wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
rows = fork()
if pid == 0:
    client.close()
    check(Client(address, tls=tls), rows, "a child beside a lock that nobody gives back")
else:
    await_child(pid)
"""


def test_a_lock_that_was_held(make_server, images, tmp_path):
    """By a thread that the child does not have."""
    lines = run_program(HELD, make_server(), "http", "http", images, tmp_path)
    assert lines == ["a child beside a lock that nobody gives back works", "a child ended with 0"]


THREADS = """
def numbers():
    found, done = set(), threading.Barrier(9)

    def work():
        found.add(threading.get_ident())
        done.wait()
        np.testing.assert_array_equal(client.encode(["a", "b"]), rows)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    done.wait()
    for thread in threads:
        thread.join()
    return found

client.encode([Path(image)])
parents = set(_threads.our_threads)
rows = fork()
if pid == 0:
    assert numbers() & parents, "no thread has the number of one of the parent's: this shows nothing"
    say("threads work")
else:
    await_child(pid)
"""


def test_threads_with_the_numbers_of_the_parents(make_server, images, tmp_path):
    """The system gives a child's threads the places of its parent's, which were casdk's own."""
    assert run_program(THREADS, make_server(), "http", "http", images, tmp_path) == [
        "a child ended with 0",
        "threads work",
    ]


BESIDE = """
import logging, grpc, grpc.aio
logging.basicConfig(level=logging.WARNING)
rows = client.encode(["a", "b"])
used = threading.Event()

async def use_grpc():
    server = grpc.aio.server()
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(other.partition("://")[2]) as channel:
        try:
            await channel.unary_unary("/some.body/Else")(b"")
        except grpc.aio.AioRpcError:
            used.set()
        await server.wait_for_termination()

threading.Thread(target=asyncio.run, args=(use_grpc(),), daemon=True).start()
used.wait()
for number in range(forks):
    pid = os.fork()
    if pid == 0:
        signal.alarm(15)
        np.testing.assert_array_equal(client.encode(["a", "b"]), rows)
        os._exit(0)  # at an ordinary exit, gRPC would be asked to end what it has no threads for
    assert (status := os.waitpid(pid, 0)[1]) == 0, (number, status)
    np.testing.assert_array_equal(client.encode(["a", "b"]), rows)
say(forks, "children worked")
client.close()
os._exit(0)
"""


@pytest.mark.parametrize("scheme", ["grpc", "grpcs"])
@pytest.mark.parametrize("forks", [10, pytest.param(600, marks=[pytest.mark.soak, pytest.mark.timeout(400)])])
def test_forks_beside_grpc_of_others(make_server, scheme, images, tmp_path, forks):
    """A server and a channel that are open. Our own connections have nothing to do with them: no child hangs or aborts,
    and there is nothing to warn of. (While a call of theirs is in flight, gRPC crashes the child, whoever forks.)
    """
    program = f"forks = {forks}\n{BESIDE}"
    lines = run_program(program, make_server(), scheme, "grpc", images, tmp_path, patience=PATIENCE * 4)
    assert lines == [f"{forks} children worked"]
