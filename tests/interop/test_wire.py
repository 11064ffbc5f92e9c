"""jina 3.33.1 and docarray 0.21.1 read the bytes that casdk writes, and casdk reads theirs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from casdk import Document, DocumentArray
from casdk._rust import Kind, Packer, classify, new_id, scan
from casdk.documents import NamedScore
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from samples import samples
from servers import Reference

Ask = Callable[[], Reference]
PARAMETERS = {
    "drop_image_content": True,
    "limit": 3,
    "nested": {"list": [1.5, "a", None, False], "empty": {}},
    "ü": "图",
}
ROUTES = [
    ["gateway", 1_700_000_000_123_456_000, 1_700_000_001_000_000_000],
    ["clip", 1_700_000_000_200_000_000, 0],
]

thorough = settings(
    max_examples=80,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

NESTING = ("granularity", "adjacency", "parent_id")
"""What docarray sets on nested Documents when they are put there."""

# documents of every shape

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
plain = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
arrays = st.tuples(
    st.sampled_from(["<f4", "<f8", "<f2", "|u1", "<i8"]), st.lists(st.integers(1, 4), min_size=1, max_size=3)
).map(lambda drawn: np.arange(math.prod(drawn[1]), dtype=drawn[0]).reshape(drawn[1]))
scores = st.dictionaries(texts, st.fixed_dictionaries({"value": numbers, "op_name": texts}), min_size=1, max_size=2)
contents = st.one_of(
    st.fixed_dictionaries({"text": texts}),
    st.fixed_dictionaries({"blob": st.binary(min_size=1, max_size=60)}),
    st.fixed_dictionaries({"text": texts, "uri": st.just("a.png"), "mime_type": st.just("image/png")}),
    st.fixed_dictionaries({"tensor": arrays}),
)
extras = st.fixed_dictionaries(
    {"id": st.uuids().map(lambda drawn: drawn.hex)},
    optional={
        "tags": st.dictionaries(texts, plain, min_size=1, max_size=3),
        "embedding": arrays,
        "scores": scores,
        "mime_type": st.just("image/png"),
        "modality": texts,
        "weight": numbers.filter(bool),
        "location": st.lists(numbers, min_size=1, max_size=3),
    },
)
leaves = st.builds(lambda a, b: {**a, **b}, contents, extras)
documents = st.builds(
    lambda root, matches, chunks: {**root, "matches": matches, "chunks": chunks},
    leaves,
    st.lists(leaves, max_size=2),
    st.lists(leaves, max_size=2),
).map(lambda d: {k: v for k, v in d.items() if not (k in ("matches", "chunks") and v == [])})


def ours(fields: dict[str, Any]) -> Document:
    """Build casdk's Document of docarray's field names."""
    made = dict(fields)
    for name in ("matches", "chunks"):
        if name in made:
            made[name] = DocumentArray(map(ours, made[name]))
    if "scores" in made:
        made["scores"] = {k: NamedScore(**v) for k, v in made["scores"].items()}
    return Document(**made)


def aligned(tree: dict[str, Any], *unlike: str) -> dict[str, Any]:
    """Return the protobuf tree without the request's id, what docarray derives from nesting, and fields named."""
    proto = dict(tree["proto"])
    proto["header"] = {k: v for k, v in proto["header"].items() if k != "request_id"}
    return {**proto, "data": _without(proto["data"], {*NESTING, *unlike})}


def _without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {k: _without(v, names) for k, v in value.items() if k not in names}
    return [_without(v, names) for v in value] if isinstance(value, list) else value


# requests


@given(content=st.lists(documents, min_size=1, max_size=3), parameters=st.dictionaries(texts, plain, max_size=3))
@thorough
def test_documents_are_sent_as_jina_sends_them(
    reference: Ask, content: list[dict[str, Any]], parameters: dict[str, Any]
) -> None:
    packer = Packer("proto", "/index", parameters, whole=True, check_images=False)
    packed = packer.pack(new_id(), list(map(ours, content)), bytes([Kind.DOCUMENT]) * len(content))
    assert packed.failures == []
    theirs = reference().ask("request", verb="index", content=content, parameters=parameters)
    assert aligned(reference().ask("tree", message=packed.message)) == aligned(reference().ask("tree", message=theirs))


@pytest.mark.parametrize("kind", ["text", "path", "data-uri", "mixed"])
def test_strings_are_sent_as_the_original_sends_them(reference: Ask, kind: str, tmp_path: Path) -> None:
    items = [s.item for s in samples(kind, "wire", 5, tmp_path) if isinstance(s.item, str)]
    packed = Packer("proto", "/encode", PARAMETERS).pack(new_id(), items, classify(items))
    theirs = reference().ask("request", verb="encode", content=items, parameters=PARAMETERS)
    sent, known = (reference().ask("tree", message=m) for m in (packed.message, theirs))
    # The original sends the path, or the whole data URI once more, beside the bytes read from it.
    assert aligned(sent, "id") == aligned(known, "id", "mime_type", "uri")


