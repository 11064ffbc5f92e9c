"""Used before a fork, a client works on both sides of it, also with calls in flight; it pickles; exit never hangs."""

import asyncio
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import grpc.aio
import numpy as np
import pytest
from casdk import TLS, CasdkError, ConfigError, Retry, Timeouts
from casdk._engine.logging import flush
from casdk._engine.process import engine
from casdk.testing import SCHEMES, Cut, ExecutorError, Gate, Hold, Never, Refuse

# The children are forks of a process with threads on purpose: that is what is shown to be safe here.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
PATIENCE = 60


def in_child(act):
    """Fork, run there, and return the child's pid; it exits with 0 if nothing was raised."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        # A child that hangs is killed, and its status says so; a handler of Python's would not run while it is in C.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        act()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ended_well(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def encode(client, texts):
    return client.encode(texts)


def check(client, rows, name):
    texts = [f"{name} {number}" for number in range(8)]
    np.testing.assert_array_equal(client.encode(texts, batch_size=3), rows(texts))
    np.testing.assert_array_equal(asyncio.run(client.aencode(texts)), rows(texts))


@pytest.fixture
def used(make_server, connect_to, scheme, rows):
    """A client that was used before the fork."""
    client = connect_to(make_server(), scheme, timeout=PATIENCE)
    check(client, rows, "before")
    return client


@pytest.mark.tls
def test_a_fork(used, rows, tally):
    pid = in_child(lambda: check(used, rows, "child"))
    check(used, rows, "parent")
    assert ended_well(pid)
    check(used, rows, "after")
    tally("forks: children that worked")


def test_many_forks(used, rows, tally):
    """A lock that another thread holds for a moment is one that a fork in a hundred catches."""
    for number in range(6):
        pid = in_child(lambda: check(used, rows, "child"))
        assert ended_well(pid), f"child {number}"
        check(used, rows, "parent")
        tally("forks: children that worked")


def test_forks_of_forks_and_new_clients(make_server, connect_to, scheme, rows):
    server = make_server()
    used = connect_to(server, scheme, timeout=PATIENCE)
    check(used, rows, "before")

    def child():
        check(used, rows, "child")
        assert ended_well(in_child(lambda: check(used, rows, "grandchild")))
        check(connect_to(server, scheme, timeout=PATIENCE), rows, "fresh")

    assert ended_well(in_child(child))


@pytest.mark.tls
def test_a_fork_with_calls_in_flight(make_server, connect_to, scheme, rows, tally):
    """They finish in the parent, and the child's own calls work meanwhile."""
    gate = Gate()
    server = make_server(lambda request: Hold(gate) if request.texts[0].startswith("held") else None)
    client = connect_to(server, scheme, timeout=40)
    texts = [[f"held {call} {number}" for number in range(4)] for call in range(4)]
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(client.encode, each, batch_size=2) for each in texts]
        gate.wait_for(4)
        pid = in_child(lambda: check(client, rows, "child"))
        assert ended_well(pid)
        gate.open()
        for each, future in zip(texts, running, strict=True):
            np.testing.assert_array_equal(future.result(), rows(each))
    tally("forks: calls in flight that finished in the parent", len(texts))


def test_a_fork_with_merged_calls_under_way(make_server, connect_to, scheme, rows):
    """Those in flight and those that wait to be merged end in the parent; the child begins afresh."""
    gate = Gate()
    server = make_server(lambda request: Hold(gate) if request.texts[0].startswith("held") else None)
    client = connect_to(server, scheme, timeout=40, coalesce=True)
    texts = [[f"held {call}"] for call in range(6)]
    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(client.encode, each) for each in texts]
        gate.wait_for(1)
        assert ended_well(in_child(lambda: check(client, rows, "child")))
        gate.open()
        for each, future in zip(texts, running, strict=True):
            np.testing.assert_array_equal(future.result(), rows(each))
    check(client, rows, "after")


