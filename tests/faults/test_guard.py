"""No row of a server with another vector space reaches the caller, and nothing reaches its index."""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
from casdk import TLS, ClosedError, DeadlineError, Limits, ModelMismatchError, Retry, ServerError, Timeouts
from casdk._calls.batches import Batch
from casdk._calls.guard import Guard
from casdk._calls.space import SENTENCE, Space
from casdk._engine.waiting import run
from casdk._rust import Kind, new_id
from casdk._transport.address import parse_address
from casdk._transport.channels.options import ExchangeOptions
from casdk._transport.codecs import Packer
from casdk._transport.transport import Transport
from casdk.testing import ExecutorError, Fault, Gate, Hold, NoEmbedding, Refuse
from other_model import OtherModel

SCHEMES = ("grpc", "http", "websocket")
"""A scheme of each channel."""
ITEMS = ["a", "b", "c"]
WIDTH = 32


@pytest.fixture(params=SCHEMES)
def scheme(request):
    return request.param


@dataclass(frozen=True, slots=True)
class OneModality(Fault):
    """The executor fails on texts, or on images."""

    texts: bool

    def change(self, reply, exchange):
        if any(bool(text) is not self.texts for text in exchange.request.texts):
            ExecutorError(name="ValueError", description="no encoder for it").change(reply, exchange)


def is_canary(request):
    return request.texts in ((SENTENCE,), ("",))


def texts_of(server):
    """What came to a server beside canaries."""
    return [text for request in server.requests if not is_canary(request) for text in request.texts]


def canaries_of(server):
    return sum(map(is_canary, server.requests))


@pytest.fixture
def space(make_server, connect_to):
    """The space of a server that does as it should."""
    return connect_to(make_server(), "grpc").space()


def test_what_a_server_shows(make_server, connect_to, scheme, call, space):
    server = make_server()
    client = connect_to(server, scheme)
    assert call(client, "space") == call(client, "space", "big") == space
    assert [request.endpoint for request in server.requests] == ["/encode", "/encode", "/encode/big", "/encode/big"]
    assert Space.read(space, "space").canaries.keys() == {"text", "image"}


VERBS = [
    ("encode", {}),
    ("encode", {"on_error": print}),
    ("encode", {"on_done": print}),
    ("index", {}),
    ("search", {}),
]


@pytest.mark.parametrize(("verb", "options"), VERBS)
def test_another_model_gives_no_row_and_gets_no_item(make_server, connect_to, scheme, call, space, verb, options):
    server = make_server(OtherModel(WIDTH))
    client = connect_to(server, scheme, expect_space=space)
    with pytest.raises(ModelMismatchError, match="is not of the space that expect_space names") as refusal:
        call(client, verb, ITEMS, batch_size=1, **options)
    error = refusal.value
    assert error.servers == (error.server,) == (server.address(scheme),)
    assert space in str(error)
    assert connect_to(server, scheme).space() in str(error)
    assert (error.done, error.unconfirmed) == (0, [] if verb == "index" else None)
    assert texts_of(server) == []


def test_another_model_gives_no_piece(make_server, connect_to, space):
    server = make_server(OtherModel(WIDTH))
    client = connect_to(server, "grpc", expect_space=space)
    with pytest.raises(ModelMismatchError):
        next(client.stream(ITEMS))
    with pytest.raises(ModelMismatchError):
        client.space()
    assert client.profile("a", quiet=True).roundtrip > 0  # there is no vector in it


def test_a_pickled_client_expects_the_same(make_server, connect_to, space):
    client = connect_to(make_server(OtherModel(WIDTH)), "grpc", expect_space=space)
    with pickle.loads(pickle.dumps(client)) as copied, pytest.raises(ModelMismatchError):
        copied.encode(ITEMS)


