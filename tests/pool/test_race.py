"""A late request is also sent to a second server, the first answer counts, and the other request is cancelled."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import numpy as np
import pytest
from casdk import ClosedError, DeadlineError, ModelMismatchError, Pool, RejectedError, Retry, Telemetry
from casdk.testing import Delay, ExecutorError, Gate, Hold, Never, Refuse

TEXTS = [f"text {number}" for number in range(100)]
ALWAYS = Pool(hedge=1.0)
"""Each request may be hedged: a test waits for none of those before."""
ONCE = Retry(attempts=1)
LONG = 20


class Late:
    """Scripts of two servers for requests of texts that begin with "late"; others are answered at once.

    Args:
        *faults: What happens to the first of these requests, the second, and so on, at whichever server they are.

    Attributes:
        seen: The numbers of the servers that got one, in order.
    """

    def __init__(self, *faults):
        self.seen, self._faults, self._lock = [], faults, threading.Lock()

    def script(self, server):
        def script(request):
            if not request.texts[0].startswith("late"):
                return None
            with self._lock:
                number = len(self.seen)
                self.seen.append(server)
            return self._faults[number] if number < len(self._faults) else None

        return script


@pytest.fixture
def late_pool(make_servers, pool_of):
    """A function from the faults of late requests, schemes and Client's options to a client that knows how long others
    take, its two servers and the `Late`."""

    def late_pool(*faults, schemes=("grpc", "grpc"), **options):
        late = Late(*faults)
        servers = make_servers(late.script(0), late.script(1))
        client = pool_of(servers, *schemes, **{"pool": ALWAYS, "timeout": LONG, **options})
        client.encode(TEXTS, batch_size=1)
        return client, servers, late

    return late_pool


def until(true):
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def waiting_requests(client):
    records = [member.record for member in client._session.way.members]
    return sum(record.in_flight for record in records) + sum(record.waiting_bytes for record in records)


class InThread:
    """A call in a thread of its own; `result` is its result, or what it raised."""

    def __init__(self, client, *texts):
        self.result = None
        self._thread = threading.Thread(target=self._run, args=(client, texts))
        self._thread.start()

    def _run(self, client, texts):
        try:
            self.result = client.encode(list(texts))
        except Exception as error:
            self.result = error

    def join(self):
        self._thread.join(LONG)
        return self.result


@pytest.mark.parametrize("schemes", [("grpc", "grpc"), ("http", "http"), ("websocket", "grpc")], ids="-".join)
def test_a_late_request_is_answered_by_another_server(late_pool, rows, schemes, call):
    client, _, late = late_pool(Never(), schemes=schemes)
    np.testing.assert_array_equal(call(client, "encode", ["late"]), rows(["late"]))
    assert sorted(late.seen) == [0, 1]
    assert waiting_requests(client) == 0
    assert [server.last_error for server in client.servers] == [None, None]


def test_the_one_that_is_not_needed_is_taken_back(late_pool, rows):
    client, servers, late = late_pool(Never())
    np.testing.assert_array_equal(client.encode(["late"]), rows(["late"]))
    servers[late.seen[0]].wait_for(lambda counters: counters.taken_back and not counters.running)


@pytest.mark.parametrize("failure", [Refuse.unavailable(), ExecutorError()], ids=["refusal", "error"])
def test_an_error_of_the_second_server_does_not_win(late_pool, rows, failure):
    gate = Gate()
    client, _, late = late_pool(Hold(gate), failure, retry=ONCE)
    call = InThread(client, "late")
    until(lambda: any(server.last_error for server in client.servers))
    gate.open()
    np.testing.assert_array_equal(call.join(), rows(["late"]))
    assert client.servers[late.seen[0]].last_error is None
    assert waiting_requests(client) == 0


@pytest.mark.parametrize("failure", [Refuse.unavailable(), ExecutorError()], ids=["refusal", "error"])
def test_an_error_of_the_first_server_waits_for_the_second(late_pool, rows, failure):
    first, second = Gate(), Gate()
    client, _, late = late_pool((Hold(first), failure), Hold(second), retry=ONCE)
    call = InThread(client, "late")
    until(lambda: len(late.seen) == 2)
    first.open()
    until(lambda: client.servers[late.seen[0]].last_error)
    assert call.result is None
    second.open()
    np.testing.assert_array_equal(call.join(), rows(["late"]))
    assert waiting_requests(client) == 0


@pytest.mark.parametrize("comes_first", [0, 1])
def test_if_both_fail_the_error_is_that_of_the_first(late_pool, comes_first):
    gates = Gate(), Gate()
    faults = [(Hold(gate), ExecutorError(description=f"no {number}")) for number, gate in enumerate(gates)]
    client, _, late = late_pool(*faults, retry=ONCE)
    call = InThread(client, "late")
    until(lambda: len(late.seen) == 2)
    gates[comes_first].open()
    until(lambda: client.servers[late.seen[comes_first]].last_error)
    gates[1 - comes_first].open()
    error = call.join()
    assert isinstance(error, RejectedError)
    assert "no 0" in str(error)
    assert error.attempts == 1
    assert waiting_requests(client) == 0


def test_a_server_that_reads_another_codec_is_no_second_one(late_pool, rows):
    client, _, late = late_pool(Delay(0.2), schemes=("grpc", "http"))
    np.testing.assert_array_equal(client.encode(["late"]), rows(["late"]))
    assert len(late.seen) == 1


def test_without_hedging_a_late_request_waits(late_pool, rows):
    client, _, late = late_pool(Delay(0.2), pool=Pool())
    np.testing.assert_array_equal(client.encode(["late"]), rows(["late"]))
    assert len(late.seen) == 1


def test_an_index_is_never_hedged(make_servers, pool_of):
    late = Late(Delay(0.2))
    servers = make_servers(late.script(0), late.script(1))
    client = pool_of(servers, pool=Pool(hedge=1.0, index_on=servers[0].address("grpc")), timeout=LONG)
    client.index(TEXTS, batch_size=1)
    client.index(["late"])
    assert late.seen == [0]


def test_a_deadline_ends_both(late_pool):
    client, servers, late = late_pool(Never(), Never())
    with pytest.raises(DeadlineError):
        client.encode(["late"], timeout=2)
    assert sorted(late.seen) == [0, 1]
    assert waiting_requests(client) == 0
    for server in servers:
        server.wait_for(lambda counters: not counters.running)


async def test_a_cancelled_call_takes_both_back(late_pool):
    client, servers, late = late_pool(Never(), Never())
    call = asyncio.ensure_future(client.aencode(["late"]))
    await asyncio.to_thread(until, lambda: len(late.seen) == 2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    for server in servers:
        await asyncio.to_thread(server.wait_for, lambda counters: not counters.running)
    await asyncio.to_thread(until, lambda: waiting_requests(client) == 0)


def test_closing_the_client_ends_both(late_pool):
    client, _, late = late_pool(Never(), Never())
    call = InThread(client, "late")
    until(lambda: len(late.seen) == 2)
    client.close()
    assert isinstance(call.join(), ClosedError)


def test_a_fork_takes_both_back_and_the_request_is_sent_again(late_pool, rows):
    client, _, late = late_pool(Never(), Never())
    call = InThread(client, "late")
    until(lambda: len(late.seen) == 2)
    pid = os.fork()
    if not pid:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    np.testing.assert_array_equal(call.join(), rows(["late"]))
    assert waiting_requests(client) == 0


def test_a_second_server_with_another_model_is_noticed(late_pool, other_model):
    client, servers, late = late_pool(Never())
    # As the slower one, it is not the first that a request is sent to.
    client._session.way.members[1].record.seconds_per_byte = 1.0
    servers[1].play(other_model)
    servers[1].restart()
    with pytest.raises(ModelMismatchError, match=servers[1].address("grpc")):
        client.encode(["late"])
    assert late.seen == [0]
    assert waiting_requests(client) == 0


def test_each_of_the_two_has_a_span(late_pool):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    client, servers, late = late_pool(Never(), telemetry=Telemetry(tracer_provider=provider))
    exporter.clear()
    client.encode(["late"])
    attempts = [span for span in exporter.get_finished_spans() if "casdk.request.attempt" in span.attributes]
    ports = {span.attributes["server.port"]: span.attributes.get("error.type") for span in attempts}
    first, second = (int(servers[number].address("grpc").rpartition(":")[2]) for number in late.seen)
    assert ports == {first: "CancelledError", second: None}
