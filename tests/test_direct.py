"""The direct way: which calls take it, when there is a connection for it, what forks and the client's end do to it."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from casdk import TLS, Client, ClosedError, Document, Image, Limits, Retry, Text, Timeouts
from casdk._engine.waiting import run
from casdk._transport import direct as direct_way
from casdk._transport.address import parse_address
from casdk._transport.channels.http2 import Http2Channel
from casdk.testing import Babble, FaultServer, Gate, Hold, Never, Shut, Silent, embed

WIDTH = 8
TEXTS = ["one", "two"]


def set_quick_seconds(monkeypatch, seconds):
    for module in ("_calls", "_transport"):
        monkeypatch.setattr(f"casdk.{module}.direct.QUICK_SECONDS", seconds)


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """A direct connection stays, and its thread waits for the reply, however slow this machine is."""
    set_quick_seconds(monkeypatch, 60.0)
    monkeypatch.setattr("casdk._transport.channels.http2_direct.WAIT_SECONDS", 60.0)


@pytest.fixture
def server():
    with FaultServer(width=WIDTH) as server:
        yield server


@pytest.fixture
def connect(server):
    """A function from Client's options to a client that has opened its direct connection, if it can have one."""
    clients = []

    def connect(scheme="grpc", **options):
        clients.append(Client(server.address(scheme), timeout=60, transport="own", **options))
        clients[-1].encode(["warm"])
        if way(clients[-1]) is not None:
            run(lambda _: way(clients[-1])._open())
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def way(client):
    return client._session.way.only.direct


def goes_directly(client, act):
    """Whether something sends a request over the direct connection."""
    connection = way(client)._connection
    before = connection.stream
    act()
    return connection.stream > before


def turn():
    """Let the engine do what it has been asked for."""
    run(lambda _: asyncio.sleep(0))


def rows(texts):
    return np.stack([embed(text, WIDTH) for text in texts])


# which calls


@pytest.mark.parametrize(
    "content", [["a"], ["a"] * 32, [f"text {number} of many words" * 3 for number in range(32)]], ids=len
)
def test_short_calls_go_directly(connect, content):
    client = connect()
    found = []
    assert goes_directly(client, lambda: found.append(client.encode(content)))
    np.testing.assert_array_equal(found[0], rows(content))


@pytest.mark.parametrize(
    "options",
    [{"dtype": "float16"}, {"errors": "return"}, {"timeout": 30}, {"parameters": {"a": 1}}, {"prefetch": 1}],
    ids=json.dumps,
)
def test_options_that_change_nothing_about_that(connect, options):
    client = connect()
    assert goes_directly(client, lambda: client.encode(TEXTS, **options))


OTHERS = {
    "no items": lambda client: client.encode([]),
    "a tuple": lambda client: client.encode(("a", "b")),
    "an iterator": lambda client: client.encode(iter(TEXTS)),
    "many": lambda client: client.encode(["a"] * 33),
    "several requests": lambda client: client.encode(TEXTS, batch_size=1),
    "long": lambda client: client.encode(["a" * 20_000]),
    "a Text": lambda client: client.encode([Text("a")]),
    "an image": lambda client: client.encode([Image(b"\x89PNG\r\n\x1a\n"), "a"], check_images=False),
    "a Document": lambda client: client.encode([Document(text="a")]),
    "callbacks": lambda client: client.encode(TEXTS, on_done=lambda response: None),
    "responses": lambda client: client.encode(TEXTS, return_responses=True),
    "dedupe": lambda client: client.encode(TEXTS, dedupe=True),
    "out": lambda client: client.encode(TEXTS, out=np.empty((2, WIDTH), np.float32)),
    "a bar": lambda client: client.encode(TEXTS, show_progress=True),
    "auto": lambda client: client.encode(TEXTS, batch_size="auto"),
    "a stream": lambda client: list(client.stream(TEXTS)),
    "async": lambda client: asyncio.run(client.aencode(TEXTS)),
    "index": lambda client: client.index(TEXTS),
    "profile": lambda client: client.profile("a"),
}


@pytest.mark.parametrize("act", OTHERS.values(), ids=OTHERS)
def test_all_other_calls_go_by_the_engine(connect, act):
    client = connect()
    assert not goes_directly(client, lambda: act(client))
    assert goes_directly(client, lambda: client.encode(TEXTS))


