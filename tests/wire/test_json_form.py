"""The JSON form of requests and replies: documents go through it unchanged, and errors say where."""

import json

import numpy as np
import pytest
from casdk.wire.docarray_pb2 import DocumentProto
from casdk.wire.json_form import FormError, read_request, write_reply
from hypothesis import given
from hypothesis import strategies as st

TEXT = st.text(max_size=12)
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
SCORES = st.dictionaries(TEXT, st.fixed_dictionaries({"value": FLOAT32, "op_name": TEXT}), max_size=2)
FLAT = {
    "id": st.text(min_size=1, max_size=12),
    **dict.fromkeys(("parent_id", "uri", "modality", "mime_type"), TEXT),
    "granularity": st.integers(0, 2**32 - 1),
    "adjacency": st.integers(0, 2**32 - 1),
    "weight": FLOAT32,
    "offset": FLOAT32,
    "location": st.lists(FLOAT32, max_size=3),
    "tags": st.dictionaries(TEXT, JSON, max_size=3),
    "scores": SCORES,
    "evaluations": SCORES,
}
CONTENT = st.fixed_dictionaries({}, optional={"text": st.text(min_size=1, max_size=12)}) | st.fixed_dictionaries(
    {}, optional={"tensor": st.lists(st.lists(st.integers(0, 255), min_size=2, max_size=2), min_size=1, max_size=3)}
)
LEAF = st.builds(lambda flat, content: flat | content, st.fixed_dictionaries({}, optional=FLAT), CONTENT)
DOCUMENT = st.builds(
    lambda root, chunks, matches: root | {"chunks": chunks, "matches": matches},
    LEAF,
    st.lists(LEAF, max_size=2),
    st.lists(LEAF, max_size=2),
)


def _score(written):
    return {"value": written["value"] or 0, "op_name": written["op_name"] or ""}


def _same(given, written):
    """What was given is written again; what is empty or zero is null."""
    for key, value in given.items():
        if key in ("chunks", "matches"):
            assert len(written[key] or ()) == len(value)
            for one, other in zip(value, written[key] or (), strict=True):
                _same(one, other)
        elif key in ("scores", "evaluations"):
            assert {name: _score(score) for name, score in (written[key] or {}).items()} == value
        else:
            assert written[key] == (value or None)
    assert all(written[key] is None for key in written.keys() - given.keys() - {"id"})


@given(st.lists(DOCUMENT, max_size=3), st.dictionaries(TEXT, JSON, max_size=3), st.booleans())
def test_documents_go_in_and_out_unchanged(forms, parameters, camel):
    request = read_request(json.dumps({"data": forms, "parameters": parameters}).encode(), "/encode")
    reply = json.loads(b"".join(write_reply(request, camel=camel)))
    assert reply["parameters"] == parameters
    assert len(reply["data"]) == len(forms)
    for form, written in zip(forms, reply["data"], strict=True):
        _same(form, written)


@given(JSON)
def test_any_json_is_a_request_or_an_error_that_says_where(value):
    for body in (value, {"data": value}, {"data": [value]}, {"data": [{"matches": value, "tensor": value}]}):
        error = _refused(json.dumps(body).encode())
        assert error is None or (error.detail["loc"][0] == "body" and error.detail["msg"])


@given(st.binary(max_size=60))
def test_any_bytes_are_a_request_or_an_error(body):
    error = _refused(body)
    assert error is None or str(error)


def _refused(body):
    """Return why bytes are no request; anything but a `FormError` is a bug."""
    try:
        read_request(body)
    except FormError as error:
        return error
    return None


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<f2", "|u1"])
def test_embeddings_are_written_as_numbers(dtype):
    request = read_request(b"{}")
    row = np.array([0, 1, 2.5, 200], dtype)
    made = request.data.docs.docs.add()
    made.embedding.dense.buffer = row.tobytes()
    made.embedding.dense.shape.append(4)
    made.embedding.dense.dtype = dtype
    assert json.loads(b"".join(write_reply(request, camel=True)))["data"][0]["embedding"] == row.tolist()


def test_a_blob_is_standard_base64():
    request = read_request(b'{"data": [{"blob": "+/8="}]}')
    assert request.data.docs.docs[0] == DocumentProto(blob=b"\xfb\xff")
    assert json.loads(b"".join(write_reply(request, camel=True)))["data"][0]["blob"] == "+/8="
