"""The oracle: a request as google protobuf reads it, a reply as it writes one, Documents of any shape."""

from __future__ import annotations

from typing import Any

import numpy as np
from casdk import Document, DocumentArray, NamedScore
from casdk._rust import Packer, classify
from casdk.wire.docarray_pb2 import DocumentProto, NdArrayProto
from casdk.wire.jina_pb2 import DataRequestProto
from hypothesis import strategies as st

REQUEST_ID = "0123456789abcdef0123456789abcdef"
PNG = b"\x89PNG\r\n\x1a\n and so on"
CODECS = ("proto", "json")


def read(message: bytes) -> DataRequestProto:
    """Return a request as google protobuf reads it."""
    return DataRequestProto.FromString(message)


def pack(items: list[Any], codec: Any = "proto", fetched: Any = None, parameters: Any = None, **options: Any) -> Any:
    packer = Packer(codec, "/encode", parameters or {}, **options)
    return packer.pack(REQUEST_ID, items, classify(items), fetched)


def documents_of(packed: Any) -> list[DocumentProto]:
    return list(read(packed.message).data.docs.docs)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
plain = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
parameters = st.dictionaries(texts, plain, max_size=4)

numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
scores = st.dictionaries(texts, st.builds(NamedScore, value=numbers, op_name=texts, ref_id=texts), max_size=2)
vectors = st.lists(numbers, min_size=1, max_size=4).map(lambda row: np.array(row, np.float32))
leaves = st.builds(
    Document,
    id=texts,
    text=texts,
    blob=st.binary(max_size=9),
    tensor=st.none() | vectors,
    embedding=st.none() | vectors,
    uri=texts.map(lambda text: f"somewhere/{text}"),
    tags=parameters,
    mime_type=texts,
    parent_id=texts,
    modality=texts,
    granularity=st.integers(0, 9),
    adjacency=st.integers(0, 9),
    weight=numbers,
    offset=numbers,
    location=st.lists(numbers, max_size=3),
    scores=scores,
    evaluations=scores,
)


def nest(root: Document, matches: list[Document], chunks: list[Document]) -> Document:
    if not (root.text or root.blob or root.tensor is not None):
        root.text = "something"
    root.matches, root.chunks = DocumentArray(matches), DocumentArray(chunks)
    return root


trees = st.builds(nest, leaves, st.lists(leaves, max_size=2), st.lists(leaves, max_size=2))


def proto_of(document: Document, parent: DocumentProto | None = None, name: str = "") -> DocumentProto:
    """Return what docarray 0.21 would make of a document, by google protobuf."""
    made = DocumentProto()
    for field in ("id", "uri", "mime_type", "parent_id", "modality", "granularity", "adjacency", "weight", "offset"):
        setattr(made, field, getattr(document, field))
    made.location.extend(document.location)
    if parent is not None and name == "chunks":
        made.granularity = made.granularity or parent.granularity + 1
        made.parent_id = made.parent_id or parent.id
    if parent is not None and name == "matches":
        made.adjacency = made.adjacency or parent.adjacency + 1
    if document.text:
        made.text = document.text
    elif document.blob:
        made.blob = document.blob
    elif document.tensor is not None:
        put_array(made.tensor, document.tensor)
    if document.embedding is not None:
        put_array(made.embedding, document.embedding)
    if document.tags:
        made.tags.update(document.tags)
    for field in ("scores", "evaluations"):
        for key, score in getattr(document, field).items():
            named = getattr(made, field)[key]
            named.value, named.op_name, named.ref_id = score.value, score.op_name, score.ref_id
    for field in ("chunks", "matches"):
        getattr(made, field).extend(proto_of(nested, made, field) for nested in getattr(document, field))
    return made


def put_array(proto: NdArrayProto, array: np.ndarray[Any, Any]) -> None:
    proto.dense.buffer, proto.dense.dtype, proto.cls_name = array.tobytes(), array.dtype.str, "numpy"
    proto.dense.shape.extend(array.shape)


def read_array(array: NdArrayProto) -> np.ndarray[Any, Any]:
    return np.frombuffer(array.dense.buffer, array.dense.dtype).reshape(array.dense.shape)
