"""A call with a timeout ends in time and says how far it came, whatever the server fails to do."""

import asyncio
import contextlib
import itertools
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc.aio
import numpy as np
import pytest
from casdk import TLS, Client, DeadlineError, Limits, Retry, Timeouts, TransportError
from casdk.server import serve
from casdk.testing import (
    SCHEMES,
    BlackHole,
    Deaf,
    Delay,
    Never,
    Refuse,
    Silent,
    Stall,
    StallHandshake,
    Trickle,
    embed,
)
from casdk.wire.jina_pb2 import DataRequestProto

TIMEOUT = 0.3
OVERRUN = 0.1
TRIES = 10
"""A busy machine may pause us; what hangs, hangs every time."""

SERVERS = {
    "accepts and never speaks": {"connections": Silent()},
    "stalls in the handshake": {"connections": StallHandshake()},
    "never answers": {"script": Never()},
    "stalls at the reply's first byte": {"script": Stall(0.0)},
    "stalls in mid-reply": {"script": Stall(0.5)},
    "sends slowly": {"script": Trickle(1, 0.01)},
    "stops reading": {"connections": Deaf(1)},
    "is always busy": {"script": Refuse.unavailable()},
    "asks for patience": {"script": Refuse.overloaded(retry_after=30)},
}


def in_time(act, stopwatch, figure, timeout=TIMEOUT):
    """Assert that the call ends at its deadline; return the error."""
    for left in reversed(range(TRIES)):
        with stopwatch() as watch, pytest.raises(DeadlineError) as caught:
            act()
        assert watch.seconds >= timeout - 0.02
        if watch.seconds <= timeout + OVERRUN or not left:
            break
    assert watch.seconds <= timeout + OVERRUN
    figure("deadline: worst overrun, ms", round((watch.seconds - timeout) * 1000, 1))
    return caught.value


CASES = [
    pytest.param(
        fault,
        scheme,
        id=f"{fault.replace(' ', '-')}-{scheme}",
        marks=[pytest.mark.tls] if "connections" in SERVERS[fault] else [],
    )
    for fault in SERVERS
    for scheme in SCHEMES
]


@pytest.mark.parametrize(("fault", "scheme"), CASES)
def test_a_server_that(make_server, connect_to, scheme, call, fault, stopwatch, figure):
    server = make_server(**SERVERS[fault])
    client = connect_to(server, scheme, timeout=TIMEOUT, retry=Retry(attempts=1000, backoff=0.01, budget=1))
    error = in_time(lambda: call(client, "encode", ["a", "b"], batch_size=1), stopwatch, figure)
    assert (error.done, error.total) == (0, 2)
    assert "0 of 2" in str(error)
    assert isinstance(error, TimeoutError)


@pytest.mark.tls
def test_a_host_that_drops_syns(connect_to, scheme, call, stopwatch, figure):
    with BlackHole() as hole:
        client = connect_to(hole, scheme, timeout=TIMEOUT)
        in_time(lambda: call(client, "encode", ["a"]), stopwatch, figure)


@pytest.mark.parametrize("verb", ["rank", "index", "search", "profile", "stream"])
def test_every_verb(make_server, connect_to, scheme, call, verb, stopwatch, figure):
    from casdk import Document

    server = make_server(Never())
    client = connect_to(server, scheme)
    content: Any = {"rank": [Document(text="a", matches=[Document(text="b")])], "profile": "a"}.get(verb, ["a"])

    def act():
        found = call(client, verb, content, timeout=TIMEOUT)
        return list(found) if verb == "stream" else found

    in_time(act, stopwatch, figure)


def test_a_generator_that_blocks(make_server, connect_to, scheme, stopwatch, figure):
    """The caller's own code cannot be stopped, but the call does not wait for it."""
    server, block = make_server(), threading.Event()

    def texts():
        yield from "ab"
        block.wait(20)
        yield "c"

    client = connect_to(server, scheme)
    try:
        error = in_time(
            lambda: client.encode(texts(), batch_size=1, timeout=TIMEOUT, reader="thread"), stopwatch, figure
        )
    finally:
        block.set()
    assert error.total is None


def test_an_async_generator_that_waits(make_server, connect_to, scheme, stopwatch, figure):
    server = make_server()
    client = connect_to(server, scheme)

    async def texts():
        yield "a"
        await asyncio.Event().wait()

    error = in_time(lambda: asyncio.run(client.aencode(texts(), batch_size=1, timeout=TIMEOUT)), stopwatch, figure)
    assert error.total is None


