"""HTTP as httpx reads it: paths, connections that stay open, and a body in any number of pieces."""

import httpx
import pytest
from casdk.testing import FaultServer

FORM = {"data": [{"text": "a"}]}


@pytest.fixture
def opened():
    """A running server, and a client of httpx's of it."""
    with FaultServer(width=8) as server, httpx.Client(base_url=server.address("http"), timeout=20) as client:
        yield server, client


def test_one_connection_takes_request_after_request(opened):
    server, client = opened
    for _ in range(3):
        assert client.post("/post", json=FORM).json()["data"][0]["text"] == "a"
    assert (server.counters.accepted, server.counters.requests) == (1, 3)


def test_a_body_may_come_in_pieces(opened):
    _, client = opened
    body = b'{"data": [{"text": "a"}], "execEndpoint": "/encode"}'
    answer = client.post("/post", content=iter([body[:7], body[7:30], body[30:]]))
    assert answer.json()["data"][0]["text"] == "a"


def test_a_dry_run_says_whether_the_flow_is_ready(opened):
    server, client = opened
    assert client.get("/dry_run").json() == {"code": 0, "description": ""}
    server.unready = None
    assert client.get("/dry_run").status_code == 404


def test_what_is_no_request_is_refused_and_stops_nobody(opened):
    server, client = opened
    assert client.get("/nowhere").status_code == 404
    assert client.post("/post", json=FORM).status_code == 200
    assert server.counters.requests == 1
