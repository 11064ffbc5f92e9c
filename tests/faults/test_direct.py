"""What a call on the direct way meets is what it would have met on the engine: results, errors, requests, attempts."""

import asyncio
import contextlib
import random
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from casdk import ClosedError, Retry, Timeouts
from casdk._engine.waiting import run
from casdk.errors import CasdkError
from casdk.testing import (
    AddDocument,
    Cut,
    DeadExecutor,
    Delay,
    DropDocument,
    Duplicate,
    EntityTooLarge,
    ExecutorError,
    Garbage,
    Gate,
    Hold,
    HugeLength,
    Never,
    NoEmbedding,
    Page,
    Refuse,
    Stall,
    TextReply,
    Trickle,
    Truncate,
    Width,
    WrongId,
)

FAULTS = [
    AddDocument(),
    Cut("before"),
    Cut("after"),
    Cut("after", "reset"),
    Cut("middle"),
    Cut("middle", "reset"),
    DeadExecutor(),
    Delay(0.05),
    DropDocument(),
    DropDocument(rename=True),
    Duplicate(),
    EntityTooLarge(10),
    EntityTooLarge(10, "server"),
    ExecutorError(),
    ExecutorError("MemoryError"),
    Garbage(),
    HugeLength(),
    Never(),
    NoEmbedding(),
    Page(),
    Page(413),
    Refuse.gateway(),
    Refuse.internal(),
    Refuse.overloaded(),
    Refuse.overloaded(0.01),
    Refuse.unauthenticated(),
    Refuse.unavailable(),
    Stall(),
    TextReply(),
    Trickle(200, 0.005),
    Truncate(),
    Width(7),
    Width(7, 1),
    WrongId(),
]
TEXTS = ["one", "two", "three"]
DETAILS = (
    "code",
    "sent",
    "retryable",
    "away",
    "too_large",
    "attempts",
    "done",
    "total",
    "index",
    "name",
    "retry_after",
)
PROMPT = Retry(attempts=3, backoff=0.001, max_backoff=0.01, patience=0)


@pytest.fixture
def direct_to(connect_to, monkeypatch):
    """A function that returns a client with a direct connection, which stays however slow this machine is."""
    monkeypatch.setattr("casdk._transport.direct.QUICK_SECONDS", 60.0)

    def connect(server, **options):
        client = connect_to(server, "grpc", **options)
        client.encode(["warm"])
        run(lambda _: client._session.way.only.direct._open())
        assert client._session.way.only.direct.free
        return client

    return connect


def latest(client):
    return client._session.way.only.direct._connection


def outcome(client, server, address, **options):
    """Return what a call has met, and how many requests it was."""
    before, found = server.counters.requests, {}
    try:
        result = client.encode(TEXTS, prefetch=1, **options)  # so that the order of requests is certain
    except CasdkError as error:
        found = {name: getattr(error, name, None) for name in DETAILS}
        # Without its numbers: a reply has some bytes more or less, by the times that it has in it.
        found["error"], found["said"] = type(error), re.sub(r"\d+", "N", str(error).replace(address, ""))
        partial = getattr(error, "partial", None)
        found["partial"] = None if partial is None else np.nan_to_num(partial, nan=9.0).tolist()
    else:
        rows = result if isinstance(result, np.ndarray) else result.embeddings
        found["rows"] = np.nan_to_num(rows, nan=9.0).tolist()
        found["errors"] = [(error.index, type(error)) for error in getattr(result, "errors", ())]
    found["requests"] = server.counters.requests - before
    return found


@pytest.mark.parametrize("retry", [Retry(attempts=1), PROMPT], ids=["once", "again"])
@pytest.mark.parametrize("fault", FAULTS, ids=repr)
@pytest.mark.parametrize("times", [1, 10])
def test_a_fault_is_met_as_on_the_engine(make_server, connect_to, direct_to, fault, retry, times):
    """The same result or the same error, with the same details, of the same number of requests; then calls go on."""
    found, options = [], {"retry": retry, "timeouts": Timeouts(read=0.3, connect=30)}
    for connect in (lambda server: connect_to(server, "grpc", **options), lambda server: direct_to(server, **options)):
        server = make_server()
        client = connect(server)
        client.encode(["warm"])
        server.play([fault] * times)
        found.append([outcome(client, server, server.address("grpc"))])
        server.play(None)
        found[-1].append(outcome(client, server, server.address("grpc")))
    assert found[1] == found[0]
    assert "rows" in found[1][1]