def test_how_far_it_got(make_server, connect_to, scheme, call, stopwatch, figure):
    server = make_server()
    client = connect_to(server, scheme, limits=Limits(prefetch=1))
    call(client, "encode", ["a"])  # on a busy machine, connecting may take all of the time

    def act():
        server.play([None, None, None, *[Never()] * 100])
        call(client, "encode", list("abcdefgh"), batch_size=2, timeout=TIMEOUT)

    for left in reversed(range(TRIES)):
        error = in_time(act, stopwatch, figure)
        assert error.total == 8
        if error.done == 6 or not left:
            break
    assert error.done == 6


def test_each_reply_may_be_quick_and_the_call_too_long(make_server, connect_to, scheme, call, stopwatch, figure):
    server = make_server(Delay(0.05))
    client = connect_to(server, scheme, limits=Limits(prefetch=1))
    call(client, "encode", ["a"])  # as above
    texts = map(str, itertools.count())
    for left in reversed(range(TRIES)):
        error = in_time(lambda: call(client, "encode", texts, batch_size=1, timeout=TIMEOUT), stopwatch, figure)
        if error.done or not left:
            break
    assert 1 <= error.done <= 6
    assert error.total is None


@pytest.mark.tls
def test_connecting_has_a_limit_of_its_own(connect_to, scheme, call):
    with BlackHole() as hole:
        client = connect_to(hole, scheme, timeouts=Timeouts(connect=0.2), retry=Retry(attempts=1))
        with pytest.raises(TransportError, match=r"within 0\.2 s"):
            call(client, "encode", ["a"])


@pytest.mark.tls
@pytest.mark.parametrize("fault", [Silent(), StallHandshake()], ids=["silent", "stalled"])
def test_silence_is_no_protocol(make_server, connect_to, scheme, fault):
    """A server that accepts and sends nothing has shown no protocol; over http it has the request, and time to read."""
    server = make_server(connections=fault)
    retry = Retry(attempts=3, backoff=0.01)
    client = connect_to(server, scheme, timeouts=Timeouts(connect=0.2, read=0.4), retry=retry)
    ends = DeadlineError if scheme == "http" else TransportError
    with pytest.raises(ends, match=r"within 0\.[24] s") as caught:
        client.encode(["a"])
    assert type(caught.value) is ends
    assert server.counters.accepted >= (1 if scheme == "http" else 2)


@pytest.mark.tls
@pytest.mark.parametrize("fault", [Silent(), StallHandshake()], ids=["silent", "stalled"])
@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme != "http"])
def test_silence_passes(make_server, connect_to, scheme, rows, fault):
    server = make_server(connections=[fault, fault])
    # A late machine only tries once more.
    retry = Retry(attempts=20, backoff=0.01)
    client = connect_to(server, scheme, timeouts=Timeouts(connect=0.3, total=60), retry=retry)
    np.testing.assert_array_equal(client.encode(["a"]), rows(["a"]))


def test_a_server_that_pauses(expected):
    """A process that is stopped for longer than a connection may take: the system goes on accepting in its place."""
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(serve(index=False))
        limits = Timeouts(connect=1, total=60)
        trust = {scheme: TLS(ca=served.ca) if scheme.endswith("s") else None for scheme in SCHEMES}
        clients = [
            stack.enter_context(Client(served.address(scheme), tls=tls, timeouts=limits))
            for scheme, tls in trust.items()
        ]
        pool = stack.enter_context(ThreadPoolExecutor(len(SCHEMES)))
        os.kill(served.pid, signal.SIGSTOP)
        stack.callback(os.kill, served.pid, signal.SIGCONT)
        calls = [pool.submit(client.encode, ["a", "b"]) for client in clients]
        time.sleep(2.5)  # the pause
        os.kill(served.pid, signal.SIGCONT)
        for call in calls:
            np.testing.assert_array_equal(call.result(), expected(["a", "b"]))


def test_silence_has_a_limit_of_its_own(make_server, connect_to, scheme, call):
    client = connect_to(make_server(Never()), scheme, timeouts=Timeouts(read=0.2))
    with pytest.raises(DeadlineError, match=r"within 0\.2 s"):
        call(client, "encode", ["a"])


