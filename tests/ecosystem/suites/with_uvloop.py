"""uvloop: where its policy is asyncio's, as in many a service under uvicorn, the engine's loop is one of its."""

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import uvloop
from casdk import TLS, Client, Retry
from casdk._engine.process import engine
from casdk.testing import SCHEMES, Cut, FaultServer, Refuse, embed

TEXTS = [f"text {number}" for number in range(100)]
PATIENCE = 20


@pytest.fixture(scope="module", autouse=True)
def policy():
    """Before any client, so before the engine; the servers' loops are asyncio's."""
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    yield
    asyncio.set_event_loop_policy(None)


@pytest.fixture(params=SCHEMES)
def scheme(request):
    return request.param


@pytest.fixture
def server():
    asyncio.set_event_loop_policy(None)
    with FaultServer() as server:
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        yield server


@pytest.fixture
def client(server, scheme):
    tls = TLS(ca=server.ca) if server.address(scheme).partition(":")[0].endswith("s") else None
    retry = Retry(backoff=0.001)
    with Client(server.address(scheme), tls=tls, retry=retry, timeout=PATIENCE) as client:
        yield client


def rows(texts):
    return np.stack([embed(text) for text in texts])


def test_threads_tasks_and_the_loop(client):
    async def many():
        return await asyncio.gather(*(client.aencode([text]) for text in TEXTS))

    np.testing.assert_array_equal(client.encode(TEXTS, batch_size=8), rows(TEXTS))
    with ThreadPoolExecutor(4) as threads:
        np.testing.assert_array_equal(
            np.concatenate(list(threads.map(lambda text: client.encode([text]), TEXTS))), rows(TEXTS)
        )
    np.testing.assert_array_equal(np.concatenate(uvloop.run(many())), rows(TEXTS))
    assert isinstance(engine().loop, uvloop.Loop)


def test_large_messages(client):
    texts = [f"{number} " + "long " * 40_000 for number in range(8)]
    np.testing.assert_array_equal(client.encode(texts), rows(texts))


@pytest.mark.parametrize("fault", [Cut("middle", "reset"), Refuse.unavailable()], ids=["reset", "unavailable"])
def test_what_fails_is_sent_again(server, client, fault):
    client.encode(TEXTS)
    server.play([fault])
    np.testing.assert_array_equal(client.encode(TEXTS, batch_size=8), rows(TEXTS))


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_fork(client):
    client.encode(TEXTS)
    pid = os.fork()
    if not pid:
        signal.alarm(PATIENCE)
        status = 1
        try:
            status = int((client.encode(TEXTS, batch_size=8) != rows(TEXTS)).any())
        finally:
            os._exit(status)
    np.testing.assert_array_equal(client.encode(TEXTS, batch_size=8), rows(TEXTS))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