@given(query=leaves, matches=st.lists(leaves, min_size=1, max_size=3))
@thorough
def test_rankings_are_asked_for_as_the_original_asks(
    reference: Ask, query: dict[str, Any], matches: list[dict[str, Any]]
) -> None:
    asked = {**_content(query), "id": query["id"], "matches": [_content(m) for m in matches]}
    packer = Packer("proto", "/rank", PARAMETERS, candidates="matches", check_images=False)
    packed = packer.pack(new_id(), [ours(asked)], bytes([Kind.DOCUMENT]))
    theirs = reference().ask("request", verb="rank", content=[asked], parameters=PARAMETERS)
    sent, known = (reference().ask("tree", message=m) for m in (packed.message, theirs))
    assert aligned(sent, "id") == aligned(known, "id")
    (document,) = sent["proto"]["data"]["docs"]["docs"]
    assert [m["id"] for m in document["matches"]] == [str(i) for i in range(len(matches))]


def _content(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in fields.items() if k in ("text", "blob", "tensor")}


@given(content=st.lists(leaves, min_size=1, max_size=3))
@thorough
def test_the_http_gateway_reads_what_the_original_sends(reference: Ask, content: list[dict[str, Any]]) -> None:
    items = list(map(ours, content))
    packer = Packer("json", "/index", PARAMETERS, whole=True, check_images=False)
    packed = packer.pack(new_id(), items, bytes([Kind.DOCUMENT]) * len(items))
    read = reference().ask("http_request", body=bytes(packed.message).decode())
    theirs = reference().ask("request", verb="index", content=content, parameters=PARAMETERS)
    got, known = (reference().ask("tree", message=m) for m in (read, theirs))
    assert got["proto"]["header"]["exec_endpoint"] == "/index"
    assert got["proto"]["parameters"] == known["proto"]["parameters"]
    for sent, meant in zip(got["documents"], known["documents"], strict=True):
        for name in ("tensor", "embedding"):  # JSON has numbers, not dtypes
            if name in meant:
                np.testing.assert_array_equal(sent.pop(name), meant.pop(name))
        assert sent == meant


# replies


@given(content=st.lists(documents, min_size=1, max_size=3))
@thorough
def test_replies_scan_to_the_values_that_jina_serialised(reference: Ask, content: list[dict[str, Any]]) -> None:
    request_id = new_id()
    said = reference().ask("reply", content=content, parameters=PARAMETERS, request_id=request_id, routes=ROUTES)
    reply = scan("proto", said["proto"])
    assert (reply.request_id, reply.endpoint, reply.status) == (request_id, "/encode", None)
    assert reply.parameters == PARAMETERS
    assert [list(route[:3]) for route in reply.routes] == ROUTES
    known = reference().ask("tree", message=said["proto"])["documents"]
    assert [_values(d) for d in reply.documents()] == [_values(d) for d in known]


@pytest.mark.parametrize("codec", ["proto", "json"])
@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<f2"])
def test_embeddings_land_in_their_rows(reference: Ask, codec: Any, dtype: str) -> None:
    request_id = new_id()
    matrix = np.random.default_rng(1).standard_normal((5, 16)).astype(dtype)
    content = [{"id": f"{request_id[:24]}{i:08x}", "embedding": matrix[i]} for i in (3, 0, 4, 1)]
    said = reference().ask("reply", content=content, parameters={}, request_id=request_id, routes=[])
    reply = scan(codec, said[codec] if codec == "proto" else said["json"])
    assert (reply.rows, reply.width) == (4, 16)
    out = np.zeros((7, 16), np.float32)
    assert reply.place(out, 1, 5, request_id) == [2]
    np.testing.assert_array_equal(np.delete(out, [0, 3, 6], 0), matrix[[0, 1, 3, 4]].astype(np.float32))
    assert not out[[0, 3, 6]].any()


@pytest.mark.parametrize("codec", ["proto", "json"])
def test_errors_scan_to_what_jina_said(reference: Ask, codec: Any) -> None:
    said = reference().ask(
        "reply",
        content=[{"text": "a"}],
        parameters={},
        request_id="0" * 32,
        routes=ROUTES[:1],
        error=["bad", 'ü "图"'],
    )
    status = scan(codec, said[codec]).status
    assert status is not None
    code, description, name, arguments, stacks, executor = status
    assert (code, name, arguments, executor) == (1, "ValueError", ("bad", 'ü "图"'), "")
    assert description == repr(ValueError("bad", 'ü "图"'))
    assert stacks[0].startswith("Traceback")


def _values(document: dict[str, Any]) -> dict[str, Any]:
    """Return comparable values of a document of either side, without what docarray's fields leave out."""
    found: dict[str, Any] = {}
    for name, value in document.items():
        if name in ("tensor", "embedding"):
            array = np.frombuffer(value[0], value[2]).reshape(value[1]) if isinstance(value, tuple) else value
            found[name] = (array.dtype.str, array.shape, array.tobytes())
        elif name in ("matches", "chunks"):
            found[name] = [_values(nested) for nested in value]
        elif name == "scores":
            found[name] = {k: s if isinstance(s, dict) else {"value": s[0], "op_name": s[1]} for k, s in value.items()}
        elif name not in NESTING:
            found[name] = value
    return found
