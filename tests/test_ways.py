"""How a request finds its server, where there is one."""

from __future__ import annotations

import numpy as np
from casdk import Client
from casdk.testing import FaultServer, Refuse, embed


def test_every_request_goes_to_the_one_server():
    with FaultServer(script=[Refuse.unavailable()], width=8) as server, Client(server.address("grpc")) as client:
        way = client._session.way
        assert (way.codecs, way.codec, way.address) == (("proto",), "proto", server.address("grpc"))
        rows = client.encode(["a", "b"], batch_size=1)
        np.testing.assert_array_equal(rows, [embed("a", 8), embed("b", 8)])
        assert server.counters.requests == 3
