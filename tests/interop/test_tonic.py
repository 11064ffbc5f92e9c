"""casdk's own HTTP/2 with tonic, a gRPC server on hyper, which shares no code with casdk or with jina."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from casdk import Client, DeadlineError, Document, Limits, ReplyError, Retry, Timeouts
from deterministic import SLEEPS, rows
from environment import UnavailableError
from tonic_peer import Tonic, tonic_program

MIB = 1024 * 1024
ONCE = Retry(attempts=1)
TEXTS = [f"sentence {number}" for number in range(2000)]


@pytest.fixture(scope="module", autouse=True)
def _program() -> None:
    try:
        tonic_program()
    except UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def tonic() -> Iterator[Tonic]:
    with Tonic() as server:
        yield server


def client_of(server: Tonic, **options: object) -> Client:
    return Client(server.address, **{"retry": ONCE, "transport": "own", **options})  # type: ignore[arg-type]


def expected(texts: list[str]) -> np.ndarray:
    return rows([text.encode() for text in texts])


def test_rows(tonic: Tonic) -> None:
    with client_of(tonic) as client:
        np.testing.assert_array_equal(client.encode(TEXTS, batch_size=32), expected(TEXTS))


def test_stream_of_old_gateways() -> None:
    """A gateway without the unary method is asked over its stream."""
    with Tonic("stream-only") as server, client_of(server) as client:
        np.testing.assert_array_equal(client.encode(TEXTS, batch_size=32), expected(TEXTS))


def test_large_request(tonic: Tonic) -> None:
    texts = [f"{number} {'x' * 11 * MIB}" for number in range(3)]
    limits = Limits(max_message_bytes=64 * MIB, max_inflight_bytes=128 * MIB)
    with client_of(tonic, limits=limits) as client:
        np.testing.assert_array_equal(client.encode(texts, batch_size=3), expected(texts))


def test_large_reply(tonic: Tonic) -> None:
    texts = [f"row {number}" for number in range(10_240)]
    with client_of(tonic) as client:
        np.testing.assert_array_equal(client.encode(texts, batch_size=len(texts)), expected(texts))


def test_reply_beyond_the_limit(tonic: Tonic) -> None:
    with client_of(tonic, limits=Limits(max_reply_bytes=MIB)) as client:
        with pytest.raises(ReplyError, match="max_reply_bytes"):
            client.encode(TEXTS, batch_size=len(TEXTS))
        np.testing.assert_array_equal(client.encode(TEXTS[:3]), expected(TEXTS[:3]))


def test_deadline() -> None:
    """It stands in the request, so that the server gives up by itself."""
    with Tonic() as server, client_of(server, timeouts=Timeouts(read=0.5)) as client:
        with pytest.raises(DeadlineError, match=r"sent no reply within 0\.5 s"):
            client.encode([f"{SLEEPS}60"])
        assert server.counts("cancelled 1")["timeout"] == "500m"
        np.testing.assert_array_equal(client.encode(TEXTS[:3]), expected(TEXTS[:3]))


def test_call_whose_time_is_over_resets_its_stream() -> None:
    with Tonic() as server, client_of(server) as client:
        with pytest.raises(DeadlineError):
            client.encode([f"{SLEEPS}60"], timeout=0.5)
        assert server.counts("cancelled 1")["begun"] == 1
        np.testing.assert_array_equal(client.encode(TEXTS[:3]), expected(TEXTS[:3]))


def test_cancelled_calls_reset_their_streams() -> None:
    async def cancel(client: Client, server: Tonic) -> None:
        calls = [asyncio.create_task(client.aencode([f"{SLEEPS}60 {number}"])) for number in range(5)]
        await asyncio.to_thread(server.counts, "running 5")
        for call in calls:
            call.cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}

    with Tonic() as server, client_of(server) as client:
        asyncio.run(cancel(client, server))
        assert server.counts("cancelled 5")["begun"] == 5
        np.testing.assert_array_equal(client.encode(TEXTS[:3]), expected(TEXTS[:3]))
        assert server.counts()["connections"] == 1


def test_two_streams_at_a_time() -> None:
    with Tonic("max-streams=2") as server, client_of(server) as client:
        np.testing.assert_array_equal(client.encode(TEXTS, batch_size=8, prefetch=32), expected(TEXTS))
        counts = server.counts()
        assert counts["most_running"] <= 2
        assert counts["connections"] == 1


def test_connections_that_grow_old() -> None:
    """The server ends each after 50 ms, with GOAWAY: nothing fails, and no Document is sent twice."""
    texts = [f"{SLEEPS}0.01 {number}" for number in range(300)]
    with Tonic("max-age-ms=50") as server, client_of(server) as client, ThreadPoolExecutor(4) as pool:
        stored = list(pool.map(lambda text: client.index([Document(text=text)]), texts))
        found = np.concatenate([documents.embeddings for documents in stored])
        np.testing.assert_array_equal(found, expected(texts))
        counts = server.counts()
        assert (counts["indexed"], counts["doubled"]) == (len(texts), 0)
        assert counts["connections"] > 5


def test_server_that_stops() -> None:
    """What it has begun with it finishes, and all else its successor does: nothing is lost or doubled."""
    texts = [f"{SLEEPS}0.02 {number}" for number in range(200)]
    with Tonic() as first, client_of(first, retry=Retry(attempts=20)) as client, ThreadPoolExecutor(1) as pool:
        documents = [Document(text=text) for text in texts]
        stored = pool.submit(client.index, documents, batch_size=2)
        first.counts("running 2")
        first.begin_to_stop()
        with Tonic(port=first.port) as second:
            np.testing.assert_array_equal(stored.result().embeddings, expected(texts))
            before, after = first.stop(), second.counts()
        assert before["indexed"] + after["indexed"] == len(texts)
        assert min(before["indexed"], after["indexed"]) > 0
        assert (before["doubled"], after["doubled"]) == (0, 0)
        assert before["cancelled"] == 0
