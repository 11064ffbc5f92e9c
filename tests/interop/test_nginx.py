"""casdk's own channels through nginx, with casdk's embedded server behind it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from casdk import Client, Document, RejectedError, Retry, TransportError
from casdk.server import Served, serve
from casdk.server.encoders import Features
from environment import UnavailableError
from nginx_proxy import LOCATIONS, Nginx, nginx_program

MIB = 1024 * 1024
ONCE = Retry(attempts=1)
CALLS = 1434
"""Of these, 28 failed through nginx over gRPC's own library."""
ANSWERS = {
    "grpc": "/jina.JinaSingleDataRequestRPC/process_single_data 200",
    "http": "/post 200",
    "websocket": "/ 101",
}
"""What nginx logs of a request that went well; over a websocket that is the handshake, once."""

every_scheme = pytest.mark.parametrize("scheme", LOCATIONS)


@pytest.fixture(scope="module", autouse=True)
def _program() -> None:
    try:
        nginx_program()
    except UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def upstreams() -> Iterator[dict[str, str]]:
    with serve(schemes=tuple(LOCATIONS)) as served:
        yield {scheme: place(served, scheme) for scheme in LOCATIONS}


def place(served: Served, scheme: str) -> str:
    return f"127.0.0.1:{served.address(scheme).rpartition(':')[2]}"


def client_of(nginx: Nginx, scheme: str) -> Client:
    return Client(nginx.address(scheme), retry=ONCE, transport="own")


def expected(texts: list[str]) -> np.ndarray:
    return Features().encode_texts(texts)


@every_scheme
def test_rows(upstreams: dict[str, str], scheme: str) -> None:
    texts = [f"sentence {number}" for number in range(2000)]
    with Nginx(upstreams) as nginx, client_of(nginx, scheme) as client:
        np.testing.assert_allclose(client.encode(texts, batch_size=32), expected(texts), rtol=0, atol=1e-6)


@every_scheme
@pytest.mark.parametrize("callers", [1, 8])
def test_connections_of_few_requests(upstreams: dict[str, str], scheme: str, callers: int) -> None:
    """nginx ends each after twenty requests; no call fails, and none is made twice."""
    texts = [f"{callers} {number}" for number in range(CALLS if (scheme, callers) == ("grpc", 8) else CALLS // 5)]

    def call(number: int) -> np.ndarray:
        text = texts[number]
        return client.index([Document(text=text)]).embeddings if number % 2 else client.encode([text])

    with Nginx(upstreams, "keepalive_requests 20;") as nginx, ThreadPoolExecutor(callers) as pool:
        with client_of(nginx, scheme) as client:
            found = np.concatenate(list(pool.map(call, range(len(texts)))))
        np.testing.assert_allclose(found, expected(texts), rtol=0, atol=1e-6)
        assert nginx.stop() == [ANSWERS[scheme]] * (1 if scheme == "websocket" else len(texts))


@every_scheme
def test_reloads_under_traffic(upstreams: dict[str, str], scheme: str) -> None:
    texts = [f"sentence {number}" for number in range(400)]
    with Nginx(upstreams) as nginx, ThreadPoolExecutor(4) as pool:

        def call(number: int) -> np.ndarray:
            if number % 100 == 50:
                nginx.reload()
            return client.encode([texts[number]])

        with client_of(nginx, scheme) as client:
            found = np.concatenate(list(pool.map(call, range(len(texts)))))
        np.testing.assert_allclose(found, expected(texts), rtol=0, atol=1e-6)
        assert nginx.said("reconfiguring")


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_request_beyond_the_limit(upstreams: dict[str, str], scheme: str) -> None:
    """Of nginx, which is 1 MB unless it is told another one; a batch of smaller items is halved."""
    texts = [f"{number} {'word ' * 60_000}" for number in range(8)]
    with Nginx(upstreams) as nginx, client_of(nginx, scheme) as client:
        with pytest.raises(RejectedError, match=r"item 1: .*HTTP 413.*nginx: client_max_body_size"):
            client.encode(["a", "word " * MIB, "b"])
        np.testing.assert_allclose(client.encode(texts), expected(texts), rtol=0, atol=1e-6)


@every_scheme
def test_server_that_is_away(scheme: str) -> None:
    with socket.socket() as nobody:  # has a port, and does not listen there
        nobody.bind(("127.0.0.1", 0))
        upstream = f"127.0.0.1:{nobody.getsockname()[1]}"
        with (
            Nginx({scheme: upstream}) as nginx,
            client_of(nginx, scheme) as client,
            pytest.raises(TransportError, match="502") as stopped,
        ):
            client.encode(["a"])
    assert type(stopped.value) is TransportError
    assert stopped.value.retryable