def test_another_width_is_another_space(make_server, connect_to, scheme, space):
    client = connect_to(make_server(width=WIDTH // 2), scheme, expect_space=space)
    with pytest.raises(ModelMismatchError, match="its rows have 16 numbers, not 32"):
        client.encode(ITEMS)


@pytest.mark.parametrize("coalesce", [False, True])
def test_the_right_model_is_asked_once(make_server, connect_to, scheme, call, rows, space, coalesce):
    server = make_server(token="secret")
    client = connect_to(server, scheme, credential="secret", expect_space=space, coalesce=coalesce)
    for _ in range(2):
        np.testing.assert_array_equal(call(client, "encode", ITEMS), rows(ITEMS))
    assert canaries_of(server) == 2
    call(client, "encode", ITEMS, parameters={"model_name": "big"})
    call(client, "rank", [], parameters={"model_name": "big"})
    assert canaries_of(server) == 4
    assert [request.endpoint for request in server.requests if is_canary(request)][2:] == ["/encode/big"] * 2


def test_nobody_is_asked_without_a_wish(make_server, connect_to, scheme):
    server = make_server()
    connect_to(server, scheme).encode(ITEMS)
    assert canaries_of(server) == 0


@pytest.mark.parametrize("texts", [True, False])
def test_a_server_of_one_modality_is_of_the_space(make_server, connect_to, scheme, space, texts):
    server = make_server(OneModality(texts))
    client = connect_to(server, scheme)
    found = client.space()
    assert Space.read(found, "space").canaries.keys() == {"text" if texts else "image"}
    guarded = connect_to(server, scheme, expect_space=space)
    assert guarded.space() == found
    connect_to(make_server(), scheme, expect_space=found).encode(ITEMS)


@pytest.mark.parametrize("fault", [ExecutorError(name="ValueError"), NoEmbedding()])
def test_a_server_of_no_modality_cannot_be_checked(make_server, connect_to, scheme, space, fault):
    server = make_server(fault)
    client = connect_to(server, scheme, expect_space=space)
    with pytest.raises(ServerError, match="which model it holds cannot be found out"):
        client.encode(ITEMS)
    assert texts_of(server) == []


def test_calls_at_once_ask_once_and_keep_their_own_time(make_server, connect_to, scheme, rows, space):
    gate = Gate()
    server = make_server(lambda request: Hold(gate) if is_canary(request) else None)
    client = connect_to(server, scheme, expect_space=space)
    found = []
    threads = [threading.Thread(target=lambda: found.append(client.encode(ITEMS))) for _ in range(3)]
    for thread in threads:
        thread.start()
    gate.wait_for(1)
    with pytest.raises(DeadlineError):
        client.encode(ITEMS, timeout=0.05)
    gate.open()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(found, [rows(ITEMS)] * 3)
    if scheme != "http":  # which opens more connections for calls at once
        assert [is_canary(request) for request in server.requests][:3] == [True, True, False]
        assert canaries_of(server) == 2


def test_a_canary_that_nobody_waits_for_is_taken_back(make_server, connect_to, rows, space):
    gate = Gate()
    server = make_server(lambda request: Hold(gate) if is_canary(request) else None)
    client = connect_to(server, "grpc", expect_space=space)
    for seconds in (0.05, 1.0, 10.0):  # on a busy machine, the time may be over before a canary is with the server
        with pytest.raises(DeadlineError):
            client.encode(ITEMS, timeout=seconds)
        if gate.arrived:
            break
    server.wait_for(lambda seen: seen.taken_back == gate.arrived)
    gate.open()
    np.testing.assert_array_equal(client.encode(ITEMS), rows(ITEMS))
    assert canaries_of(server) == 2 + server.counters.taken_back


def test_a_canary_has_the_time_of_a_request(make_server, connect_to, scheme, space):
    server = make_server(Hold(Gate()))
    client = connect_to(server, scheme, expect_space=space, timeouts=Timeouts(read=0.05))
    with pytest.raises(DeadlineError):
        client.encode(ITEMS)


def test_closing_ends_the_wait_for_a_canary(make_server, connect_to, scheme, space):
    gate, raised = Gate(), []
    client = connect_to(make_server(Hold(gate)), scheme, expect_space=space)

    def encode():
        with pytest.raises(ClosedError) as closed:
            client.encode(ITEMS)
        raised.append(closed.value)

    thread = threading.Thread(target=encode)
    thread.start()
    gate.wait_for(1)
    client.close()
    thread.join()
    assert len(raised) == 1


def test_an_outage_is_no_mismatch(make_server, connect_to, scheme, rows, space):
    server = make_server([Refuse.unavailable(), Refuse.unavailable(), None, Refuse.unavailable()])
    client = connect_to(server, scheme, expect_space=space, retry=Retry(backoff=0))
    np.testing.assert_array_equal(client.encode(ITEMS), rows(ITEMS))
    assert texts_of(server) == ITEMS


def test_an_index_is_sent_after_an_outage_of_its_canary(make_server, connect_to, scheme, space):
    """Nothing of it was sent, so that it may be sent later."""
    server = make_server([Refuse.unavailable()])
    client = connect_to(server, scheme, expect_space=space, retry=Retry(backoff=0))
    assert len(client.index(ITEMS)) == 3
    assert server.executor.indexed == 3


@pytest.mark.parametrize("verb", ["encode", "index"])
def test_a_restart_with_another_model_is_noticed(make_server, connect_to, scheme, space, verb):
    server = make_server()
    client = connect_to(server, scheme, expect_space=space)
    client.encode(ITEMS)
    server.play(OtherModel(WIDTH))
    server.restart()
    while client._session.way.transports[0].is_connected:  # an index cannot be kept from a connection that looks open
        time.sleep(0.001)
    with pytest.raises(ModelMismatchError) as refusal:
        getattr(client, verb)(["after the restart"])
    assert refusal.value.done == 0
    assert server.executor.indexed == 0
    server.play(None)
    server.restart()
    assert len(client.encode(ITEMS)) == 3


def test_a_restart_in_the_middle_of_a_call_is_noticed(make_server, connect_to, scheme, space):
    gate = Gate()
    server = make_server(lambda request: None if is_canary(request) else Hold(gate))
    client, raised = connect_to(server, scheme, expect_space=space, retry=Retry(backoff=0)), []

    def encode():
        with pytest.raises(ModelMismatchError) as refusal:
            client.encode(ITEMS, batch_size=1)
        raised.append(refusal.value)

    thread = threading.Thread(target=encode)
    thread.start()
    gate.wait_for(3)
    server.play(OtherModel(WIDTH))
    server.restart()
    thread.join()
    [error] = raised
    assert error.done == 0
    assert error.partial is None


def test_a_forked_child_asks_again(make_server, connect_to, scheme, space):
    server = make_server()
    client = connect_to(server, scheme, expect_space=space)
    client.encode(ITEMS)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            client.encode(ITEMS)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert canaries_of(server) == 4
    client.encode(ITEMS)
    assert canaries_of(server) == 6  # a fork ends the parent's connections, too


def test_canaries_wait_for_their_turn(make_server, connect_to, space, monkeypatch):
    client = connect_to(make_server(), "grpc", expect_space=space, limits=Limits(requests_per_second=1000))
    waited = []
    original = client._session.wait_for_turn

    async def wait_for_turn(items):
        waited.append(items)
        await original(items)

    monkeypatch.setattr(client._session, "wait_for_turn", wait_for_turn)
    client._session.guard = client._session._make_guard()
    client.encode(ITEMS)
    assert sorted(waited) == [1, 1, 3, 3]  # the request has its turn, and once more after the canaries


def asked(guard, places, model_name=""):
    """Send two requests to each of these servers, one after the other, that a guard checks."""
    batch = Batch([0], ["a"], bytes([Kind.TEXT]))

    async def job(caller):
        transports = []
        try:
            for server, scheme in places:
                transports.append(
                    Transport(parse_address(server.address(scheme)), None, TLS(), Timeouts(), Limits(), None, None)
                )
                transports[-1].engine = caller.engine
                packer = Packer(transports[-1].codec, "/encode", {})
                for request_id in (new_id(), new_id()):
                    message = packer.pack(request_id, batch.items, batch.kinds).message
                    options = ExchangeOptions(check=guard.check_for(batch, transports[-1], model_name))
                    await transports[-1].exchange(request_id, message, options)
        finally:
            await asyncio.gather(*(transport.aclose() for transport in transports))

    run(job)


def test_servers_are_compared_with_the_first(make_server):
    server, same, other = make_server(), make_server(), make_server(OtherModel(WIDTH))
    guard = Guard(None, alike=True)
    asked(guard, [(server, "grpc"), (same, "http"), (same, "websocket")])
    assert canaries_of(server) == 2
    with pytest.raises(ModelMismatchError, match="their rows must not be mixed") as refusal:
        asked(guard, [(other, "http")])
    assert refusal.value.servers == (server.address("grpc"), other.address("http"))
    assert all(address in str(refusal.value) for address in refusal.value.servers)
    asked(guard, [(other, "http")], "a model of its own")
    narrow = make_server(width=WIDTH // 2)
    with pytest.raises(ModelMismatchError, match="its rows have 16 numbers, not 32"):
        asked(guard, [(narrow, "http")])


def test_a_server_that_has_changed_is_told_from_itself(make_server):
    server, guard = make_server(), Guard(None, alike=True)
    asked(guard, [(server, "grpc")])
    server.play(OtherModel(WIDTH))
    with pytest.raises(ModelMismatchError, match="before, ") as refusal:
        asked(guard, [(server, "grpc")])
    assert refusal.value.servers == (server.address("grpc"),) * 2


def test_what_one_server_cannot_encode_is_compared_between_the_others(make_server):
    texts, both = make_server(OneModality(True)), make_server()
    other = make_server(lambda request: (OtherModel(WIDTH), OneModality(False)))
    guard = Guard(None, alike=True)
    asked(guard, [(texts, "grpc"), (both, "grpc")])
    with pytest.raises(ModelMismatchError, match="the same image") as refusal:
        asked(guard, [(other, "grpc")])
    assert refusal.value.servers == (both.address("grpc"), other.address("grpc"))
