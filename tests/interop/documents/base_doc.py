"""Run by the interpreters of docarray 0.30 and later: its documents, read and written."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from casdk.documents import Document, DocumentArray, NamedScore
from casdk.documents import docarray as conversion
from casdk.documents.docarray import collect, to_docarray, write_back
from casdk.documents.recognise import hold_documents, recognise
from casdk.errors import InputTypeError, ReplyError
from docarray import BaseDoc, DocList, DocVec
from docarray.documents import AudioDoc, ImageDoc, TextDoc
from docarray.typing import AudioUrl, ImageBytes, ImageUrl, NdArray, TextUrl
from hypothesis import given, settings
from hypothesis import strategies as st

to_document = partial(conversion.to_document, Document)


class Scored(BaseDoc):
    text: str | None = None
    uri: str | None = None
    blob: bytes | None = None
    tensor: NdArray | None = None
    embedding: NdArray | None = None
    tags: dict[str, Any] | None = None
    scores: dict[str, Any] | None = None


class Plain(BaseDoc):
    text: str = ""
    bytes: ImageBytes | None = None
    url: ImageUrl | None = None


class Query(BaseDoc):
    text: str = ""
    embedding: NdArray | None = None
    matches: DocList[Scored] | None = None
    chunks: DocList[Plain] | None = None


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
fields = st.fixed_dictionaries(
    {},
    optional={
        "text": words,
        "uri": words,
        "blob": st.binary(min_size=1, max_size=6),
        "tags": st.dictionaries(words, words | st.integers() | st.none(), min_size=1, max_size=2),
    },
)


@pytest.mark.parametrize("kind", [Scored, Plain, Query, TextDoc, ImageDoc])
def test_recognise(kind):
    assert recognise(kind())
    assert hold_documents(["text", kind()])
    assert not recognise(kind)
    assert not recognise(DocList[kind]([kind()]))


def test_recognise_nothing_else():
    assert not hold_documents([Document(), "text", b"", np.zeros(1), {"text": "t"}])


# in


@settings(max_examples=200, deadline=None)
@given(fields)
def test_every_field_is_read(known):
    theirs = Scored(**known)
    content = {name: value for name, value in known.items() if name != "tags"}
    assert to_document(theirs) == Document(id=theirs.id, **content)
    assert to_document(theirs, whole=True) == Document(id=theirs.id, **known)


@settings(max_examples=50, deadline=None)
@given(fields, st.lists(fields, max_size=3))
def test_reading_changes_nothing(known, nested):
    theirs = Query(text=known.get("text", ""), matches=DocList[Scored]([Scored(**one) for one in nested]))
    before = state(theirs)
    for how in ({}, {"candidates": "matches"}, {"whole": True}):
        to_document(theirs, **how)
    assert state(theirs) == before


def state(document):
    """Return what is in a document, nested ones included."""
    if not isinstance(document, BaseDoc):
        return [state(one) for one in document] if isinstance(document, DocList) else document
    return {name: state(value) for name, value in vars(document).items()}


def test_other_names_of_fields():
    assert to_document(Plain(url="a.png"), whole=True).uri == "a.png"
    assert to_document(Plain(bytes=b"i"), whole=True).blob == b"i"
    assert type(to_document(Plain(bytes=b"i"), whole=True).blob) is bytes
    assert type(to_document(Plain(url="a.png"), whole=True).uri) is str
    picture = to_document(ImageDoc(bytes_=b"i", url="a.png"))
    assert (picture.blob, picture.uri) == (b"i", "a.png")


def test_what_leads_to_no_image_is_left_alone():
    class Odd(BaseDoc):
        url: TextUrl | AudioUrl | None = None
        embedding: NdArray | None = None

    text = to_document(TextDoc(text="t", bytes_=b"t", url="https://example.com/t.txt"))
    assert (text.text, text.blob, text.uri) == ("t", b"", "")
    assert to_document(AudioDoc(url="a.mp3", bytes_=b"a")).content is None
    assert to_document(Odd(url="a.txt")).uri == ""


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_arrays_travel(dtype):
    pixels = np.arange(24, dtype=dtype).reshape(2, 4, 3)
    ours = to_document(Scored(tensor=pixels, embedding=pixels[0, 0]), whole=True)
    for found, known in ((ours.tensor, pixels), (ours.embedding, pixels[0, 0])):
        assert type(found) is np.ndarray
        assert found.dtype == dtype
        assert np.array_equal(found, known)


def test_content_only():
    theirs = Query(text="q", embedding=np.zeros(2), matches=DocList[Scored]([Scored(text="m")]))
    assert to_document(theirs) == Document(id=theirs.id, text="q")
    assert [match.text for match in to_document(theirs, whole=True).matches] == ["m"]


def test_from_docarray():
    theirs = DocList[Query]([Query(text="q", chunks=DocList[Plain]([Plain(text="c")])), Query(text="r")])
    ours = DocumentArray.from_docarray(theirs)
    assert ours.texts == ["q", "r"]
    assert ours[0].chunks.texts == ["c"]
    assert [document.id for document in ours] == [document.id for document in theirs]


# refused


def test_no_place_for_the_result():
    with pytest.raises(InputTypeError, match="Plain has no field 'embedding'"):
        to_document(Plain(text="t"))
    with pytest.raises(InputTypeError, match="Plain has no field 'matches'"):
        to_document(Plain(text="t"), candidates="matches")
    with pytest.raises(InputTypeError, match="TextDoc has no field 'matches'"):
        write_back(TextDoc(text="t"), Document(matches=[Document()]), matches=True)


def test_views_of_a_docvec():
    class Row(BaseDoc):
        text: str
        embedding: Any = None  # of arrays docarray makes no column with numpy 2

    rows = DocVec[Row]([Row(text="t")])
    with pytest.raises(InputTypeError, match=r"\.to_doc_list\(\)"):
        to_document(rows[0])
    assert to_document(rows.to_doc_list()[0]).text == "t"


def test_no_docarray_of_ours():
    with pytest.raises(ImportError, match=r"docarray<0\.30"):
        to_docarray([Document(text="t")])


# out


@pytest.mark.parametrize("kind", [Scored, TextDoc])
def test_encode(kind):
    theirs = kind(text="t")
    ours = to_document(theirs)
    ours.embedding = np.ones(3, np.float32)
    write_back(theirs, ours)
    assert np.asarray(theirs.embedding).tolist() == [1, 1, 1]
    assert theirs.text == "t"


@pytest.mark.parametrize(("name", "kind"), [("matches", Scored), ("chunks", Plain)])
def test_rank(name, kind):
    candidates = [kind(text=text) for text in "abc"]
    theirs = Query(text="q", **{name: DocList[kind](candidates)})
    ours = to_document(theirs, candidates=name)
    travelling = getattr(ours, name)
    assert travelling[:, ["id", "text"]] == [["0", "1", "2"], ["a", "b", "c"]]
    setattr(ours, name, [travelling[n] for n in (2, 0, 1)])
    for place, document in enumerate(getattr(ours, name)):
        document.scores["clip_score"] = NamedScore(1 - place / 4, "softmax")
    write_back(theirs, ours, candidates=name)
    ranked = getattr(theirs, name)
    assert isinstance(ranked, DocList)
    assert ranked.doc_type is kind
    assert all(one is candidates[n] for one, n in zip(ranked, (2, 0, 1), strict=True))
    if kind is Scored:
        assert [one.scores["clip_score"] for one in ranked] == [
            {"value": value, "op_name": "softmax"} for value in (1.0, 0.75, 0.5)
        ]
    with pytest.raises(ReplyError, match="3 candidates were sent, 2 came back"):
        write_back(theirs, Document(**{name: getattr(ours, name)[:2]}), candidates=name)


def test_search():
    theirs = Query(text="q", matches=DocList[Scored]([Scored(text="old")]))
    ours = to_document(theirs)
    ours.embedding = np.zeros(2, np.float32)
    ours.matches = [
        Document(id="m1", text="she smiled", scores={"cosine": NamedScore(0.25)}, tags={"a": 1}),
        Document(id="m2", uri="apple.png", scores={"cosine": NamedScore(0.5)}),
    ]
    write_back(theirs, ours, matches=True)
    assert isinstance(theirs.matches, DocList)
    assert theirs.matches.doc_type is Scored
    first, second = theirs.matches
    assert (first.id, first.text, first.tags, first.scores) == (
        "m1",
        "she smiled",
        {"a": 1},
        {"cosine": {"value": 0.25}},
    )
    assert (second.id, second.text, second.uri) == ("m2", None, "apple.png")
    assert theirs.embedding.shape == (2,)


def test_matches_of_no_known_class():
    class Loose(BaseDoc):
        text: str
        embedding: NdArray | None = None
        matches: list[Any] | None = None

    with pytest.raises(InputTypeError, match=r"Loose\.matches must be a DocList"):
        write_back(Loose(text="q"), Document(matches=[Document(text="m")]), matches=True)


def test_collect():
    given = DocList[TextDoc]([TextDoc(text="a"), TextDoc(text="b")])
    for like in (given, list(given)):
        collected = collect(list(given), like)
        assert isinstance(collected, DocList)
        assert collected.doc_type is TextDoc
        assert all(one is other for one, other in zip(collected, given, strict=True))
    mixed = collect([given[0], Plain(text="c")], None)
    assert isinstance(mixed, DocList)
    assert [document.text for document in mixed] == ["a", "c"]
    assert collect([], given).doc_type is TextDoc
