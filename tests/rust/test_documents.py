"""Documents into requests: what google protobuf would write of them, and what travels on no scheme."""

from __future__ import annotations

import math

import numpy as np
import pytest
from casdk import Document, NamedScore
from casdk._rust import Kind, Packer
from hypothesis import given
from hypothesis import strategies as st
from oracle import (
    CODECS,
    REQUEST_ID,
    documents_of,
    pack,
    proto_of,
    trees,
)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_what_json_has_no_number_for_is_sent_in_neither_form(number: float) -> None:
    array = np.array([1, number], np.float32)
    bad = [
        *(Document(text="a", **{name: number}) for name in ("weight", "offset")),
        Document(text="a", location=[0.0, number]),
        Document(text="a", tags={"key": [number]}),
        Document(text="a", scores={"one": NamedScore(number)}),
        Document(text="a", embedding=array),
        Document(tensor=array),
    ]
    for codec in CODECS:
        with pytest.raises(TypeError, match=r"a\.b"):
            Packer(codec, "/encode", {"a": {"b": number}})  # type: ignore[arg-type]
        packed = Packer(codec, "/encode", {}, whole=True).pack(REQUEST_ID, bad, bytes([Kind.DOCUMENT]) * len(bad))  # type: ignore[arg-type]
        assert [(at, kind) for at, kind, _ in packed.failures] == [(at, "type") for at in range(len(bad))]


@pytest.mark.parametrize("dtype", ["c8", "c16", "u2", "?", "m8", "f4,f4", ">f4", "O", "U1", "S1"])
def test_arrays_that_json_cannot_hold_are_sent_in_neither_form(dtype: str) -> None:
    for codec in CODECS:
        for whole in (False, True):
            item = Document(text="a", embedding=np.zeros(2, dtype)) if whole else Document(tensor=np.zeros(2, dtype))
            packed = Packer(codec, "/encode", {}, whole=whole).pack(REQUEST_ID, [item], bytes([Kind.DOCUMENT]))  # type: ignore[arg-type]
            assert [(at, kind) for at, kind, _ in packed.failures] == [(0, "type")]


@given(st.lists(trees, max_size=3))
def test_whole_documents_are_what_protobuf_would_make_of_them(documents: list[Document]) -> None:
    packed = pack(documents, whole=True, check_images=False)
    assert packed.failures == []
    assert documents_of(packed) == [proto_of(document) for document in documents]


@given(st.lists(trees, max_size=3))
def test_slim_documents_leave_out_what_an_encoder_does_not_read(documents: list[Document]) -> None:
    packed = pack(documents, check_images=False)
    known = [proto_of(document) for document in documents]
    for proto in known:
        for name in ("uri", "embedding", "scores", "evaluations", "chunks", "matches"):
            proto.ClearField(name)
    assert documents_of(packed) == known


@pytest.mark.parametrize("whole", [False, True])
def test_an_array_without_dimensions_is_sent_in_neither_form(whole: bool) -> None:
    for codec in CODECS:
        array = np.array(1, np.float32)
        item = Document(text="a", embedding=array) if whole else Document(tensor=array)
        packed = Packer(codec, "/encode", {}, whole=whole).pack(REQUEST_ID, [item], bytes([Kind.DOCUMENT]))  # type: ignore[arg-type]
        assert [(at, kind) for at, kind, _ in packed.failures] == [(0, "type")]
