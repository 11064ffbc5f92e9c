"""Requests against their oracles: google protobuf with this project's protos, json, NumPy."""

from __future__ import annotations

import base64
import json
import math
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from casdk import Document, DocumentArray
from casdk._rust import Kind, Packer, first_id_of
from hypothesis import given
from hypothesis import strategies as st
from oracle import (
    CODECS,
    PNG,
    REQUEST_ID,
    documents_of,
    pack,
    read,
    read_array,
    texts,
    trees,
)

# requests


def test_the_header_says_who_and_where() -> None:
    request = read(pack(["a"]).message)
    assert (request.header.request_id, request.header.exec_endpoint) == (REQUEST_ID, "/encode")
    assert not request.header.HasField("target_executor")


@given(st.lists(texts.filter(bool), min_size=1, max_size=50), st.sampled_from([list, tuple]))
def test_sentences_travel_as_they_are(sentences: list[str], kind: type) -> None:
    packer = Packer("proto", "/encode", {})
    packed = packer.pack(REQUEST_ID, kind(sentences), bytes([Kind.TEXT]) * len(sentences))
    assert (packed.rows, packed.taken, packed.failures) == (len(sentences), len(sentences), [])
    assert [(d.id, d.text) for d in documents_of(packed)] == [
        (f"{REQUEST_ID[:24]}{at:08x}", text) for at, text in enumerate(sentences)
    ]
    packed = Packer("json", "/encode", {}).pack(REQUEST_ID, sentences, bytes([Kind.TEXT]) * len(sentences))
    body = json.loads(bytes(packed.message))
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
    body = json.loads(bytes(pack(items, "json", fetched=fetched).message))
    assert all(base64.b64decode(d["blob"], validate=True) == image for d in body["data"])
    kept = documents_of(pack(items, fetched=fetched, whole=True))
    assert [d.uri for d in kept] == [
        i if isinstance(i, str) else i.uri if isinstance(i, Document) else "" for i in items
    ]
    assert [d.mime_type for d in kept] == ["image/png" if d.uri else "" for d in kept]


def test_a_large_text_of_json_is_lent() -> None:
    packed = pack([PNG + bytes(1 << 20)], "json")
    assert isinstance(packed.message, memoryview)
    assert packed.message.nbytes == len(packed.message)
    assert first_id_of(packed.message) == json.loads(bytes(packed.message))["data"][0]["id"]
    with pytest.raises(TypeError):
        first_id_of(memoryview(b"{}"))


@given(
    st.sampled_from(["|u1", "<f4", "<f8", "<i8"]), st.lists(st.integers(0, 4), min_size=1, max_size=3), st.booleans()
)
def test_tensors_travel_in_c_order(dtype: str, shape: list[int], turned: bool) -> None:
    array = np.arange(math.prod(shape), dtype=dtype).reshape(shape)
    if not array.size:
        [(_, kind, _)] = pack([Document(tensor=array)]).failures
        assert kind == "empty"
        return
    if turned:
        array = array.T
    packer = Packer("proto", "/encode", {})
    for packed in (packer.pack(REQUEST_ID, [array], bytes([Kind.TENSOR])), pack([Document(tensor=array)])):
        (document,) = documents_of(packed)
        np.testing.assert_array_equal(read_array(document.tensor), array)
        assert document.tensor.dense.dtype == dtype
        assert document.tensor.cls_name == "numpy"


named = st.builds(Document, id=texts, text=texts.filter(bool))


@given(
    st.lists(named, max_size=4) | st.lists(named | trees | texts | st.just(PNG), max_size=4),
    st.booleans(),
    st.sampled_from(CODECS),
)
def test_sentences_are_packed_as_anything_is(items: list[Any], whole: bool, codec: Any) -> None:
    packer = Packer(codec, "/encode", {}, whole=whole, check_images=False)
    kinds = bytes(
        Kind.DOCUMENT if isinstance(item, Document) else Kind.TEXT if isinstance(item, str) else Kind.BLOB
        for item in items
    )
    packed, expected = packer.pack_sentences(REQUEST_ID, items, kinds), packer.pack(REQUEST_ID, items, kinds)
    if any(not isinstance(item, str | Document) for item in items) or any(
        not item.text or item.matches or item.chunks or (whole and (item.scores or item.evaluations))
        for item in items
        if isinstance(item, Document)
    ):
        assert packed is None
        return
    assert packed is not None
    assert packed.message == expected.message
    assert (packed.rows, packed.taken, packed.failures) == (expected.rows, expected.taken, expected.failures)


