"""Failures of a real server become typed errors that name the item, and no other item is lost."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from casdk import Document, Limits, Retry
from casdk.errors import (
    EmptyItemError,
    ItemError,
    NoEmbeddingError,
    NotSupportedError,
    RejectedError,
    ServerError,
    TransportError,
)
from deterministic import DROPPED, RAISES, SLEEPS, WITHOUT_ROW, rows
from environment import REFERENCE
from fixtures import CLIP_SERVER, MODES, SCHEMES, Served, call
from samples import samples
from servers import Flows

MIB = 1024 * 1024
WITHIN = 240.0
"""Seconds for what takes a few on an idle machine."""

every_scheme = pytest.mark.parametrize("scheme", SCHEMES)
both_modes = pytest.mark.parametrize("mode", MODES)


def sentences(count: int, salt: str = "") -> list[str]:
    return [f"sentence {salt}{i}" for i in range(count)]


def expected(texts: list[str]) -> np.ndarray:
    return rows([text.encode() for text in texts])


# whose reply it is


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_http_replies_name_their_requests(
    deterministic_server: Served, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By the documents' ids, as the gateway makes up the request's: so a connection is kept, whatever is asked."""
    caplog.set_level(logging.INFO, "casdk.connections")
    with deterministic_server.client(scheme) as client:
        for turn in range(5):
            texts = sentences(3, f"{turn} ")
            np.testing.assert_array_equal(client.encode(texts, batch_size=3), expected(texts))
            client.encode(texts[:1])
            with pytest.raises(RejectedError):
                client.encode([f"{RAISES} on purpose"])
            client.encode([Document(text=text) for text in texts])
            client.rank([Document(text="a", matches=[Document(text="b"), Document(text="c")])])
            client.index([Document(text=text) for text in texts])
            client.search(texts, limit=2)
    assert sum("is open" in record.getMessage() for record in caplog.records) == 1


# one bad item among good ones

BAD: dict[str, tuple[str, type[ItemError]]] = {
    "the executor raises": (f"{RAISES} on purpose", RejectedError),
    "the document comes back without an embedding": (WITHOUT_ROW, NoEmbeddingError),
    "the document does not come back": (DROPPED, NoEmbeddingError),
    "the text is empty": ("", EmptyItemError),
}


@pytest.mark.parametrize("what", BAD)
@both_modes
@every_scheme
def test_bad_item(deterministic_server: Served, scheme: str, mode: str, what: str) -> None:
    text, kind = BAD[what]
    texts = sentences(20)
    bad = [3, 13, 14]
    for at in bad:
        texts[at] = text
    with deterministic_server.client(scheme) as client:
        with pytest.raises(kind) as stopped:
            call(client, mode, "encode", texts, batch_size=6)
        assert stopped.value.index in bad
        assert stopped.value.item == text

        result = call(client, mode, "encode", texts, batch_size=6, errors="return")
        assert [(e.index, type(e)) for e in result.errors] == [(at, kind) for at in bad]
        good = [i for i in range(len(texts)) if i not in bad]
        assert np.isnan(result.embeddings[bad]).all()
        np.testing.assert_array_equal(result.embeddings[good], expected([texts[i] for i in good]))


@both_modes
@every_scheme
def test_error_tells_what_the_executor_said(deterministic_server: Served, scheme: str, mode: str) -> None:
    with deterministic_server.client(scheme) as client, pytest.raises(RejectedError) as stopped:
        call(client, mode, "encode", ["good", f"{RAISES} with words", "good too"])
    cause = stopped.value.cause
    assert isinstance(cause, ServerError)
    assert cause.name == "ValueError"
    assert cause.arguments == (f"boom: {RAISES} with words",)
    assert any("executors.py" in line for line in cause.stacks)
    assert cause.executor == "Deterministic"
    assert "boom" in str(stopped.value)


@every_scheme
def test_index_is_not_repeated_to_find_the_item(deterministic_server: Served, scheme: str) -> None:
    with deterministic_server.client(scheme) as client, pytest.raises(ServerError, match="boom") as stopped:
        client.index(["good", f"{RAISES} on purpose"])
    assert stopped.value.executor == "Deterministic"