def test_a_fork_waits_for_what_cannot_be_sent_twice(make_server, connect_to, scheme, rows):
    """An index in flight ends first, in the parent, and is sent once."""
    gate = Gate()
    server = make_server(lambda request: Hold(gate) if request.endpoint == "/index" else None)
    client = connect_to(server, scheme, timeout=PATIENCE)

    def open_during_the_fork():
        while engine().fork is None:
            time.sleep(0.001)
        gate.open()

    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(client.index, ["a", "b"])
        gate.wait_for(1)
        pool.submit(open_during_the_fork)
        assert ended_well(in_child(lambda: check(client, rows, "child")))
        np.testing.assert_array_equal(running.result().embeddings, rows(["a", "b"]))
    assert [request.endpoint for request in server.requests].count("/index") == 1


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        (Never(), {"timeout": 0.2}),
        (Never(), {"timeouts": Timeouts(read=0.2), "retry": Retry(attempts=1)}),
        (Refuse(), {"retry": Retry(attempts=1)}),
        (Cut(), {"retry": Retry(attempts=1)}),
        (ExecutorError(), {}),
    ],
    ids=["deadline", "silence", "refused", "cut", "executor"],
)
def test_a_fork_of_one_who_keeps_an_error(make_server, connect_to, scheme, rows, fault, options):
    """An exception holds frames, and these held grpc's calls once: no child could call then."""
    client = connect_to(make_server(lambda request: fault if request.texts == ("bad",) else None), scheme, **options)
    with pytest.raises(CasdkError) as kept:
        client.encode(["bad"])
    good = connect_to(make_server(), scheme, timeout=PATIENCE)
    check(good, rows, "before")
    assert ended_well(in_child(lambda: check(good, rows, "child")))
    assert kept.value.__traceback__ is not None


def on_the_engine(make):
    async def made():
        return make()

    return asyncio.run_coroutine_threadsafe(made(), engine().loop).result(PATIENCE)


def test_a_fork_beside_grpc_in_a_cycle(make_server, connect_to, rows):
    """What only the garbage collector can free is freed before a fork."""
    client = connect_to(make_server(), "grpc", timeout=PATIENCE)
    check(client, rows, "before")
    gc.disable()
    try:
        cycle = [on_the_engine(lambda: grpc.aio.insecure_channel("127.0.0.1:1"))]
        cycle.append(cycle)
        del cycle
        assert ended_well(in_child(lambda: check(client, rows, "child")))
    finally:
        gc.enable()


@pytest.mark.parametrize("protocols", ["own", "libraries"])
def test_a_fork_beside_grpc_of_others(make_server, connect_to, rows, caplog, monkeypatch, protocols):
    """What cannot be cured is said; where gRPC is not ours, there is nothing to be cured."""
    monkeypatch.setattr(engine(), "libraries", set())  # of other tests in this process
    client = connect_to(make_server(), "grpc", timeout=PATIENCE, transport=protocols)
    check(client, rows, "before")
    theirs = on_the_engine(lambda: grpc.aio.insecure_channel("127.0.0.1:1"))
    assert ended_well(in_child(lambda: None if protocols == "libraries" else check(client, rows, "child")))
    assert flush(20)
    said = "grpc.aio objects that are not casdk's are in use" in caplog.text
    assert said is (protocols == "libraries")
    check(client, rows, "after")
    asyncio.run_coroutine_threadsafe(theirs.close(), engine().loop).result(PATIENCE)


def check_pool(pool, client):
    found = pool.starmap_async(encode, [(client, [f"text {number}"]) for number in range(6)]).get(60)
    np.testing.assert_array_equal(np.concatenate(found), client.encode([f"text {number}" for number in range(6)]))


def test_multiprocessing(used):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        check_pool(pool, used)


def test_multiprocessing_by_spawn(make_server, connect_to, tmp_path, rows):
    """One new process gets a client over each scheme; the authority is bytes, or a path, as a service has it."""
    server = make_server()
    ca = tmp_path / "ca.pem"
    ca.write_bytes(server.ca)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for scheme in SCHEMES:
            options = {"tls": TLS(ca=ca)} if scheme == "grpcs" else {}
            client = connect_to(server, scheme, timeout=PATIENCE, **options)
            check(client, rows, "before")
            check_pool(pool, client)


