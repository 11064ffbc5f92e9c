"""How fast requests follow each other at each server of a pool: as configured, or as its refusals show."""

from __future__ import annotations

import time

import numpy as np
import pytest
from casdk import Client, Pool, Retry, Server
from casdk.testing import Refuse

TEXTS = [f"text {number}" for number in range(400)]
UNGUARDED = Pool(check_space=False)


def test_a_server_that_refuses_requests_is_sent_fewer(make_servers, pool_of, rows):
    client = pool_of(make_servers([Refuse.overloaded()] * 16, None), pool=UNGUARDED, timeout=20)
    limited, other = (member.record.pace for member in client._session.way.members)
    end = time.monotonic() + 20
    while limited.allowance.rate is None and time.monotonic() < end:
        np.testing.assert_array_equal(client.encode(TEXTS, batch_size=4), rows(TEXTS))
    assert limited.slows
    assert not other.slows


def test_one_server_may_have_a_pace(make_servers, rows):
    [server] = make_servers(None)
    with Client([Server(server.address("grpc"), requests_per_second=200)], timeout=20) as client:
        began = time.monotonic()
        np.testing.assert_array_equal(client.encode(TEXTS[:20], batch_size=1), rows(TEXTS[:20]))
        assert time.monotonic() - began >= 19 / 200


def test_canaries_keep_the_pace_of_their_server(make_servers, rows):
    servers = make_servers(None, None)
    with Client([Server(server.address("grpc"), requests_per_second=100) for server in servers], timeout=20) as client:
        began = time.monotonic()
        np.testing.assert_array_equal(client.encode(TEXTS[:20], batch_size=1), rows(TEXTS[:20]))
        took = time.monotonic() - began
    assert sum(server.counters.requests for server in servers) == 20 + 4
    assert took >= (max(server.counters.requests for server in servers) - 1) / 100


def test_an_index_keeps_the_pace_of_its_server(make_servers):
    servers = make_servers(None, None)
    address = servers[1].address("grpc")
    addresses = [servers[0].address("grpc"), Server(address, requests_per_second=200)]
    with Client(addresses, pool=Pool(index_on=address, check_space=False), timeout=20) as client:
        began = time.monotonic()
        client.index(TEXTS[:20], batch_size=1)
        assert time.monotonic() - began >= 19 / 200


@pytest.mark.parametrize("verb", ["index", "search"])
def test_a_server_of_an_index_that_refuses_requests_is_sent_fewer(make_servers, pool_of, verb):
    servers = make_servers(None, [None, *[Refuse.overloaded()] * 8])
    pool = Pool(index_on=servers[1].address("grpc"), check_space=False)
    client = pool_of(servers, pool=pool, retry=Retry(attempts=9, backoff=0.01), timeout=20)
    client.index(TEXTS[:4])
    getattr(client, verb)(TEXTS[:20], batch_size=1)
    other, limited = (member.record.pace for member in client._session.way.members)
    assert limited.slows
    assert not other.slows