@pytest.mark.parametrize("errors", ["return", "skip"])
@pytest.mark.parametrize("fault", [NoEmbedding(), DropDocument(), ExecutorError(), Width(7)], ids=repr)
def test_items_without_a_row_are_as_on_the_engine(make_server, connect_to, direct_to, fault, errors):
    found = []
    for connect in (lambda server: connect_to(server, "grpc"), direct_to):
        server = make_server()
        client = connect(server)
        client.encode(["warm"])
        server.play([fault])
        found.append(outcome(client, server, server.address("grpc"), errors=errors))
    assert found[1] == found[0]


def test_the_results_are_the_same_bits(make_server, connect_to, direct_to):
    server = make_server()
    client, other = direct_to(server), connect_to(server, "grpc")
    for options in ({}, {"dtype": "float16"}, {"result": "arrow"}, {"errors": "return"}, {"batch_size": 3}):
        stream = latest(client).stream
        one, two = client.encode(TEXTS, **options), other.encode(TEXTS, **options)
        assert latest(client).stream > stream
        if isinstance(one, np.ndarray):
            assert (one.dtype, one.shape, one.tobytes()) == (two.dtype, two.shape, two.tobytes())
        elif "errors" in options:
            assert one.embeddings.tobytes() == two.embeddings.tobytes()
        else:
            assert one == two


def test_a_token_that_is_refused_is_asked_for_again(make_server, direct_to):
    server = make_server(token="a")
    tokens = ["a", "b"]
    client = direct_to(server, credential=lambda: tokens.pop(0), retry=Retry(attempts=1))
    server.token = "b"
    assert client.encode(TEXTS).shape[0] == 3
    assert not tokens
    stream = latest(client).stream
    assert client.encode(TEXTS).shape[0] == 3
    assert latest(client).stream == stream
    assert latest(client).is_closed  # it would send the old token


def test_a_server_that_restarts_costs_no_attempt(make_server, direct_to):
    server = make_server()
    client = direct_to(server, retry=Retry(attempts=1))
    server.restart("close")
    for _ in range(3):
        assert client.encode(TEXTS).shape[0] == 3
    assert latest(client).is_closed


def test_a_deadline_of_the_call(make_server, direct_to, connect_to):
    found = []
    for connect in (lambda server: connect_to(server, "grpc"), direct_to):
        server = make_server()
        client = connect(server)
        client.encode(["warm"])
        server.play([Never()])
        found.append(outcome(client, server, server.address("grpc"), timeout=0.2))
        server.wait_for(lambda seen: seen.running == 0)
    assert found[1] == found[0]
    assert found[1]["requests"] == 1


def test_a_client_that_is_closed_meanwhile(make_server, direct_to, monkeypatch):
    """While the calling thread waits by itself: it gets the error of any call in flight."""
    monkeypatch.setattr("casdk._transport.channels.http2_direct.WAIT_SECONDS", 60.0)
    gate = Gate()
    server = make_server()
    client = direct_to(server, timeout=60)
    server.play([Hold(gate)])
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.encode, TEXTS)
        gate.wait_for(1)
        client.close()
        with pytest.raises(ClosedError, match="during the call") as caught:
            running.result(30)
    assert (caught.value.done, caught.value.total, caught.value.attempts) == (0, 3, 1)
    assert caught.value.server == server.address("grpc")
    gate.open()
    server.wait_for(lambda seen: seen.open == 0)


def test_the_engine_goes_on_with_a_call_of_which_nothing_comes(make_server, direct_to):
    """And a client that is closed then ends it, too."""
    gate = Gate()
    server = make_server()
    client = direct_to(server, timeout=60, retry=Retry(attempts=1))
    server.play([Hold(gate)])
    before = server.counters.requests
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.encode, TEXTS)
        gate.wait_for(1)
        run_until(lambda: client._session.calls)
        gate.open()
        assert running.result(30).shape[0] == 3
    assert server.counters.requests == before + 1
    server.wait_for(lambda seen: seen.open == 1)  # the connection that was handed over is closed
    gate = Gate()
    server.play([Hold(gate)])


def run_until(met):
    """Wait until something is true on the engine."""

    async def look(_):
        while not met():  # noqa: ASYNC110 - nothing says when it comes
            await asyncio.sleep(0)

    run(look)