def test_a_call_that_is_to_be_logged_goes_by_the_engine(connect):
    client, log = connect(), logging.getLogger("casdk.calls")
    level = log.level
    log.setLevel(logging.DEBUG)
    try:
        assert not goes_directly(client, lambda: client.encode(TEXTS))
    finally:
        log.setLevel(level)


def test_a_call_inside_of_a_loop_goes_directly_too(connect):
    """It blocks the loop either way."""
    client = connect()

    async def encode():
        return goes_directly(client, lambda: client.encode(TEXTS))

    assert asyncio.run(encode())


@pytest.mark.parametrize("scheme", ["grpcs", "http", "websocket"])
def test_only_plain_grpc_has_a_direct_way(server, scheme):
    with Client(server.address(scheme), transport="own") as client:
        assert way(client) is None


def test_none_with_grpcio(server):
    with Client(server.address("grpc"), transport="libraries") as client:
        assert way(client) is None


def test_none_through_a_proxy(server):
    endpoint = parse_address(server.address("grpc"))
    channel = Http2Channel(endpoint, TLS(), Timeouts(), Limits(), "http://127.0.0.1:9")
    assert run(lambda _: channel.open_direct(())) is None


# when there is a connection


def test_it_is_opened_after_many_quick_calls(server):
    with Client(server.address("grpc"), transport="own") as client:
        for _ in range(direct_way.QUICK_CALLS - 1):
            client.encode(TEXTS)
        turn()
        assert server.counters.accepted == 1
        client.encode(TEXTS)
        turn()
        if (opening := way(client)._opening) is not None:
            run(lambda _: asyncio.wait([opening]))
        assert way(client).free
        assert server.counters.accepted == 2
        assert goes_directly(client, lambda: client.encode(TEXTS))


def test_it_is_not_opened_for_a_slow_server(server, monkeypatch):
    set_quick_seconds(monkeypatch, 0.0)
    with Client(server.address("grpc"), transport="own") as client:
        for _ in range(3 * direct_way.QUICK_CALLS):
            client.encode(TEXTS)
        turn()
        assert server.counters.accepted == 1


def test_it_is_closed_when_the_server_becomes_slow(server, connect, monkeypatch):
    client = connect()
    set_quick_seconds(monkeypatch, 0.0)
    for _ in range(direct_way.SLOW_CALLS):
        assert goes_directly(client, lambda: client.encode(TEXTS))
    assert not goes_directly(client, lambda: client.encode(TEXTS))
    server.wait_for(lambda seen: seen.open == 1)


def test_it_is_closed_when_it_was_not_used_for_a_while(server, connect, monkeypatch):
    client = connect()
    free = client._session.way.only._slots.free
    monkeypatch.setattr("casdk._transport.direct.IDLE_SECONDS", 0.0)

    async def look(_):
        way(client)._timer.cancel()
        way(client)._look()

    run(look)
    server.wait_for(lambda seen: seen.open == 1)
    assert client._session.way.only._slots.free == free + 1
    monkeypatch.undo()
    np.testing.assert_array_equal(client.encode(TEXTS), rows(TEXTS))


def test_one_that_was_used_is_kept(connect):
    client = connect()

    async def look(_):
        way(client)._timer.cancel()
        way(client)._look()
        return way(client)._timer is not None

    client.encode(TEXTS)
    assert run(look)
    assert goes_directly(client, lambda: client.encode(TEXTS))


def test_one_whose_thread_was_ended_in_the_middle_is_closed_at_last(server, connect, monkeypatch):
    """As by Ctrl-C, in the moment in which the thread has taken it."""
    client = connect()
    taken = way(client).find()
    assert taken is not None
    monkeypatch.setattr("casdk._transport.direct.IDLE_SECONDS", 0.0)

    async def look(_):
        way(client)._timer.cancel()
        way(client)._look()

    run(look)
    server.wait_for(lambda seen: seen.open == 1)
    while not taken.is_closed:  # the timer comes again, at once
        turn()


@pytest.mark.parametrize("fault", [Shut(), Babble(), Silent()], ids=repr)
def test_a_server_that_takes_no_other_connection_costs_no_call(server, fault):
    with Client(server.address("grpc"), timeouts=Timeouts(connect=1), transport="own") as client:
        client.encode(["warm"])
        free = client._session.way.only._slots.free
        server.play_connections(lambda *_: fault)
        run(lambda _: way(client)._open())
        assert not way(client).free
        assert client._session.way.only._slots.free == free
        np.testing.assert_array_equal(client.encode(TEXTS), rows(TEXTS))