def test_gunicorn_preload(used, rows):
    """The application is made and used before its workers are forked; they serve from threads; one is replaced."""

    def serve():
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: check(used, rows, f"request {number}"), range(8)))

    workers = [in_child(serve) for _ in range(2)]
    assert ended_well(workers.pop())
    workers.append(in_child(serve))
    assert all(ended_well(pid) for pid in workers)


def test_celery_prefork(used, rows):
    """The parent goes on working from its own thread while its pool's children are forked, task by task."""
    stop, errors = threading.Event(), []

    def broker():
        while not stop.is_set():
            try:
                check(used, rows, "broker")
            except BaseException as error:
                errors.append(error)

    thread = threading.Thread(target=broker)
    thread.start()
    try:
        for _ in range(3):
            assert ended_well(in_child(lambda: check(used, rows, "task")))
    finally:
        stop.set()
        thread.join()
    assert errors == []


class Dataset:
    """As torch's: the client is an attribute, and workers ask for items."""

    def __init__(self, client):
        self.client = client

    def __getitem__(self, number):
        return self.client.encode([f"item {number}"])[0]


def load(dataset, numbers, out):
    for number in numbers:
        out.put((number, dataset[number]))


def test_a_data_loader(used, rows):
    """Two forked workers, indices dealt in turn, results through a queue; twice, as epochs are."""
    context = multiprocessing.get_context("fork")
    for _ in range(2):
        out = context.Queue()
        workers = [context.Process(target=load, args=(Dataset(used), range(part, 8, 2), out)) for part in range(2)]
        for worker in workers:
            worker.start()
        found = dict(out.get(timeout=PATIENCE) for _ in range(8))
        for worker in workers:
            worker.join(PATIENCE)
            assert worker.exitcode == 0
        expected = rows([f"item {number}" for number in range(8)])
        np.testing.assert_array_equal(np.stack([found[number] for number in range(8)]), expected)


def test_a_pickle_is_the_configuration(used, rows):
    with pickle.loads(pickle.dumps(used)) as copy:
        check(copy, rows, "copy")


def test_a_pickle_holds_no_secret(make_server, connect_to, monkeypatch):
    server = make_server(token="s3cret-token")
    with pytest.raises(ConfigError) as caught:
        pickle.dumps(connect_to(server, "http", credential="s3cret-token"))
    assert "s3cret" not in str(caught.value)
    monkeypatch.setenv("CLIP_AUTH_TOKEN", "s3cret-token")
    data = pickle.dumps(connect_to(server, "http"))
    assert b"s3cret" not in data
    with pickle.loads(data) as copy:
        assert copy.encode(["a"]).shape == (1, 32)


LEAVE = """
import sys, threading
from casdk import TLS, Client
secure = sys.argv[1].partition(":")[0].endswith("s")
client = Client(sys.argv[1], tls=TLS(ca=sys.argv[2]) if secure else None, timeout=60)
client.encode(["a"])
if sys.argv[3] == "in flight":
    threading.Thread(target=client.encode, args=(["held"],), daemon=True).start()
    sys.stdin.readline()
print("leaving", flush=True)
"""


@pytest.mark.parametrize("how", ["idle", "in flight"])
def test_interpreter_exit(make_server, scheme, tmp_path, how):
    """Neither hangs nor prints, with the client open."""
    gate = Gate()
    server = make_server(lambda request: Hold(gate) if request.texts == ("held",) else None)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(server.ca)
    command = [sys.executable, "-c", LEAVE, server.address(scheme), str(ca), how]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        if how == "in flight":
            gate.wait_for(1, PATIENCE)
        out, err = process.communicate("go\n", PATIENCE)
    gate.open()
    assert (process.returncode, out, err) == (0, "leaving\n", "")