@pytest.mark.parametrize("verb", ["index", "search"])
@pytest.mark.parametrize("what", [what for what in BAD if what != "the document comes back without an embedding"])
@every_scheme
def test_bad_item_of_an_index(deterministic_server: Served, scheme: str, what: str, verb: str) -> None:
    text, kind = BAD[what]
    texts = sentences(8, f"{scheme} {verb}")
    texts[5] = text
    options = {"idempotent_index": True} if verb == "index" else {}  # sent again, to find the item
    with deterministic_server.client(scheme) as client:
        with pytest.raises(kind) as stopped:
            call(client, "sync", verb, texts, batch_size=3, **options)
        assert (stopped.value.index, stopped.value.item) == (5, text)


@both_modes
@every_scheme
def test_bad_candidate(deterministic_server: Served, scheme: str, mode: str) -> None:
    candidates = [["a", "b"], ["c", f"{RAISES} in a ranking"], ["d", "e"]]
    queries = [Document(text="query", matches=[Document(text=text) for text in texts]) for texts in candidates]
    with deterministic_server.client(scheme) as client, pytest.raises(RejectedError) as stopped:
        call(client, mode, "rank", queries)
    assert stopped.value.index == 1
    assert stopped.value.item is queries[1]
    assert "in a ranking" in str(stopped.value)


