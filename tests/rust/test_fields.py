"""The fields of a Document by name, whatever its class makes of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from casdk import Document
from casdk._rust import FIELDS, Kind, Packer, classify
from oracle import (
    PNG,
    REQUEST_ID,
    documents_of,
    pack,
)


def test_a_kind_of_document_may_have_fields_of_its_own() -> None:
    class Mine(Document):
        first: str = "first"

        @property
        def text(self) -> str:  # type: ignore[override]
            return f"{self.first} {self.tags['name']}"

    class Same(Document):
        pass

    items = [Mine(id="a", tags={"name": "b"}), Same(id="c", text="d", weight=2.0), Document(id="e", text="f")]
    packer = Packer("proto", "/encode", {})
    assert packer.pack_sentences(REQUEST_ID, items, bytes([Kind.DOCUMENT]) * 3) is None
    packed = packer.pack(REQUEST_ID, items, bytes([Kind.DOCUMENT]) * 3)
    assert packed.failures == []
    assert [(d.id, d.text, d.weight) for d in documents_of(packed)] == [
        ("a", "first b", 0.0),
        ("c", "d", 2.0),
        ("e", "f", 0.0),
    ]


def test_every_field_is_read_by_its_name() -> None:
    assert sorted(FIELDS) == sorted(Document.__struct_fields__)
    given: dict[str, Any] = {
        "id": "an id",
        "text": "a text",
        "mime_type": "text/x",
        "parent_id": "above",
        "modality": "text",
        "granularity": 1,
        "adjacency": 2,
        "weight": 0.5,
        "offset": 0.25,
        "location": [1.0, 2.0],
        "uri": "somewhere",
    }
    packed = Packer("proto", "/encode", {}, whole=True).pack(REQUEST_ID, [Document(**given)], bytes([Kind.DOCUMENT]))
    (found,) = documents_of(packed)
    assert {name: list(found.location) if name == "location" else getattr(found, name) for name in given} == given


def test_a_field_of_another_type_is_named_with_it() -> None:
    for name, value in (("weight", "heavy"), ("granularity", -1), ("adjacency", 2**32), ("location", 7), ("uri", 7)):
        document = Document(text="a")
        setattr(document, name, value)
        packer = Packer("proto", "/encode", {}, whole=True)
        [(at, kind, reason)] = packer.pack(REQUEST_ID, [document], bytes([Kind.DOCUMENT])).failures
        assert (at, kind) == (0, "type")
        assert name in reason


@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes on Unix alone")
def test_the_name_of_a_file_that_is_no_utf8_is_found(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.png"
    with open(name, "wb") as file:
        file.write(PNG)
    item = os.fsdecode(name)
    assert classify([item]) == bytes([Kind.PATH])
    (found,) = documents_of(pack([item]))
    assert found.blob == PNG
    (found,) = documents_of(pack([Document(uri=item)]))
    assert found.blob == PNG
