"""The extension against its oracles: google protobuf with this project's protos, json, NumPy, the standard library."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import re
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from casdk import Document, DocumentArray, NamedScore
from casdk._rust import Packer, classify, decode_data_uri, new_id, request_id_of, scan, sniff
from casdk.errors import ReplyError
from casdk.server.wire.docarray_pb2 import DocumentProto, NdArrayProto
from casdk.server.wire.jina_pb2 import DataRequestProto
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
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


# parameters

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
plain = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
parameters = st.dictionaries(texts, plain, max_size=4)


@given(parameters)
def test_parameters_are_a_struct(values: dict[str, Any]) -> None:
    request = read(pack(["a"], parameters=values).message)
    assert MessageToDict(request.parameters) == values
    assert request.HasField("parameters") == bool(values)
    assert json.loads(pack(["a"], "json", parameters=values).message).get("parameters", {}) == values


@pytest.mark.parametrize("codec", CODECS)
def test_numpy_scalars_and_tuples_are_taken(codec: str) -> None:
    given = {"limit": np.int64(3), "rate": np.float32(0.5), "on": np.bool_(True), "pair": (1, [2, (3,)])}
    message = pack(["a"], codec, parameters=given).message
    known = {"limit": 3, "rate": 0.5, "on": True, "pair": [1, [2, [3]]]}
    assert (MessageToDict(read(message).parameters) if codec == "proto" else json.loads(message)["parameters"]) == known


@pytest.mark.parametrize(
    ("bad", "path"),
    [
        ({"a": object()}, "a"),
        ({"a": {"b": [0, b"bytes"]}}, r"a\.b\[1\]"),
        ({1: 2}, "1"),
        ({"a": {None: 2}}, "a"),
        ({"a": {1, 2}}, "a"),
        ({"a": np.zeros(3)}, "a"),
        ({"a": 10**400}, "a"),
        ({"a": "\ud800"}, "a"),
    ],
)
@pytest.mark.parametrize("codec", CODECS)
def test_what_no_struct_holds_is_a_type_error_that_names_it(codec: Any, bad: Any, path: str) -> None:
    with pytest.raises(TypeError, match=path):
        Packer(codec, "/encode", bad)


def test_parameters_that_hold_themselves_are_a_type_error() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with pytest.raises(TypeError, match="loop"):
        Packer("proto", "/encode", loop)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_json_has_no_nan(number: float) -> None:
    with pytest.raises(TypeError, match=r"a\.b"):
        Packer("json", "/encode", {"a": {"b": number}})
    sent = read(pack(["a"], parameters={"a": number}).message).parameters.fields["a"].number_value
    np.testing.assert_array_equal(sent, number)


def test_parameters_are_a_mapping() -> None:
    with pytest.raises(TypeError, match="mapping"):
        Packer("proto", "/encode", [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="xml"):
        Packer("xml", "/encode", {})  # type: ignore[arg-type]


# requests


def test_the_header_says_who_and_where() -> None:
    request = read(pack(["a"], target_executor="clip").message)
    assert (request.header.request_id, request.header.exec_endpoint) == (REQUEST_ID, "/encode")
    assert request.header.target_executor == "clip"
    assert not read(pack(["a"]).message).header.HasField("target_executor")


@given(st.lists(texts.filter(bool), min_size=1, max_size=50), st.sampled_from([list, tuple]))
def test_sentences_travel_as_they_are(sentences: list[str], kind: type) -> None:
    packer = Packer("proto", "/encode", {})
    packed = packer.pack(REQUEST_ID, kind(sentences), b"T" * len(sentences))
    assert (packed.rows, packed.taken, packed.failures) == (len(sentences), len(sentences), [])
    assert [(d.id, d.text) for d in documents_of(packed)] == [
        (f"{REQUEST_ID[:24]}{at:08x}", text) for at, text in enumerate(sentences)
    ]
    body = json.loads(Packer("json", "/encode", {}).pack(REQUEST_ID, sentences, b"T" * len(sentences)).message)
    assert [d["text"] for d in body["data"]] == sentences


def test_an_image_travels_the_same_however_it_comes(tmp_path: Path) -> None:
    image = PNG + bytes(range(256)) * 400
    path = tmp_path / "a cat.png"
    path.write_bytes(image)
    uri = "data:image/png;base64," + base64.b64encode(image).decode()
    items = [str(path), path.as_uri(), uri, image, Document(blob=image), Document(uri=str(path)), Document(uri=uri)]
    items += ["http://h/cat", Document(uri="https://h/cat")]
    fetched = {"http://h/cat": image, "https://h/cat": image}
    packed = pack(items, fetched=fetched)
    assert packed.failures == []
    assert all(d.blob == image and not d.uri and not d.mime_type for d in documents_of(packed))
    body = json.loads(pack(items, "json", fetched=fetched).message)
    assert all(base64.b64decode(d["blob"], validate=True) == image for d in body["data"])
    kept = documents_of(pack(items, fetched=fetched, keep_uri=True))
    assert [d.uri for d in kept] == [
        i if isinstance(i, str) else i.uri if isinstance(i, Document) else "" for i in items
    ]
    assert [d.mime_type for d in kept] == ["image/png" if d.uri else "" for d in kept]


@given(
    st.sampled_from(["|u1", "<f4", "<f8", "<i8"]), st.lists(st.integers(0, 4), min_size=1, max_size=3), st.booleans()
)
def test_tensors_travel_in_c_order(dtype: str, shape: list[int], turned: bool) -> None:
    array = np.arange(math.prod(shape), dtype=dtype).reshape(shape)
    if turned:
        array = array.T
    packer = Packer("proto", "/encode", {})
    for packed in (packer.pack(REQUEST_ID, [array], b"N"), pack([Document(tensor=array)])):
        (document,) = documents_of(packed)
        np.testing.assert_array_equal(read_array(document.tensor), array)
        assert document.tensor.dense.dtype == dtype
        assert document.tensor.cls_name == "numpy"


def read_array(array: NdArrayProto) -> np.ndarray[Any, Any]:
    return np.frombuffer(array.dense.buffer, array.dense.dtype).reshape(array.dense.shape)


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


@given(st.lists(trees, max_size=3))
def test_whole_documents_are_what_protobuf_would_make_of_them(documents: list[Document]) -> None:
    packed = pack(documents, whole=True, keep_uri=True, check_images=False)
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


def test_candidates_travel_as_matches_with_their_positions_as_ids(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    query = Document(
        id="mine", text="a cat", chunks=[Document(text="one"), Document(uri=str(path)), Document(blob=PNG)]
    )
    (document,) = documents_of(pack([query], candidates="chunks"))
    assert document.id == "mine"
    assert not document.chunks
    assert [(m.id, m.adjacency, m.text, m.blob) for m in document.matches] == [
        ("0", 1, "one", b""),
        ("1", 1, "", PNG),
        ("2", 1, "", PNG),
    ]


# failures


@pytest.mark.parametrize("codec", CODECS)
def test_each_failure_drops_only_its_item(codec: str, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "large.png").write_bytes(PNG + bytes(200))
    os.mkfifo(tmp_path / "fifo.png")
    loop = Document(text="loop")
    loop.matches.append(loop)
    bad: list[tuple[Any, str, str]] = [
        (str(tmp_path / "nosuch.png"), "missing", "nosuch.png"),
        (str(tmp_path), "unreadable", "directory"),
        (str(tmp_path / "fifo.png"), "unreadable", "FIFO"),
        (str(tmp_path / "text.png"), "not_image", "text.png"),
        (b"no image", "not_image", ""),
        ("data:,hello", "not_image", "data"),
        ("data:image/png;base64,AA=A", "data_uri", "24"),
        (str(tmp_path / "large.png"), "too_large", "200"),
        ("x" * 201, "too_large", "201"),
        (str(tmp_path / "empty.png"), "empty", "empty.png"),
        ("", "empty", ""),
        (b"", "empty", ""),
        (Document(), "empty", ""),
        ("http://h/cat.png", "not_fetched", "http://h/cat.png"),
        (Document(uri="http://h/cat.png"), "not_fetched", "http://h/cat.png"),
        ("\ud800", "type", "surrogates"),
        (Document(text="a", tags={"key": object()}), "type", "key"),
        (Document(tensor=np.array(["a"])), "type", "<U1"),
        (loop, "type", "64 deep"),
    ]
    items: list[Any] = ["first"]
    for item, _, _ in bad:
        items += [item, "good"]
    packed = pack(items, codec, whole=True, max_item_bytes=200)
    assert [(at, kind) for at, kind, _ in packed.failures] == [(2 * i + 1, kind) for i, (_, kind, _) in enumerate(bad)]
    for (_, _, reason), (_, _, says) in zip(packed.failures, bad, strict=True):
        assert says in reason
    assert (packed.rows, packed.taken) == (len(bad) + 1, len(items))
    if codec == "proto":
        assert [d.text for d in documents_of(packed)] == ["first"] + ["good"] * len(bad)


@pytest.mark.parametrize(
    ("candidate", "kind"),
    [
        (Document(uri="/nosuch.png"), "missing"),
        (Document(blob=b"no image"), "not_image"),
        (Document(), "empty"),
        (Document(uri="http://h/cat.png"), "not_fetched"),
        (Document(text="a", tags={"key": object()}), "type"),
    ],
)
def test_a_bad_candidate_is_named(candidate: Document, kind: str) -> None:
    query = Document(text="a", matches=[Document(text="b"), candidate])
    packed = pack([Document(text="c", matches=[Document(text="d")]), query], candidates="matches")
    ((position, found, reason),) = packed.failures
    assert (position, found, packed.rows) == (1, kind, 1)
    assert reason.startswith("match 1: ")


@pytest.mark.parametrize("codec", CODECS)
def test_empty_documents_travel_when_allowed_but_empty_sentences_never(codec: str) -> None:
    packed = pack([Document(), ""], codec, allow_empty=True)
    assert [(at, kind) for at, kind, _ in packed.failures] == [(1, "empty")]
    assert packed.rows == 1


def test_unchecked_images_may_be_anything() -> None:
    assert [d.blob for d in documents_of(pack([b"no image"], check_images=False))] == [b"no image"]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=30), st.integers(1, 2000), st.sampled_from(CODECS))
def test_a_batch_is_cut_at_the_limit_and_nothing_is_lost(sizes: list[int], limit: int, codec: str) -> None:
    items = ["x" * size for size in sizes]
    packer = Packer(codec, "/encode", {}, max_message_bytes=limit)  # type: ignore[arg-type]
    rest, rows = items, 0
    while rest:
        packed = packer.pack(REQUEST_ID, rest, b"T" * len(rest))
        assert 1 <= packed.taken == packed.rows
        rest, rows = rest[packed.taken :], rows + packed.rows
    assert rows == len(items)


def test_misuse_is_an_error_of_the_call() -> None:
    packer = Packer("proto", "/encode", {})
    with pytest.raises(ValueError, match="2 verdicts for 1 items"):
        packer.pack(REQUEST_ID, ["a"], b"TT")
    with pytest.raises(ValueError, match=re.escape("'?'")):
        packer.pack(REQUEST_ID, ["a"], b"?")


FEW_DESCRIPTORS = """
import resource, sys
from casdk._rust import Packer
resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))
paths = [sys.argv[1]] * 500
for codec in ("proto", "json"):
    packed = Packer(codec, "/encode", {}).pack("0" * 32, paths, b"P" * 500)
    assert (packed.rows, packed.failures) == (500, []), packed.failures[:1]
