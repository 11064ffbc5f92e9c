"""Servers of different models behind one address: each connection is checked before it is used."""

from __future__ import annotations

import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from casdk import TLS, Client, ModelMismatchError, Retry
from casdk._calls.space import SENTENCE
from casdk.testing import Fault, Gate, Hold, TcpProxy
from other_model import OtherModel

WIDTH = 32
SCHEMES = ("grpc", "http", "websocket")
"""A scheme of each channel."""
IMPATIENT = Retry(attempts=1)


def is_canary(request):
    return request.texts in ((SENTENCE,), ("",))


def texts_of(server):
    """What came to a server beside canaries."""
    return [text for request in server.requests if not is_canary(request) for text in request.texts]


@dataclass(frozen=True, slots=True)
class Noted(Fault):
    """Each request is noted, by its connection."""

    seen: dict[int, list[bool]]

    def change(self, reply, exchange):
        self.seen[exchange.connection.number].append(is_canary(exchange.request))


@pytest.fixture
def space(make_server, connect_to):
    """The space of a server that does as it should."""
    return connect_to(make_server(), "grpc").space()


@pytest.fixture
def balanced(make_server):
    """A function from a scheme to a proxy, the server that it passes on to, and one that holds another model."""
    proxies = []

    def balanced(scheme, script=None):
        right, other = make_server(script), make_server(OtherModel(WIDTH))
        proxies.append(TcpProxy(right.port(scheme)).start())
        return proxies[-1], right, other

    yield balanced
    for proxy in proxies:
        proxy.stop()


def test_canaries_go_over_the_connection_that_is_used(make_server, connect_to, scheme, space, own):
    """Each connection begins with both of them; a library does not say which one a request takes."""
    gate, seen = Gate(), defaultdict(list)
    server = make_server(lambda request: Noted(seen) if is_canary(request) else (Noted(seen), Hold(gate)))
    client = connect_to(server, scheme, expect_space=space)
    with ThreadPoolExecutor() as threads:
        calls = [threads.submit(client.encode, [text]) for text in "abcd"]
        gate.wait_for(4)
        gate.open()
        assert all(call.result().shape == (1, WIDTH) for call in calls)
    assert sum(len(requests) - sum(requests) for requests in seen.values()) == 4
    if own:
        assert all(requests[:2] == [True, True] and sum(requests) == 2 for requests in seen.values())


@pytest.mark.parametrize("verb", ["encode", "index"])
def test_the_next_connection_ends_at_another_model(balanced, connect_to, rows, space, scheme, call, verb, own):
    """Nobody waits until the client could have noticed that its connection has ended."""
    proxy, right, other = balanced(scheme)
    client = connect_to(proxy, scheme, expect_space=space, retry=IMPATIENT)
    np.testing.assert_array_equal(call(client, "encode", ["a"]), rows(["a"]))
    proxy.route(other.port(scheme))
    proxy.cut("close")
    with pytest.raises(ModelMismatchError) as refusal:
        call(client, verb, ["b"])
    assert refusal.value.servers == (proxy.address(scheme),)
    assert (refusal.value.done, refusal.value.unconfirmed) == (0, [] if verb == "index" else None)
    assert texts_of(right) == ["a"]
    assert other.executor.indexed == 0
    if own or verb == "index":  # a library opens a connection within a request, whose row nobody gets
        assert texts_of(other) == []


def test_a_pool_whose_balancer_mixes_two_models(balanced, make_server, scheme, rows, own):
    proxy, right, other = balanced(scheme)
    addresses = [make_server().address(scheme), proxy.address(scheme)]
    tls = TLS(ca=right.ca) if scheme.endswith("s") else None
    with Client(addresses, tls=tls, retry=IMPATIENT) as client:
        texts = [f"text {number}" for number in range(8)]
        np.testing.assert_array_equal(client.encode(texts, batch_size=1), rows(texts))
        proxy.route(other.port(scheme))
        proxy.cut("close")
        with pytest.raises(ModelMismatchError) as refusal:
            client.encode(texts, batch_size=1)
    assert proxy.address(scheme) in refusal.value.servers
    assert texts_of(right)
    if own:
        assert texts_of(other) == []


def test_connections_at_once_that_end_at_two_models(balanced, connect_to, space, own):
    """Over http there are several at the same time."""
    gate = Gate()
    proxy, right, other = balanced("http", lambda request: None if is_canary(request) else Hold(gate))
    client = connect_to(proxy, "http", expect_space=space)
    found = []
    thread = threading.Thread(target=lambda: found.append(client.encode(["a"])))
    thread.start()
    gate.wait_for(1)
    proxy.route(other.port("http"))
    with pytest.raises(ModelMismatchError):
        client.encode(["b"])
    gate.open()
    thread.join()
    assert len(found) == 1
    assert texts_of(right) == ["a"]
    if own:
        assert texts_of(other) == []