@both_modes
@every_scheme
def test_image_that_clip_server_cannot_read(
    running: Callable[[str], Served], scheme: str, mode: str, tmp_path: Path
) -> None:
    served = running(CLIP_SERVER)
    items = samples("blob", f"broken {scheme} {mode}", 7, tmp_path)
    blobs = [sample.content for sample in items]
    blobs[4] = blobs[4][: len(blobs[4]) // 2]
    with served.client(scheme) as client:
        result = call(client, mode, "encode", blobs, batch_size=4, errors="return")
    assert [(error.index, type(error)) for error in result.errors] == [(4, RejectedError)]
    assert result.errors[0].item == blobs[4]
    good = [0, 1, 2, 3, 5, 6]
    known = served.rows([items[place] for place in good])
    np.testing.assert_allclose(result.embeddings[good], known, rtol=0, atol=1e-6)


# endpoints nobody serves


@both_modes
@every_scheme
def test_unknown_model_falls_through_to_encode(deterministic_server: Served, scheme: str, mode: str) -> None:
    parameters = {"model_name": "nobody-serves-this"}
    texts = sentences(3)
    with deterministic_server.client(scheme) as client:
        np.testing.assert_array_equal(call(client, mode, "encode", texts, parameters=parameters), expected(texts))
        query = Document(text="query", matches=[Document(text="a"), Document(text="b")])
        with pytest.raises(NotSupportedError):
            call(client, mode, "rank", [query], parameters=parameters)
    assert parameters == {"model_name": "nobody-serves-this"}


@pytest.mark.parametrize("verb", ["index", "search"])
@both_modes
@every_scheme
def test_flow_without_an_index(encoder_server: Served, scheme: str, mode: str, verb: str) -> None:
    with encoder_server.client(scheme) as client:
        np.testing.assert_array_equal(call(client, mode, "encode", ["a"]), expected(["a"]))
        with pytest.raises(NotSupportedError):
            call(client, mode, verb, sentences(3))


# order


@both_modes
@every_scheme
def test_replies_out_of_order(deterministic_server: Served, scheme: str, mode: str) -> None:
    texts = [f"{SLEEPS}{wait}" for wait in (1.0, 0.0, 0.2, 0.01, 0.1, 0.02)]
    with deterministic_server.client(scheme) as client:
        responses = call(client, mode, "encode", texts, batch_size=1, return_responses=True)
        np.testing.assert_array_equal(call(client, mode, "encode", texts, batch_size=1), expected(texts))
    ended = [response.routes[-1].end_ns for response in responses]
    assert [response.docs[0].text for response in responses] == texts
    assert ended[0] == max(ended), "the server answered in order: nothing was shown"


# sizes


@pytest.mark.parametrize("total", [20, 100])
@every_scheme
def test_large_messages_both_ways(deterministic_server: Served, scheme: str, total: int, tmp_path: Path) -> None:
    (small,) = samples("blob", "large", 1, tmp_path)
    noise = random.Random(total).randbytes(total * MIB // 4)
    blobs = [small.content + bytes([i]) + noise for i in range(4)]
    limits = Limits(max_item_bytes=128 * MIB, max_message_bytes=256 * MIB, max_inflight_bytes=512 * MIB)
    parameters = {"drop_image_content": False}  # so that the reply is as large
    with deterministic_server.client(scheme, limits=limits) as client:
        np.testing.assert_array_equal(client.encode(blobs, parameters=parameters), rows(blobs))
        if total == 20:
            (response,) = client.encode(blobs, parameters=parameters, return_responses=True)
            assert [document.blob for document in response.docs] == blobs


@both_modes
@every_scheme
def test_many_rows_in_one_reply(deterministic_server: Served, scheme: str, mode: str) -> None:
    texts = sentences(3000)
    with deterministic_server.client(scheme) as client:
        np.testing.assert_array_equal(call(client, mode, "encode", texts, batch_size=3000), expected(texts))


# processes that die


@pytest.fixture
def mortal_flows() -> Iterator[Flows]:
    """Flows of a test's own, to be killed by it."""
    flows = Flows(REFERENCE)
    try:
        yield flows
    finally:
        flows.close()  # a flow that lost an executor would not stop by itself


class Load:
    """A thread per scheme that encodes without end, until an error stops it."""

    def __init__(self, served: Served) -> None:
        self._pool = ThreadPoolExecutor(len(SCHEMES))
        self._under_way = {scheme: threading.Event() for scheme in SCHEMES}
        self.outcomes: dict[str, Future[None]] = {
            scheme: self._pool.submit(self._encode, served, scheme) for scheme in SCHEMES
        }

    def wait(self) -> None:
        """Return when every scheme has answered at least once."""
        for scheme, event in self._under_way.items():
            assert event.wait(WITHIN), f"{scheme}: {self.outcomes[scheme]}"

    def _encode(self, served: Served, scheme: str) -> None:
        texts = sentences(64)
        want = expected(texts)
        with served.client(scheme, retry=Retry(attempts=2)) as client:
            while True:
                np.testing.assert_array_equal(client.encode(texts, batch_size=8), want)
                self._under_way[scheme].set()


def test_executor_killed_under_load(mortal_flows: Flows) -> None:
    served = Served(mortal_flows, "fake", _no_reference)
    load = Load(served)
    load.wait()
    for name in ("plain_clip", "tls_clip"):
        os.kill(mortal_flows.processes[name], signal.SIGKILL)
    failures = {scheme: outcome.exception(WITHIN) for scheme, outcome in load.outcomes.items()}
    wrong = {s: f for s, f in failures.items() if type(f) is not TransportError}
    assert not wrong
    assert all("clip" in str(f) or "connect" in str(f).lower() for f in failures.values()), failures
    for scheme in SCHEMES:  # over grpc an empty reply of success comes first
        for mode in MODES:
            once = served.client(scheme, retry=Retry(attempts=1))
            with once as client, pytest.raises(TransportError) as stopped:
                call(client, mode, "encode", sentences(3))
            assert type(stopped.value) is TransportError


def test_gateway_killed_and_restarted(mortal_flows: Flows) -> None:
    """A patient client's calls go on over the restart; an impatient one's fail, and then work again."""
    served = Served(mortal_flows, "fake", _no_reference)
    texts = sentences(400)
    want = expected(texts)
    patient = Retry(attempts=1000, backoff=0.2, max_backoff=1.0, budget=1.0)
    under_way = threading.Barrier(len(SCHEMES) + 1, timeout=WITHIN)
    restarted = threading.Event()
    pool = ThreadPoolExecutor(len(SCHEMES))

    def encode(scheme: str) -> None:
        with served.client(scheme, retry=patient) as client:
            client.encode(texts[:8])
            under_way.wait()
            last = False
            while not last:
                last = restarted.is_set()
                np.testing.assert_array_equal(client.encode(texts, batch_size=10, prefetch=4), want)

    calls = [pool.submit(encode, scheme) for scheme in SCHEMES]
    impatient = [served.client(scheme, retry=Retry(attempts=1)) for scheme in SCHEMES]
    for client in impatient:
        client.encode(texts[:8])
    under_way.wait()
    mortal_flows.kill()
    for client in impatient:
        with pytest.raises(TransportError):
            client.encode(texts[:8])
    assert not any(outcome.done() for outcome in calls)
    with Flows(REFERENCE, like=mortal_flows) as again:
        assert again.ports == mortal_flows.ports
        restarted.set()
        for outcome in calls:
            outcome.result(WITHIN)
        for client in impatient:
            np.testing.assert_array_equal(client.encode(texts[:8]), want[:8])
            client.close()


def _no_reference() -> None:
    raise AssertionError("the deterministic executor needs no reference")