"""


def test_many_files_need_few_descriptors(tmp_path: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 80
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    subprocess.run([sys.executable, "-c", FEW_DESCRIPTORS, str(path)], check=True, timeout=50)


def test_reading_files_lets_other_threads_run(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(PNG + bytes(32 << 20))
    packer = Packer("proto", "/encode", {}, max_message_bytes=1 << 30)
    gate, ran = threading.Lock(), threading.Event()
    gate.acquire()

    def run() -> None:
        with gate:
            ran.set()

    thread = threading.Thread(target=run)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)  # nobody is made to let go of the GIL: the other thread runs only if `pack` lets go
    try:
        gate.release()
        packed = packer.pack(REQUEST_ID, [str(path)] * 4, b"PPPP")
        ran_meanwhile = ran.is_set()
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert packed.rows == 4
    assert ran_meanwhile


# replies


def answer(rows: list[tuple[str, np.ndarray[Any, Any] | None]], request_id: str = REQUEST_ID) -> bytes:
    reply = DataRequestProto()
    reply.header.request_id = request_id
    for name, row in rows:
        document = reply.data.docs.docs.add(id=name)
        if row is not None:
            put_array(document.embedding, row)
    return reply.SerializeToString()


def json_answer(rows: list[tuple[str, np.ndarray[Any, Any] | None]]) -> bytes:
    data = [{"id": name, "embedding": None if row is None else row.tolist()} for name, row in rows]
    return json.dumps({"header": {"requestId": "f" * 32, "status": None}, "routes": [], "data": data}).encode()


ANSWERS = {"proto": answer, "json": json_answer}


def own_id(position: int) -> str:
    return f"{REQUEST_ID[:24]}{position:08x}"


@given(
    st.data(), st.integers(1, 40), st.integers(1, 9), st.sampled_from(["<f4", "<f8", "<f2"]), st.sampled_from(CODECS)
)
def test_rows_land_where_their_ids_say(data: Any, sent: int, width: int, dtype: str, codec: Any) -> None:
    there = data.draw(st.permutations(range(sent)))[: data.draw(st.integers(0, sent))]
    matrix = np.random.default_rng(sent).standard_normal((sent, width)).astype(dtype)
    reply = scan(codec, ANSWERS[codec]([(own_id(at), matrix[at]) for at in there]))
    assert (reply.rows, reply.width) == (len(there), width if there else 0)
    kind: Any = data.draw(st.sampled_from([np.float32, np.float16]))
    start = data.draw(st.integers(0, 3))
    out = np.full((sent + start, width), np.nan, kind)
    assert reply.place(out, start, sent, REQUEST_ID) == sorted(set(range(sent)) - set(there))
    known = np.full_like(out, np.nan)
    for at in there:
        known[start + at] = matrix[at].astype(np.float32)
    np.testing.assert_array_equal(out, known)
    scattered = np.full_like(out, np.nan)
    reply.place(scattered, 0, sent, REQUEST_ID, [start + sent - 1 - at for at in range(sent)])
    np.testing.assert_array_equal(scattered[start:], known[start:][::-1])


def test_a_large_reply_is_placed_whole() -> None:
    matrix = np.random.default_rng(1).standard_normal((2000, 512), np.float32)
    reply = scan("proto", answer([(own_id(at), row) for at, row in enumerate(matrix)]))
    out = np.empty_like(matrix)
    assert reply.place(out, 0, 2000, REQUEST_ID) == []
    np.testing.assert_array_equal(out, matrix)


def test_rows_land_in_a_memmap(tmp_path: Path) -> None:
    out = np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", np.float32, (2, 3))
    reply = scan("proto", answer([("a", np.ones(3, np.float32)), ("b", np.full(3, 2, np.float32))]))
    assert reply.place(out, 0, 2, REQUEST_ID) == []
    np.testing.assert_array_equal(out, [[1, 1, 1], [2, 2, 2]])


@pytest.mark.parametrize("codec", CODECS)
def test_what_does_not_fit_is_a_reply_error(codec: Any) -> None:
    def place(rows: list[tuple[str, Any]], shape: tuple[int, int], sent: int, start: int = 0) -> list[int]:
        return scan(codec, ANSWERS[codec](rows)).place(np.empty(shape, np.float32), start, sent, REQUEST_ID)

    row = np.ones(3, np.float32)
    with pytest.raises(ReplyError, match=r"3\D+4"):
        place([("a", row)], (1, 4), 1)
    with pytest.raises(ReplyError, match="2 documents for 1"):
        place([("a", row), ("b", row)], (2, 3), 1)
    with pytest.raises(ReplyError, match="1 documents for 2"):
        place([("a", row)], (2, 3), 2)
    with pytest.raises(ReplyError, match="twice"):
        place([(own_id(0), row), (own_id(0), row)], (2, 3), 2)
    with pytest.raises(ReplyError, match="no row"):
        place([("a", row)], (2, 3), 1, start=2)
    assert place([("a", row), ("b", None)], (2, 3), 2) == [1]


@pytest.mark.parametrize(
    "out", [np.empty((1, 3)), np.empty(3, np.float32), np.empty((3, 2), np.float32).T[:1], [[0.0] * 3]]
)
def test_what_no_rows_fit_in_is_a_type_error(out: Any) -> None:
    reply = scan("proto", answer([("a", np.ones(3, np.float32))]))
    with pytest.raises(TypeError, match="out"):
        reply.place(out, 0, 1, REQUEST_ID)
    frozen = np.empty((1, 3), np.float32)
    frozen.setflags(write=False)
    with pytest.raises(TypeError, match="writeable"):
        reply.place(frozen, 0, 1, REQUEST_ID)


@given(st.lists(trees, max_size=3), parameters)
def test_documents_of_a_reply_are_read_back(documents: list[Document], values: dict[str, Any]) -> None:
    reply = DataRequestProto()
    reply.parameters.update(values)
    reply.data.docs.docs.extend(proto_of(document) for document in documents)
    scanned = scan("proto", reply.SerializeToString())
    assert scanned.parameters == values
    assert [raw_of(proto) for proto in reply.data.docs.docs] == scanned.documents()


def raw_of(proto: DocumentProto) -> dict[str, Any]:
    """Return what the wire has of a document, as the contract names it."""
    raw: dict[str, Any] = {}
    for field, value in proto.ListFields():
        if field.name in ("tensor", "embedding"):
            raw[field.name] = (value.dense.buffer, tuple(value.dense.shape), value.dense.dtype)
        elif field.name in ("chunks", "matches"):
            raw[field.name] = [raw_of(nested) for nested in value]
        elif field.name in ("scores", "evaluations"):
            raw[field.name] = {k: (s.value, s.op_name, s.description, s.ref_id) for k, s in value.items()}
        elif field.name == "tags":
            raw[field.name] = MessageToDict(value)
        else:
            raw[field.name] = list(value) if field.name == "location" else value
    raw.setdefault("id", "")
    return raw


def test_status_and_routes_are_scanned() -> None:
    reply = DataRequestProto()
    reply.header.request_id, reply.header.exec_endpoint, reply.header.target_executor = REQUEST_ID, "/encode", ""
    status = reply.header.status
    status.code, status.description = 1, "ValueError('boom')"  # type: ignore[assignment]
    status.exception.name, status.exception.executor = "ValueError", "clip"
    status.exception.args.append("boom")
    status.exception.stacks.extend(["Traceback", "ValueError"])
    route = reply.routes.add(executor="gateway")
    route.start_time.FromNanoseconds(1_700_000_000_123_456_789)
    route.end_time.FromNanoseconds(1_700_000_001_000_000_001)
    reply.routes.add(executor="clip").status.CopyFrom(status)
    known = (1, "ValueError('boom')", "ValueError", ("boom",), ("Traceback", "ValueError"), "clip")
    scanned = scan("proto", reply.SerializeToString())
    assert (scanned.request_id, scanned.endpoint, scanned.target_executor) == (REQUEST_ID, "/encode", "")
    assert scanned.status == known
    assert scanned.routes == [
        ("gateway", 1_700_000_000_123_456_789, 1_700_000_001_000_000_001, None),
        ("clip", 0, 0, known),
    ]
    assert (scanned.rows, scanned.width, scanned.parameters, scanned.documents()) == (0, 0, {}, [])


@settings(max_examples=300)
@given(st.lists(trees, max_size=2), st.data(), st.sampled_from(CODECS))
def test_broken_replies_are_reply_errors(documents: list[Document], data: Any, codec: Any) -> None:
    if codec == "proto":
        reply = DataRequestProto()
        reply.data.docs.docs.extend(proto_of(document) for document in documents)
        whole = bytearray(reply.SerializeToString())
    else:
        packed = pack(documents, "json", whole=True, check_images=False)
        whole = bytearray(packed.message)
    for _ in range(data.draw(st.integers(0, 4))):
        if whole:
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    broken = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with contextlib.suppress(ReplyError):  # and nothing else
        reply_read = scan(codec, broken)
        _ = (reply_read.documents(), reply_read.parameters)
        reply_read.place(np.empty((9, reply_read.width), np.float32), 0, 9, REQUEST_ID)


@pytest.mark.parametrize("codec", CODECS)
def test_a_reply_error_names_the_offset(codec: Any) -> None:
    message = ANSWERS[codec]([("a", np.ones(3, np.float32))])
    with pytest.raises(ReplyError, match=r"at byte \d+"):
        scan(codec, message[:-3])


def test_the_request_id_is_read_without_a_scan() -> None:
    assert request_id_of(answer([("a", None)])) == REQUEST_ID
    assert request_id_of(answer([], request_id="ü")) == "ü"
    for message in (b"", b"\x0a", b"\x0a\x04\x0a\x02a\xff", b"\xff" * 20):
        with pytest.raises(ReplyError):
            request_id_of(message)


# the small ones


def test_ids_are_hex_and_never_the_same() -> None:
    ids: set[str] = set()

    def draw() -> None:
        ids.update(new_id() for _ in range(5000))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 20_000
    assert all(re.fullmatch("[0-9a-f]{32}", drawn) for drawn in ids)


def test_a_forked_child_draws_other_ids() -> None:
    new_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 32).decode() != new_id()
    os.close(reading)
    os.close(writing)


def test_verdicts_tell_types_apart() -> None:
    class Mine(str):
        pass

    items = ["a", "cat.png", b"", Document(), np.zeros(3), None, 1, Mine("a"), bytearray(), "\ud800"]
    assert classify(items) == b"TPBO????" + b"?T"
    assert classify(tuple(items)) == classify(items)
    assert classify([]) == b""


@given(st.binary(max_size=60), st.booleans())
def test_data_uris_are_decoded(payload: bytes, is_base64: bool) -> None:
    from urllib.parse import quote_from_bytes

    data = ";base64," + base64.b64encode(payload).decode() if is_base64 else "," + quote_from_bytes(payload)
    assert decode_data_uri(f"data:image/png{data}") == ("image/png", payload)


def test_a_broken_data_uri_names_the_offset() -> None:
    with pytest.raises(ValueError, match="offset 24"):
        decode_data_uri("data:image/png;base64,AA=A")


def test_images_are_known_by_their_magic() -> None:
    assert sniff(PNG) == "png"
    assert sniff(b"hello") is None
