"""Requests are weighed without being parsed: against google protobuf and json, which parse them."""

import json

import pytest
from casdk._rust import weigh_json, weigh_request
from casdk.wire.docarray_pb2 import DocumentArrayProto, DocumentProto
from casdk.wire.jina_pb2 import DataRequestProto
from casdk.wire.layers import wrap
from hypothesis import given
from hypothesis import strategies as st
from oracle import leaves, pack, read


def documents_in(documents):
    return sum(1 + documents_in(document.chunks) + documents_in(document.matches) for document in documents)


@given(st.lists(leaves, max_size=4))
def test_documents_are_counted_as_protobuf_reads_them(documents):
    message = pack(documents, whole=True, allow_empty=True).message
    counted, values, depth = weigh_request(message)
    assert counted == documents_in(read(message).data.docs.docs)
    assert values >= 0
    assert depth >= 1


def test_what_is_nested_too_deep_or_broken_is_refused():
    with pytest.raises(ValueError, match="the reply breaks at byte 1: it ends inside a number"):
        weigh_request(b"\x0a")
    documents = b""
    for _ in range(100):
        documents = wrap(DocumentProto, "chunks", documents)
    data = wrap(DataRequestProto.DataContentProto, "docs", wrap(DocumentArrayProto, "docs", documents))
    with pytest.raises(ValueError, match="it is nested too deeply"):
        weigh_request(wrap(DataRequestProto, "data", data))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


def objects_in(value):
    if isinstance(value, dict):
        return 1 + sum(map(objects_in, value.values()))
    return sum(map(objects_in, value)) if isinstance(value, list) else 0


@given(json_values, st.sampled_from([None, 2]))
def test_objects_are_counted_as_json_reads_them(value, indent):
    counted, _, _ = weigh_json(json.dumps(value, indent=indent).encode())
    assert counted == objects_in(value)


@given(st.binary(max_size=60))
def test_any_bytes_weigh_something(data):
    assert len(weigh_json(data)) == 3