def test_what_is_wrong_with_a_sentence_is_found() -> None:
    bad: list[Any] = [
        "\ud800",
        Document(text="\ud800"),
        Document(text="a", id="\udfff"),
        Document(text="a", tags={"key": "\ud800"}),
        Document(text="a", tags={"key": 10**400}),
        Document(text="a", weight=math.inf),
        Document(text="a", location=[math.nan]),
        Document(text="x" * 201),
    ]
    for codec in CODECS:
        packer = Packer(codec, "/encode", {}, max_item_bytes=200)  # type: ignore[arg-type]
        for item in bad:
            items: list[Any] = [Document(text="a"), item, Document(text="b")]
            kinds = (
                bytes([Kind.DOCUMENT, Kind.TEXT, Kind.DOCUMENT])
                if isinstance(item, str)
                else bytes([Kind.DOCUMENT]) * 3
            )
            packed = packer.pack_sentences(REQUEST_ID, items, kinds)
            assert packed is not None
            assert packed.rows == 2
            assert packed.failures == packer.pack(REQUEST_ID, items, kinds).failures
            assert [(at, kind) for at, kind, _ in packed.failures] == [
                (1, "too_large" if item is bad[-1] else "type")
            ], item


class Odd:
    """An array, a number, a mapping and a text, all of them the caller's code."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"{name} was asked for")

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("asked")

    __array__ = __len__ = __bool__ = __float__ = __index__ = __iter__ = __str__ = __repr__ = _refuse


class Keyed(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("asked")


class Nested(DocumentArray):
    def __len__(self) -> int:
        raise RuntimeError("asked")

    def __iter__(self) -> Any:
        raise RuntimeError("asked")


class Asked(Document):
    @property
    def uri(self) -> str:  # type: ignore[override]
        raise RuntimeError("asked")


ODD: list[Document] = [
    *(
        Document(**{"text": "a", name: Odd()})
        for name in Document.__struct_fields__
        if name not in ("matches", "chunks")
    ),
    *(Document(text="a", **{name: Nested(DocumentArray([Document()]))}) for name in ("matches", "chunks")),
    Document(text="a", tags=Keyed(key=1)),
    Document(text="a", tags={"key": Odd()}),
    Document(text="a", tags={"key": [(1, {"inner": Keyed()})]}),
    Document(text="a", scores={"one": Odd()}),  # type: ignore[dict-item]
    Document(text="a", location=[Odd()]),  # type: ignore[list-item]
    Asked(text="a"),
]


def test_an_array_over_the_limit_is_not_copied() -> None:
    array = np.zeros(2000, np.uint8)
    for codec in CODECS:
        packer = Packer(codec, "/encode", {}, max_item_bytes=1999)  # type: ignore[arg-type]
        for items, kind_of_it in (([array], Kind.TENSOR), ([Document(tensor=array)], Kind.DOCUMENT)):
            [(at, kind, reason)] = packer.pack(REQUEST_ID, items, bytes([kind_of_it])).failures
            assert (at, kind) == (0, "too_large")
            assert "2000 bytes" in reason


def test_what_ends_more_than_an_item_passes() -> None:
    class Ending(Document):
        @property
        def text(self) -> str:  # type: ignore[override]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack([Ending()])


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
        (Document(uri=str(tmp_path)), "unreadable", "directory"),
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
        packed = packer.pack(REQUEST_ID, rest, bytes([Kind.TEXT]) * len(rest))
        assert 1 <= packed.taken == packed.rows
        rest, rows = rest[packed.taken :], rows + packed.rows
    assert rows == len(items)


def test_misuse_is_an_error_of_the_call() -> None:
    packer = Packer("proto", "/encode", {})
    with pytest.raises(ValueError, match="2 kinds for 1 items"):
        packer.pack(REQUEST_ID, ["a"], bytes([Kind.TEXT]) * 2)
    with pytest.raises(ValueError, match="unclear cannot be packed"):
        packer.pack(REQUEST_ID, ["a"], bytes([Kind.UNCLEAR]))
    with pytest.raises(ValueError, match="no kind of item has the byte 0"):
        packer.pack(REQUEST_ID, ["a"], bytes(1))


FEW_DESCRIPTORS = """
import resource, sys
from casdk._rust import Kind, Packer, first_id_of
resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))
paths = [sys.argv[1]] * 500
for codec in ("proto", "json"):
    packed = Packer(codec, "/encode", {}).pack("0" * 32, paths, bytes([Kind.PATH]) * 500)
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
        packed = packer.pack(REQUEST_ID, [str(path)] * 4, bytes([Kind.PATH]) * 4)
        ran_meanwhile = ran.is_set()
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert packed.rows == 4
    assert ran_meanwhile


@pytest.mark.parametrize("whole", [False, True])
def test_sentences_are_packed_without_the_callers_code(whole: bool) -> None:
    """Where it would have to be run, `pack` does, which is called on a worker; what it raises is the item's error."""
    for codec in CODECS:
        packer = Packer(codec, "/encode", {}, whole=whole)  # type: ignore[arg-type]
        for item in ODD:
            items = [Document(text="a"), item]
            packed = packer.pack(REQUEST_ID, items, bytes([Kind.DOCUMENT]) * 2)
            assert list(packed.causes) == [at for at, _, _ in packed.failures]
            assert {type(cause) for cause in packed.causes.values()} <= {RuntimeError, TypeError}
            sentences = packer.pack_sentences(REQUEST_ID, items, bytes([Kind.DOCUMENT]) * 2)
            # What travels of it may be plain all the same: then nobody asked for the rest.
            assert sentences is None or (sentences.rows, packed.rows) == (2, 2)
