"""clip_server's own executor: equal weights are one space, however the rows were computed; others are another."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from casdk import TLS, Client, Image, ModelMismatchError, Retry
from casdk._calls.space import IMAGE, LEAST_COSINE, SENTENCE
from environment import REFERENCE
from servers import Flows, Reference

SCHEMES = ("grpc", "http", "websocket")
BATCH_SIZES = (1, 2, 7, 32, 128)


@pytest.fixture(scope="module")
def flows(clip_reference: Reference) -> Iterator[Flows]:
    with Flows(REFERENCE, "real", OMP_NUM_THREADS="1") as flows:
        yield flows


def canaries(client: Client, size: int) -> np.ndarray:
    """Return the rows of the canaries, each of them in a batch of that many items."""
    others = [f"text {number}" for number in range(size - 1)]
    texts = client.encode([*others, SENTENCE], batch_size=size)[-1]
    images = client.encode([*others, Image(IMAGE)], batch_size=size)[-1]
    return np.stack([texts, images])


def test_batches_and_threads_make_no_other_space(flows: Flows) -> None:
    with Client(flows.url("grpc")) as client:
        spaces = {client.space()}
        rows = [canaries(client, size) for size in BATCH_SIZES]
    for scheme in SCHEMES:
        with Client(flows.url(scheme)) as client:
            spaces.add(client.space())
    flows.kill()
    with Flows(REFERENCE, "real", like=flows, OMP_NUM_THREADS="4") as threaded, Client(threaded.url("grpc")) as client:
        rows += [canaries(client, size) for size in BATCH_SIZES]
        for space in spaces:
            with Client(threaded.url("http"), expect_space=space) as expecting:
                assert expecting.encode(["a"]).shape == (1, 512)
    unit = np.stack(rows).astype(np.float64)
    unit /= np.linalg.norm(unit, axis=2, keepdims=True)
    cosines = np.einsum("acd,bcd->abc", unit, unit)
    print(f"least cosine over batches and threads: 1 - {1 - cosines.min():.1e}")
    assert cosines.min() > (1 + LEAST_COSINE) / 2


def test_a_restart_with_other_weights_is_noticed(flows: Flows) -> None:
    with Flows(REFERENCE, "real", like=flows) as before:
        space = Client(before.url("grpc")).space()
        clients = [
            Client(before.url(scheme), expect_space=space, retry=Retry(patience=60), timeout=120) for scheme in SCHEMES
        ]
        for client in clients:
            assert client.encode(["a"]).shape == (1, 512)
        before.kill()
        with Flows(REFERENCE, "other", like=before):
            for client in clients:
                with pytest.raises(ModelMismatchError):
                    client.index(["never stored"])
                with pytest.raises(ModelMismatchError) as refusal:
                    client.encode(["a"] * 100)
                assert refusal.value.done == 0
        for client in clients:
            client.close()


def test_flows_are_one_pool_if_their_models_are_equal() -> None:
    texts = [f"text {number}" for number in range(64)]
    with Flows(REFERENCE, "real") as equal, Flows(REFERENCE, "other") as other:
        with Client(equal.url("grpc")) as single:
            rows = single.encode(texts, batch_size=2)
        # The plain flow and that with TLS: each has executors of its own.
        with Client([equal.url("grpc"), equal.url("https")], tls=TLS(ca=equal.certificate)) as client:
            np.testing.assert_allclose(client.encode(texts, batch_size=2), rows, rtol=0, atol=1e-5)
            assert min(server.share for server in client.servers) > 0
        different = [equal.url("grpc"), other.url("http")]
        with Client(different) as client, pytest.raises(ModelMismatchError) as refusal:
            client.encode(texts, batch_size=2)
        assert sorted(refusal.value.servers) == sorted(different)
