"""How a request finds its server, if there is only one."""

from __future__ import annotations

import numpy as np
from casdk import Client, Limits, Retry
from casdk.testing import FaultServer, Refuse, embed


def test_every_request_goes_to_the_one_server():
    with FaultServer(script=[Refuse.unavailable()], width=8) as server, Client(server.address("grpc")) as client:
        way = client._session.way
        assert (way.codecs, way.codec, way.address) == (("proto",), "proto", server.address("grpc"))
        rows = client.encode(["a", "b"], batch_size=1)
        np.testing.assert_array_equal(rows, [embed("a", 8), embed("b", 8)])
        assert server.counters.requests == 3


def test_requests_are_noted_only_while_the_server_refuses_some():
    texts = [f"text {number}" for number in range(40)]
    rows = [embed(text, 8) for text in texts]
    with FaultServer(width=8) as server, Client(server.address("grpc"), limits=Limits(prefetch=1)) as client:
        way = client._session.way
        client.encode(texts, batch_size=1)
        assert way.direct is way.only
        server.play([Refuse.overloaded()])
        np.testing.assert_array_equal(client.encode(texts[:1]), rows[:1])
        assert way.direct is None
        np.testing.assert_array_equal(client.encode(texts, batch_size=1), rows)
        assert way.direct is way.only


def test_a_server_that_refuses_many_is_sent_fewer(caplog):
    caplog.set_level("INFO", "casdk.connections")
    retry = Retry(attempts=9, backoff=0.01, max_backoff=0.01)
    with (
        FaultServer([Refuse.overloaded()] * 4, width=8) as server,
        Client(server.address("http"), retry=retry) as client,
    ):
        np.testing.assert_array_equal(client.encode(["a"]), [embed("a", 8)])
        assert client._session.pace.slows
        [line] = [record.getMessage() for record in caplog.records if "refuses requests" in record.getMessage()]
        assert line.startswith(f"{server.address('http')} refuses requests: it is sent ")
