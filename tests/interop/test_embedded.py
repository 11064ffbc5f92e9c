"""The embedded server with the original client, and beside clip_server's own executor."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fixtures
import numpy as np
import pytest
from casdk import Client
from casdk.server import Served, serve
from casdk.server.encoders import Features
from deterministic import cosines, softmax
from environment import REFERENCE
from PIL import Image
from samples import Sample, samples
from servers import Reference, RefusedError

CLIENT = "clip_client 0.8.3"
SCHEMES = {"grpc": "grpc", "grpcs": "grpcs", "websocket": "websocket", "websockets": "wss"}
"""Those it can speak, as it spells them; of http see `test_original_client_over_http`."""
COUNT = 10
EXACT = 1e-6


@pytest.fixture(scope="module")
def embedded() -> Iterator[Served]:
    with serve() as served:
        yield served


@pytest.fixture(scope="module")
def clip_client(embedded: Served) -> Iterator[Reference]:
    """The original client, which trusts the embedded server."""
    trusted = str(embedded.ca)
    reference = Reference(REFERENCE, GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=trusted, SSL_CERT_FILE=trusted)
    yield reference
    reference.close()


@pytest.fixture(scope="module")
def original(embedded: Served, clip_client: Reference) -> Callable[..., Any]:
    """Calls a verb of the original client: ``original(scheme, verb, content, **options)``."""

    def call(scheme: str, verb: str, content: Sequence[Any], **options: Any) -> Any:
        port = embedded.address(scheme).rpartition(":")[2]
        url = f"{SCHEMES[scheme]}://localhost:{port}"
        return clip_client.ask("original", url=url, verb=verb, content=content, **options)

    return call


def rows(items: Sequence[Sample]) -> np.ndarray[Any, Any]:
    """Return what the server's encoder computes, asked directly."""
    encoder, found = Features(), []
    for sample in items:
        if "text" in sample.known:
            found.append(encoder.encode_texts([sample.known["text"]])[0])
        else:
            with Image.open(io.BytesIO(sample.known["blob"])) as image:
                found.append(encoder.encode_images([image])[0])
    return np.stack(found)


def encode(call: Callable[..., Any], items: list[Sample]) -> None:
    strings = [s.item for s in items if isinstance(s.item, str)]
    found = call("encode", strings)
    np.testing.assert_allclose(found, rows([s for s in items if isinstance(s.item, str)]), rtol=0, atol=EXACT)
    documents = call("encode", [s.fields for s in items], batch_size=3)
    np.testing.assert_allclose([d["embedding"] for d in documents], rows(items), rtol=0, atol=EXACT)


def rank(call: Callable[..., Any], items: list[Sample]) -> None:
    query, candidates = items[0], items[1:]
    named = [{**c.fields, "id": str(i)} for i, c in enumerate(candidates)]
    (document,) = call("rank", [{**query.fields, "matches": named}])
    cosine = cosines(rows([query]), rows(candidates))[0]
    known = dict(enumerate(zip(softmax(cosine), cosine, strict=True)))
    matches = document["matches"]
    assert sorted(m["id"] for m in matches) == sorted(n["id"] for n in named)
    probabilities = [m["scores"]["clip_score"]["value"] for m in matches]
    assert probabilities == sorted(probabilities, reverse=True)
    for match in matches:
        shown = [match["scores"][name]["value"] for name in ("clip_score", "clip_score_cosine")]
        np.testing.assert_allclose(shown, known[int(match["id"])], rtol=0, atol=1e-5)


def index(call: Callable[..., Any], items: list[Sample]) -> None:
    documents = call("index", [s.fields for s in items], batch_size=3)
    np.testing.assert_allclose([d["embedding"] for d in documents], rows(items), rtol=0, atol=EXACT)


def search(call: Callable[..., Any], items: list[Sample]) -> None:
    ids = [f"{place:032x}" for place in range(len(items))]
    call("index", [{**s.fields, "id": i} for s, i in zip(items, ids, strict=True)])
    found = call("search", [s.fields for s in items], limit=3)
    matrix = rows(items)
    for place, query in enumerate(found):
        distances = [m["scores"]["cosine"]["value"] for m in query["matches"]]
        assert query["matches"][0]["id"] == ids[place]
        assert len(distances) == 3
        assert distances == sorted(distances)
        for match, distance in zip(query["matches"], distances, strict=True):
            if match["id"] in ids:
                other = matrix[ids.index(match["id"])]
                assert distance == pytest.approx(1 - cosines(matrix[place], other[None])[0], abs=1e-5)


def profile(call: Callable[..., Any], items: list[Sample]) -> None:
    # Large, because the original divides by the server's whole milliseconds.
    image = Path(next(s.fields["uri"] for s in items if "uri" in s.fields)).with_name("large.png")
    Image.effect_noise((1500, 1500), 50).save(image)
    for content in (" ".join(items[0].item for _ in range(2000)), str(image)):
        figures = call("profile", [content])
        assert set(figures) == {
            "Roundtrip", "Client-server network", "Server", "Gateway-CLIP network", "CLIP model",
        }  # fmt: skip
        assert figures["Roundtrip"] > 0


VERBS = {"encode": encode, "rank": rank, "index": index, "search": search, "profile": profile}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("server", ["casdk.server"])
def test_original_client(original: Callable[..., Any], server: str, scheme: str, verb: str, tmp_path: Path) -> None:
    def call(verb: str, content: Sequence[Any], **options: Any) -> Any:
        return original(scheme, verb, content, **options)

    VERBS[verb](call, samples("mixed", f"{server} {scheme} {verb}", COUNT, tmp_path))


@pytest.mark.parametrize("gateway", ["ours", "jina's"])
def test_original_client_over_http(
    embedded: Served, deterministic_server: fixtures.Served, clip_client: Reference, gateway: str
) -> None:
    """It fails on its own side: jina's gateway fares as the embedded server does."""
    url = embedded.address("http") if gateway == "ours" else deterministic_server.flows.url("http")
    for verb in ("encode", "index", "search"):
        with pytest.raises(RefusedError, match=r"functools.*__name__"):
            clip_client.ask("original", url=url, verb=verb, content=["a sentence"])


@pytest.mark.parametrize("kind", ["text", "blob", "tensor"])
def test_onnx_encoder_is_clip_servers(clip_reference: Reference, kind: str, tmp_path: Path) -> None:
    """The same models under the same texts and images: its tokens and its preprocessing are CLIP's."""
    models = clip_reference.ask("models", directory=str(tmp_path / "onnx"))
    items = samples(kind, "onnx", COUNT, tmp_path)
    with serve(encoder=f"onnx:{models}", schemes=["grpc"]) as served, Client(served.address("grpc")) as client:
        found = client.encode([s.item for s in items])
    known = clip_reference.ask("clip", verb="encode", content=[s.known for s in items])
    np.testing.assert_allclose(found, known, rtol=0, atol=1e-5)
