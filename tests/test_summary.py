"""The tables that `DocumentArray.summary` prints."""

import numpy as np
import pytest
from casdk.documents import Document, DocumentArray, NamedScore

PAGE = """\
╭──────────────────────────── Documents Summary ─────────────────────────────╮
│                                                                            │
│   Length                        6                                          │
│   Homogenous Documents          False                                      │
│   4 Documents have attributes   ('id', 'mime_type', 'uri', 'embedding')    │
│   1 Document has attributes     ('id', 'mime_type', 'text', 'embedding')   │
│   1 Document has attributes     ('id', 'embedding')                        │
│                                                                            │
╰────────────────────────────────────────────────────────────────────────────╯
╭────────────────────── Attributes Summary ───────────────────────╮
│                                                                 │
│   Attribute   Data type      #Unique values   Has empty value   │
│  ─────────────────────────────────────────────────────────────  │
│   embedding   ('ndarray',)   6                False             │
│   id          ('str',)       6                False             │
│   mime_type   ('str',)       5                False             │
│   text        ('str',)       2                False             │
│   uri         ('str',)       4                False             │
│                                                                 │
╰─────────────────────────────────────────────────────────────────╯
"""
"""As the Client API page prints it."""


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")


def test_the_page(capsys):
    documents = DocumentArray(
        [
            Document(text="she smiled, with pain", mime_type="text/plain"),
            Document(uri="apple.png", mime_type="image/png"),
            Document(),
            Document(uri="apple.png", mime_type="image/x-png"),
            Document(uri="https://example.com/favicon.png", mime_type="image/png"),
            Document(uri="data:image/gif;base64,R0lGODlhEAAQ", mime_type="image/gif"),
        ]
    )
    documents.embeddings = np.zeros((6, 512), np.float32)
    documents.summary()
    assert capsys.readouterr().out == PAGE


def test_alike(capsys):
    documents = DocumentArray([Document(text="a", matches=[Document()], scores={"a": NamedScore(1.0)}) for _ in "ab"])
    documents.summary()
    overview, details = capsys.readouterr().out.split("Attributes Summary")
    assert "Homogenous Documents      True" in overview
    assert "Has nested Documents in   ('matches',)" in overview
    assert "Common Attributes         ('id', 'text', 'scores', 'matches')" in overview
    assert [line.strip(" │") for line in details.splitlines()[4:-2]] == [
        "id          ('str',)             2                False",
        "matches     ('DocumentArray',)   2                False",
        "scores      ('dict',)            2                False",
        "text        ('str',)             1                False",
    ]


def test_missing_values_and_mixed_types(capsys):
    documents = DocumentArray([Document(id="0", tensor=np.zeros(1)), Document(id=""), Document(id="")])
    documents.summary()
    out = capsys.readouterr().out
    assert "1 Document has one attribute" not in out
    assert "2 Documents have no attribute   ()" in out
    assert "1 Document has attributes       ('id', 'tensor')" in out
    assert "tensor      ('NoneType', 'ndarray')   3                True" in out


def test_nothing(capsys):
    DocumentArray().summary()
    out = capsys.readouterr().out
    assert "Length                 0" in out
    assert "Homogenous Documents   False" in out
    assert "Attributes Summary" not in out


def test_values_are_not_markup(capsys):
    DocumentArray([Document(id="[red]", text="[/nonsense]")]).summary()
    assert "Common Attributes      ('id', 'text')" in capsys.readouterr().out