@contextlib.contextmanager
def signalled(gate, number, handler=None):
    """Send a signal to the main thread once a request waits at the gate.

    Args:
        gate: Where the server holds the request.
        number: The signal.
        handler: What handles it meanwhile, in place of the usual handler.
    """
    main = threading.main_thread().ident

    def send():
        gate.wait_for(1)
        signal.pthread_kill(main, number)

    with contextlib.ExitStack() as stack:
        if handler is not None:
            stack.callback(signal.signal, number, signal.signal(number, handler))
        sent = stack.enter_context(ThreadPoolExecutor(1)).submit(send)
        yield
        sent.result()


def test_ctrl_c_takes_a_call_back(make_server, direct_to, monkeypatch, rows):
    monkeypatch.setattr("casdk._transport.channels.http2_direct.WAIT_SECONDS", 60.0)
    gate = Gate()
    server = make_server()
    client = direct_to(server, timeout=60)
    server.play([Hold(gate)])
    with signalled(gate, signal.SIGINT), pytest.raises(KeyboardInterrupt):
        client.encode(TEXTS)
    server.wait_for(lambda seen: seen.running == 0)
    gate.open()
    np.testing.assert_array_equal(client.encode(TEXTS), rows(TEXTS))
    assert latest(client).is_closed


@pytest.mark.parametrize("raised", [TimeoutError, ConnectionResetError, BlockingIOError])
def test_what_a_signals_handler_raises_is_raised(make_server, direct_to, monkeypatch, rows, raised):
    """Also where the connection itself might raise such an error."""
    monkeypatch.setattr("casdk._transport.channels.http2_direct.WAIT_SECONDS", 60.0)

    def act(*_):
        raise raised("by the handler")

    gate = Gate()
    server = make_server()
    client = direct_to(server, timeout=60)
    server.play([Hold(gate)])
    with signalled(gate, signal.SIGUSR1, act), pytest.raises(raised, match="by the handler"):
        client.encode(TEXTS)
    server.wait_for(lambda seen: seen.running == 0)
    gate.open()
    np.testing.assert_array_equal(client.encode(TEXTS), rows(TEXTS))


def test_a_signals_handler_encodes_meanwhile(make_server, direct_to, monkeypatch, rows):
    """The connection is in use, so the handler's call goes by the engine."""
    monkeypatch.setattr("casdk._transport.channels.http2_direct.WAIT_SECONDS", 60.0)
    gate, found = Gate(), []
    server = make_server()
    client = direct_to(server, timeout=60)
    server.play([Hold(gate), None])

    def encode(*_):
        found.append(client.encode(["handler"]))
        gate.open()

    with signalled(gate, signal.SIGUSR1, encode):
        np.testing.assert_array_equal(client.encode(TEXTS), rows(TEXTS))
    np.testing.assert_array_equal(found, [rows(["handler"])])
    assert latest(client).is_usable


@pytest.mark.timeout(900)
@pytest.mark.parametrize("points", [40, pytest.param(2000, marks=pytest.mark.soak)])
def test_ctrl_c_at_random_points(make_server, direct_to, rows, points):
    """The next call is right, nothing is left at the server, and no descriptor here."""
    server = make_server()
    drawn = random.Random(points)
    main = threading.main_thread().ident
    expected = rows(TEXTS)
    client = direct_to(server, timeout=60)
    direct = client._session.way.only.direct
    np.testing.assert_array_equal(client.encode(TEXTS), expected)  # which imports all that this needs

    async def open_again(_):
        """Open another connection at once; the engine's timer does the first half of this, after some seconds."""
        direct._timer.cancel()
        direct._connection.close()
        direct._release()
        await direct._open()

    def interrupt(begun, seconds):
        begun.wait(10)
        threading.Event().wait(seconds)
        signal.pthread_kill(main, signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        for _ in range(points):
            if not direct.free:
                run(open_again)
            begun, seconds = threading.Event(), drawn.random() * 0.0006
            with contextlib.suppress(KeyboardInterrupt):
                sent = pool.submit(interrupt, begun, seconds)
                begun.set()
                while True:
                    np.testing.assert_array_equal(client.encode(TEXTS), expected)
            sent.result()
    np.testing.assert_array_equal(client.encode(TEXTS), expected)
    server.wait_for(lambda seen: seen.running == 0)
    client.close()
    server.wait_for(lambda seen: seen.open == 0)
