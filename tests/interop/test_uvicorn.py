"""casdk's own HTTP/1.1 and websockets with uvicorn, and with each library that uvicorn can use for them."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from casdk import Client, Limits, RejectedError, ReplyError, Retry
from deterministic import SLEEPS, rows
from uvicorn_peer import Uvicorn

MIB = 1024 * 1024
ONCE = Retry(attempts=1)
TEXTS = [f"sentence {number}" for number in range(2000)]

every_http = pytest.mark.parametrize("http", ["h11", "httptools"])
every_websocket = pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])


def client_of(server: Uvicorn, scheme: str, **options: object) -> Client:
    return Client(server.address(scheme), **{"retry": ONCE, "transport": "own", **options})  # type: ignore[arg-type]


def expected(texts: list[str]) -> np.ndarray:
    return rows([text.encode() for text in texts])


@every_http
def test_http_in_chunks(http: str) -> None:
    with Uvicorn(http=http) as server, client_of(server, "http") as client:
        np.testing.assert_array_equal(client.encode(TEXTS, batch_size=32), expected(TEXTS))
        assert len(set(server.app.connections)) < len(server.app.connections)


@every_http
def test_http_of_large_messages(http: str) -> None:
    texts = [f"{number} {'x' * 11 * MIB}" for number in range(3)]
    limits = Limits(max_message_bytes=64 * MIB, max_inflight_bytes=128 * MIB)
    with Uvicorn(http=http) as server, client_of(server, "http", limits=limits) as client:
        np.testing.assert_array_equal(client.encode(texts, batch_size=3), expected(texts))
        np.testing.assert_array_equal(client.encode(TEXTS, batch_size=2000), expected(TEXTS))


@every_http
def test_http_reply_beyond_the_limit(http: str) -> None:
    with Uvicorn(http=http) as server, client_of(server, "http", limits=Limits(max_reply_bytes=MIB)) as client:
        with pytest.raises(ReplyError, match="max_reply_bytes"):
            client.encode(TEXTS, batch_size=2000)
        np.testing.assert_array_equal(client.encode(TEXTS[:3]), expected(TEXTS[:3]))


@every_http
def test_http_connections_of_one_reply(http: str) -> None:
    with Uvicorn(http=http) as server, client_of(server, "http") as client:
        server.app.closes = True
        np.testing.assert_array_equal(client.encode(TEXTS[:640], batch_size=32), expected(TEXTS[:640]))
        assert len(set(server.app.connections)) == len(server.app.connections) == 20


@every_http
def test_http_connection_that_is_closed_meanwhile(http: str) -> None:
    """It is kept for 20 ms, and the pauses last about as long: often it is closed under the request."""
    pauses = random.Random(http)
    with Uvicorn(http=http, timeout_keep_alive=0.02) as server, client_of(server, "http") as client:
        for text in TEXTS[:120]:
            np.testing.assert_array_equal(client.encode([text]), expected([text]))
            time.sleep(pauses.uniform(0.016, 0.024))  # the client is in no hurry; nothing is waited for
        assert len(set(server.app.connections)) > 1


@every_http
@every_websocket
def test_websocket(http: str, ws: str) -> None:
    with Uvicorn(http=http, ws=ws) as server, client_of(server, "websocket") as client:
        np.testing.assert_array_equal(client.encode(TEXTS, batch_size=32), expected(TEXTS))
        assert len(server.app.connections) == 1


@every_websocket
def test_websocket_of_large_messages(ws: str) -> None:
    texts = [f"{number} {'x' * 11 * MIB}" for number in range(3)]
    many = [f"row {number}" for number in range(10_240)]
    limits = Limits(max_message_bytes=64 * MIB, max_inflight_bytes=128 * MIB)
    with (
        Uvicorn(ws=ws, ws_max_size=64 * MIB) as server,
        client_of(server, "websocket", limits=limits) as client,
    ):
        np.testing.assert_array_equal(client.encode(texts, batch_size=3), expected(texts))
        np.testing.assert_array_equal(client.encode(many, batch_size=len(many)), expected(many))


@every_websocket
def test_websocket_request_beyond_the_servers_limit(ws: str) -> None:
    with Uvicorn(ws=ws, ws_max_size=MIB) as server, client_of(server, "websocket") as client:
        with pytest.raises(RejectedError, match=r"1009 .*uvicorn: ws_max_size"):
            client.encode(["x" * 2 * MIB])
        np.testing.assert_array_equal(client.encode(TEXTS[:3]), expected(TEXTS[:3]))


@every_websocket
def test_websocket_reply_beyond_the_limit(ws: str) -> None:
    with Uvicorn(ws=ws) as server, client_of(server, "websocket", limits=Limits(max_reply_bytes=MIB)) as client:
        with pytest.raises(ReplyError, match="max_reply_bytes"):
            client.encode(TEXTS, batch_size=2000)
        np.testing.assert_array_equal(client.encode(TEXTS[:3]), expected(TEXTS[:3]))


@every_websocket
def test_websocket_answers_pings(ws: str) -> None:
    """The server asks ten times while a request takes its time, and would close the connection without an answer."""
    text = f"{SLEEPS}1"
    with (
        Uvicorn(ws=ws, ws_ping_interval=0.1, ws_ping_timeout=0.5) as server,
        client_of(server, "websocket") as client,
    ):
        np.testing.assert_array_equal(client.encode([text]), expected([text]))
        assert len(server.app.connections) == 1


@pytest.mark.parametrize("scheme", ["http", "websocket"])
def test_many_callers(scheme: str) -> None:
    with Uvicorn() as server, client_of(server, scheme) as client, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: client.encode([text]), TEXTS[:400]))
        np.testing.assert_array_equal(np.concatenate(found), expected(TEXTS[:400]))