def test_its_requests_count_for_the_limit(server, connect):
    """It has a slot of its own, so all requests together are never more than the client allows."""
    client = connect(limits=Limits(requests=3))
    gate = Gate()
    server.play(lambda request: Hold(gate))
    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(client.encode, [f"{number}"]) for number in range(8)]
        gate.wait_for(3)
        gate.open()
        for number, one in enumerate(running):
            np.testing.assert_array_equal(one.result(), rows([f"{number}"]))
    assert server.counters.most_running == 3


def test_a_client_that_allows_one_request_has_none(connect):
    assert not way(connect(limits=Limits(requests=1))).free


def test_threads_share_it(connect):
    """Whoever finds it in use goes by the engine."""
    client = connect()
    before = way(client)._connection.stream

    def encode(number):
        texts = [f"{number} {time}" for time in range(3)]
        for _ in range(30):
            np.testing.assert_array_equal(client.encode(texts), rows(texts))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(encode, range(8)))
    assert before < way(client)._connection.stream < before + 2 * 8 * 30


# the end of a client, and forks


def test_a_client_that_is_closed_closes_it(server, connect):
    client = connect()
    client.close()
    server.wait_for(lambda seen: seen.open == 0)
    with pytest.raises(ClosedError, match="the client is closed"):
        client.encode(TEXTS)


def in_child(act):
    """Fork, run there, and return whether nothing was raised."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)
        act()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_fork(server, connect):
    """No connection is open during it, and both processes encode."""
    client = connect()

    def check():
        for _ in range(3):
            np.testing.assert_array_equal(client.encode(TEXTS), rows(TEXTS))

    assert in_child(check)
    check()
    assert way(client)._connection.is_closed
    server.wait_for(lambda seen: seen.open == 1)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_fork_while_a_thread_uses_it(server, connect):
    """The child closes its descriptor without a word to the server, and the thread gets its reply in the parent."""
    client, gate = connect(), Gate()
    server.play([Hold(gate)])
    before = server.counters.requests
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.encode, TEXTS)
        gate.wait_for(1)
        socket_of = Path(f"/proc/self/fd/{way(client)._connection._socket.fileno()}").readlink()

        def check():
            own = [one.readlink() for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
            assert socket_of not in own
            np.testing.assert_array_equal(client.encode(["child"]), rows(["child"]))

        assert in_child(check)
        gate.open()
        np.testing.assert_array_equal(running.result(30), rows(TEXTS))
    assert server.counters.requests == before + 2
    assert way(client)._connection.is_closed


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_signals_handler_that_forks_meanwhile(server, connect):
    """The parent gets its reply, and the child an error that says where the call goes on."""
    client, gate, children = connect(), Gate(), []
    server.play([Hold(gate)])
    main = threading.main_thread().ident

    def fork(*_):
        children.append(os.fork())
        if children[-1]:
            gate.open()

    def send():
        gate.wait_for(1)
        signal.pthread_kill(main, signal.SIGUSR1)

    def encode():
        try:
            return client.encode(TEXTS)
        finally:
            if not children[-1]:
                os._exit(check_child(sys.exception()))

    def check_child(error):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)
        if not isinstance(error, ClosedError) or "was forked in the middle of the call" not in str(error):
            return 1
        return 0 if (client.encode(["child"]) == rows(["child"])).all() else 2

    before = signal.signal(signal.SIGUSR1, fork)
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(send)
            np.testing.assert_array_equal(encode(), rows(TEXTS))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert os.waitstatus_to_exitcode(os.waitpid(children[-1], 0)[1]) == 0


GEVENT = """
from gevent import monkey; monkey.patch_all()
import sys
from casdk import Client
from casdk._calls import direct
direct.QUICK_SECONDS, direct.QUICK_CALLS = 60.0, 1
with Client(sys.argv[1]) as client:
    for _ in range(10):
        client.encode(["a"])
    print(len(client._session.way.only.direct.free), client._session.way.only.direct._connection)
"""


@pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")
def test_greenlets_go_by_the_engine(server):
    """A greenlet that waited for a socket by itself would hold up all others."""
    ran = subprocess.run(
        [sys.executable, "-c", GEVENT, server.address("grpc")], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout == "0 None\n"


def test_a_request_is_sent_once_that_is_never_answered(server, connect):
    client = connect(retry=Retry(attempts=1))
    server.play([Never()])
    before = server.counters.requests
    with pytest.raises(Exception, match="ran out"):
        client.encode(TEXTS, timeout=0.3)
    assert server.counters.requests == before + 1
