"""Replies against their oracles: google protobuf with this project's protos, json, NumPy."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from casdk import Document
from casdk._rust import first_id_of, request_id_of, scan, scan_status
from casdk.errors import ReplyError
from casdk.wire.docarray_pb2 import DocumentProto
from casdk.wire.jina_pb2 import DataRequestProto
from casdk.wire.json_form import status_form
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import (
    CODECS,
    REQUEST_ID,
    pack,
    parameters,
    proto_of,
    put_array,
    trees,
)


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
    assert scan_status("proto", status.SerializeToString()) == known
    assert scan_status("json", msgspec.json.encode(status_form(status))) == known
    assert scan_status("proto", b"") == (0, "", "", (), (), "")
    assert scan_status("json", b"null") is None
    assert scanned.routes == [
        ("gateway", 1_700_000_000_123_456_789, 1_700_000_001_000_000_001, None),
        ("clip", 0, 0, known),
    ]
    assert (scanned.rows, scanned.width, scanned.parameters, scanned.documents()) == (0, 0, {}, [])


@settings(max_examples=2 * settings.default.max_examples)
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
        if codec == "json":
            first_id_of(broken)
        reply_read = scan(codec, broken)
        _ = (reply_read.documents(), reply_read.parameters)
        reply_read.place(np.empty((9, reply_read.width), np.float32), 0, 9, REQUEST_ID)
    with contextlib.suppress(ReplyError):
        scan_status(codec, broken)


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


@given(st.lists(trees, max_size=2), st.booleans())
def test_the_first_id_is_read_without_a_scan(documents: list[Document], in_docs: bool) -> None:
    message = pack(documents, "json", whole=True, check_images=False, allow_empty=True).message
    whole = json.loads(bytes(message))
    if in_docs:
        whole["data"] = {"docs": whole["data"]}
    expected = documents[0].id if documents else None
    assert first_id_of(message) == first_id_of(json.dumps(whole, sort_keys=True).encode()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"data":[{"text":"a","id":"\\u00fc"},{"id":"b"}', "ü"),  # what comes behind it is not read
        ('{"data":[{"text":"a"},{"id":"b"}]}', ""),
        ('{"data":[{"id":null}]}', ""),
        ('{"data":[]}', None),
        ('{"data":null,"header":{}}', None),
    ],
)
def test_the_first_id_where_it_is_or_is_not(text: str, expected: str | None) -> None:
    assert first_id_of(text.encode()) == expected


@pytest.mark.parametrize("text", ["", "<html>", '{"data":[{"id":"a', '{"data":[3]}', "[" * 100_000])
def test_what_has_no_first_id(text: str) -> None:
    with pytest.raises(ReplyError, match=r"at byte \d+"):
        first_id_of(text.encode())