async def test_each_request_has_a_silence_of_its_own(make_server, connect_to, scheme):
    """Requests share a connection, and whatever watches it; each is given up when its own time is over."""
    client = connect_to(make_server(Never()), scheme, timeouts=Timeouts(read=0.2), retry=Retry(attempts=1))
    loop = asyncio.get_running_loop()

    async def wait_in_vain(later: float) -> float:
        await asyncio.sleep(later)
        began = loop.time()
        with pytest.raises(DeadlineError, match=r"within 0\.2 s"):
            await client.aencode(["a"])
        return loop.time() - began

    waits = await asyncio.gather(*[wait_in_vain(later) for later in (0, 0.1, 0.3)])
    assert min(waits) >= 0.19


def test_a_call_after_a_deadline_works(make_server, connect_to, scheme, call, rows):
    # By content: the first request may not even have been sent when its time ran out.
    server = make_server(lambda request: Never() if request.texts[0] == "a" else None)
    client = connect_to(server, scheme)
    with pytest.raises(DeadlineError):
        call(client, "encode", ["a"], timeout=0.1)
    assert (call(client, "encode", ["b"], timeout=20) == rows(["b"])).all()


def test_no_default_waits_without_limit():
    limits = Timeouts()
    assert limits.connect == 5
    assert limits.read < float("inf")
    assert limits.download < float("inf")


@pytest.mark.parametrize("verb", ["encode", "index", "stream", "profile"])
def test_a_call_told_none_has_all_the_time_it_takes(make_server, connect_to, scheme, call, verb):
    client = connect_to(make_server(Delay(0.05)), scheme, timeout=0.02)
    content: Any = "a" if verb == "profile" else ["a"]

    def act(**options):
        found = call(client, verb, content, **options)
        return list(found) if verb == "stream" else found

    with pytest.raises(DeadlineError):
        act()
    assert act(timeout=None) is not None


class Timed(grpc.GenericRpcHandler):
    """A server of grpc.aio that notes how much time each request has, and refuses those of the text "no" once."""

    def __init__(self):
        self.remaining = []

    def service(self, details):
        if "process_single_data" not in details.method:
            return None
        return grpc.unary_unary_rpc_method_handler(self.reply)

    async def reply(self, message, context):
        self.remaining.append(context.time_remaining())
        reply = DataRequestProto.FromString(message)
        [document] = reply.data.docs.docs
        if document.text == "no" and len(self.remaining) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        dense = document.embedding.dense
        dense.buffer, dense.dtype = embed(document.text, 8).tobytes(), "<f4"
        dense.shape.append(8)
        return reply.SerializeToString()


@contextlib.asynccontextmanager
async def timed():
    """A server, `Timed`; its address."""
    service, server = Timed(), grpc.aio.server()
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"grpc://127.0.0.1:{port}", service.remaining
    finally:
        await server.stop(None)


@pytest.mark.parametrize("transport", ["own", "libraries"])
async def test_a_server_of_grpc_is_told_what_remains(transport):
    """The smaller one of a request's own limit and the rest of its call's time: less with each attempt."""
    more = 0.002 if transport == "own" else 0.3  # grpcio rounds long ones up
    timeouts, retry = Timeouts(read=30), Retry(attempts=2, backoff=0.2, jitter=0)
    async with (
        timed() as (address, remaining),
        Client(address, timeouts=timeouts, retry=retry, transport=transport) as client,
    ):
        for timeout, least, most in [(None, 25, 30), (20, 15, 20), (100, 25, 30)]:
            await client.aencode(["a"], timeout=timeout)
            assert least < remaining.pop() <= most + more
        if transport == "own":
            await client.aencode(["no"], timeout=20)
            first, second = remaining
            assert second <= first - 0.2 + more


@pytest.mark.parametrize("code", [1, 4])
def test_a_server_of_grpc_may_end_a_call_before_our_own_clock(make_server, connect_to, code):
    """Both mean that the call's time is over, and the call says how far it came."""
    server = make_server(lambda request: Refuse(code) if request.texts[0] == "b" else None)
    # The library gives the server more time than there is, and so our own clock is first.
    client = connect_to(server, "grpc", limits=Limits(prefetch=1), retry=Retry(attempts=1), transport="own")
    client.encode(["a"])
    with pytest.raises(DeadlineError, match="time ran out") as caught:
        client.encode(["a", "b", "a"], batch_size=1, timeout=0.04)
    assert caught.value.total == 3
