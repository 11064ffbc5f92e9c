"""Run by the interpreter of docarray 0.21's environment: the same brackets and tables, and its documents in and out."""

import io
import re
from contextlib import redirect_stdout
from functools import partial

import docarray
import numpy as np
import pytest
from casdk.documents import Document, DocumentArray, NamedScore
from casdk.documents import docarray as conversion
from casdk.documents.docarray import collect, to_docarray, write_back
from casdk.documents.recognise import hold_documents, recognise
from casdk.errors import ReplyError
from docarray.score import NamedScore as TheirScore
from hypothesis import given, settings
from hypothesis import strategies as st

to_document = partial(conversion.to_document, Document)

# the same documents, made in both libraries

words = st.text("ab c", min_size=1, max_size=3)
scores = st.dictionaries(st.sampled_from(["cosine", "clip_score"]), st.floats(-1, 1, allow_subnormal=False), max_size=2)
tags = st.fixed_dictionaries({}, optional={"a": words | st.integers(1, 9), "b": st.fixed_dictionaries({"c": words})})
FIELDS = {
    "text": words,
    "uri": st.sampled_from(["a.png", "b.jpg", "https://example.com/c"]),
    "mime_type": st.sampled_from(["text/plain", "image/png"]),
    "weight": st.sampled_from([0.25, 2.0]),
    "modality": words,
    "location": st.lists(st.floats(0, 1), min_size=1, max_size=2),
    "scores": scores,
    "tags": tags,
}
flat = st.fixed_dictionaries({}, optional=FIELDS)
nested = st.recursive(
    flat,
    lambda inner: st.builds(
        lambda fields, matches, chunks: fields | {"matches": matches, "chunks": chunks},
        flat,
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=2),
    ),
    max_leaves=12,
)
plans = st.lists(nested, max_size=4)


class Numbered:
    """Makes documents whose ids say in which order they were made."""

    def __init__(self, document, array, score):
        self.document, self.array, self.score, self.count = document, array, score, 0

    def make(self, plans):
        return self.array([self.one(plan) for plan in plans])

    def one(self, plan):
        self.count += 1
        fields = {name: value for name, value in plan.items() if name not in ("scores", "matches", "chunks")}
        made = self.document(id=f"id{self.count}", **fields)
        if "mime_type" not in fields:
            made.mime_type = ""  # docarray guesses it
        for name, value in plan.get("scores", {}).items():
            made.scores[name] = self.score(value=value)
        for name in ("matches", "chunks"):
            if plan.get(name):
                setattr(made, name, self.make(plan[name]))
        return made


def both(plans):
    ours = Numbered(Document, DocumentArray, NamedScore).make(plans)
    theirs = Numbered(docarray.Document, docarray.DocumentArray, TheirScore).make(plans)
    return ours, theirs


def plain(value):
    if isinstance(value, (Document, docarray.Document)):
        return value.id
    if isinstance(value, (NamedScore, TheirScore)):
        return value.value
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (DocumentArray, docarray.DocumentArray, list)):
        return [plain(inner) for inner in value]
    return value


# brackets

parts = st.sampled_from(["", "[0]", "[1:]", "[:2]", "[-2:]", "[::2]", "0", "1:"])
paths = st.lists(
    st.lists(st.tuples(st.sampled_from("rmc"), parts).map("".join), min_size=1, max_size=3).map("".join),
    min_size=1,
    max_size=3,
).map(lambda several: "@" + ",".join(several))
columns = st.sampled_from(
    [
        *("id", "text", "uri", "mime_type", "weight", "modality", "location", "adjacency", "granularity", "content"),
        *("scores__cosine", "scores__cosine__value", "tags__a", "tags__b__c", "tags"),
    ]
)


def set_depths(documents, granularity=0, adjacency=0):
    """What docarray does when documents are nested: it numbers the levels, and leaves the deeper ones as they are."""
    for document in documents:
        document.granularity, document.adjacency = granularity, adjacency
        set_depths(document.matches, 0, 1)
        set_depths(document.chunks, 1, 0)


@settings(max_examples=300, deadline=None)
@given(plans, paths)
def test_paths(plans, path):
    ours, theirs = both(plans)
    assert plain(ours[path]) == plain(theirs[path])


@settings(max_examples=200, deadline=None)
@given(plans, paths, columns, columns)
def test_columns(plans, path, first, second):
    ours, theirs = both(plans)
    set_depths(ours)
    assert plain(ours[:, first]) == plain(theirs[:, first])
    assert plain(ours[:, [first]]) == plain(theirs[:, [first]])
    assert plain(ours[path, first]) == plain(theirs[path, first])
    if theirs[path]:  # of nothing docarray gives no columns at all, so that it cannot be unpacked
        assert plain(ours[path, [first, second]]) == plain(theirs[path, [first, second]])
    for document, other in zip(ours, theirs, strict=True):
        if "__" not in first:  # of a single document docarray reads plain fields only
            assert plain(ours[document.id, first]) == plain(theirs[other.id, first])


@settings(max_examples=100, deadline=None)
@given(plans, st.data())
def test_choices(plans, data):
    ours, theirs = both(plans)
    count = len(ours)
    masks = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    assert plain(ours[...]) == plain(theirs[...])
    assert plain(ours[1:]) == plain(theirs[1:])
    if count:
        positions = data.draw(st.lists(st.integers(-count, count - 1), min_size=1))
        ids = [ours[position].id for position in positions]
        for index in (masks, np.array(masks), positions, ids, positions[0], ids[0]):
            if isinstance(index, np.ndarray) and count == 1:
                continue  # docarray squeezes an array of one to none
            assert plain(ours[index]) == plain(theirs[index])


@settings(max_examples=100, deadline=None)
@given(plans, paths, words)
def test_assignment(plans, path, word):
    ours, theirs = both(plans)
    ours[:, "text"] = theirs[:, "text"] = [f"{word}{n}" for n in range(len(ours))]
    ours["@r,m", "uri"] = theirs["@r,m", "uri"] = word
    assert plain(ours[..., ["text", "uri"]] if ours else []) == plain(theirs[..., ["text", "uri"]] if theirs else [])


def test_embeddings():
    ours, theirs = both([{"text": "a"}, {"text": "b"}])
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    ours.embeddings = theirs.embeddings = matrix
    assert np.array_equal(ours[:, "embedding"], theirs[:, "embedding"])
    ours_id, ours_rows = ours[:, ["id", "embedding"]]
    theirs_id, theirs_rows = theirs[:, ["id", "embedding"]]
    assert ours_id == theirs_id
    assert np.array_equal(ours_rows, theirs_rows)
    ours.embeddings = theirs.embeddings = None
    assert ours.embeddings is theirs.embeddings is None


@pytest.mark.parametrize("path", ["@x", "@", "@m,", "@m[1:2:x]", "@mz"])
def test_broken_paths(path):
    ours, theirs = both([{"text": "a"}])
    for documents in (ours, theirs):
        with pytest.raises(ValueError, match="path"):
            documents[path]


# tables


def cells(summarise):
    out = io.StringIO()
    with redirect_stdout(out):
        summarise()
    tables = {}
    for line in out.getvalue().splitlines():
        if title := re.search(r"─ (.*?) ─", line):
            table = tables.setdefault(title[1], [])
            continue
        row = [cell.strip() for cell in re.split(r"\s{2,}", line.strip("│ ")) if cell.strip()]
        if row and row[0] not in ("Type", "Multimodal dataclass") and not row[0].startswith(("╰", "──")):
            table.append(row)
    return tables


def as_ours(row):
    """docarray names its own classes, in the order of a set; of equal values that cannot be hashed each counts."""
    row = [re.sub("ChunkArray|MatchArray", "DocumentArray", cell).replace("defaultdict", "dict") for cell in row]
    if len(row) == 4 and row[1].startswith("("):
        row[1] = str(tuple(sorted(set(re.findall(r"'(\w+)'", row[1])))))
    return tuple(row)


@settings(max_examples=100, deadline=None)
@given(plans, st.booleans())
def test_summary(plans, embedded):
    ours, theirs = both(plans)
    if embedded and len(ours):
        ours.embeddings = theirs.embeddings = np.ones((len(ours), 2))
    set_depths(ours)
    expected = {title: [as_ours(row) for row in rows] for title, rows in cells(theirs.summary).items()}
    found = {title: [as_ours(row) for row in rows] for title, rows in cells(ours.summary).items()}
    assert found == expected


# in and out


def test_recognise():
    assert recognise(docarray.Document())
    assert hold_documents(["text", docarray.Document()])
    assert not recognise(Document())
    assert not recognise("text")
    assert not recognise(docarray.DocumentArray())
    assert not recognise(docarray.Document)


@settings(max_examples=100, deadline=None)
@given(plans)
def test_there_and_back(plans):
    ours, theirs = both(plans)
    assert without_numbers(DocumentArray.from_docarray(theirs)) == ours
    made = ours.to_docarray()
    assert isinstance(made, docarray.DocumentArray)
    for document in ours[...]:
        if document.uri and not document.mime_type:
            document.mime_type = docarray.Document(uri=document.uri).mime_type  # docarray guesses it
    assert without_numbers(DocumentArray.from_docarray(made)) == ours


def without_numbers(documents):
    """Take away what docarray writes to a document when it is put into another."""
    for document in documents[...]:
        document.parent_id, document.granularity, document.adjacency = "", 0, 0
    return documents


def test_arrays_travel():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    row = np.ones(4, np.float32)
    theirs = docarray.Document(tensor=pixels, embedding=row)
    ours = to_document(theirs, whole=True)
    assert ours.tensor is not None
    assert np.shares_memory(ours.tensor, pixels)
    assert ours.embedding.dtype == np.float32
    back = to_docarray(DocumentArray(ours))[0]
    assert np.array_equal(back.tensor, pixels)
    assert np.array_equal(back.embedding, row)
    assert to_document(docarray.Document(tensor=[[1, 2]])).tensor.tolist() == [[1, 2]]


def test_the_first_content_is_kept():
    document = Document(text="t", blob=b"b", tensor=np.zeros(1), uri="u")
    made = to_docarray(DocumentArray(document))[0]
    assert (made.text, made.blob, made.tensor, made.uri) == ("t", b"", None, "u")


def test_content_only():
    theirs = docarray.Document(
        text="t",
        tags={"a": 1},
        embedding=np.zeros(2),
        matches=[docarray.Document(text="m")],
        scores={"a": TheirScore(value=1.0)},
    )
    assert to_document(theirs) == Document(id=theirs.id, text="t")


def test_reading_changes_nothing():
    theirs = docarray.Document(uri="a.png", matches=[docarray.Document(blob=b"m"), docarray.Document()])
    before = {name: value for name, value in vars(theirs._data).items() if not name.startswith("_")}
    to_document(theirs)
    to_document(theirs, candidates="matches")
    to_document(theirs, whole=True)
    assert {name: value for name, value in vars(theirs._data).items() if not name.startswith("_")} == before


def test_encode():
    theirs = docarray.Document(text="t", tags={"a": 1})
    ours = to_document(theirs)
    ours.embedding = np.ones(3, np.float32)
    write_back(theirs, ours)
    assert theirs.embedding.tolist() == [1, 1, 1]
    assert (theirs.text, theirs.tags) == ("t", {"a": 1})


@pytest.mark.parametrize("name", ["matches", "chunks"])
def test_rank(name):
    candidates = [docarray.Document(id="same", text=text, tags={"t": text}) for text in "abc"]
    theirs = docarray.Document(uri="a.png", **{name: candidates})
    ours = to_document(theirs, candidates=name)
    travelling = getattr(ours, name)
    assert travelling[:, ["id", "text"]] == [["0", "1", "2"], ["a", "b", "c"]]
    setattr(ours, name, [travelling[n] for n in (2, 0, 1)])
    for place, document in enumerate(getattr(ours, name)):
        document.scores["clip_score"] = NamedScore(1 - place / 4, "softmax")
        document.scores["clip_score_cosine"] = NamedScore(0.0, "cosine")
    write_back(theirs, ours, candidates=name)
    ranked = getattr(theirs, name)
    expected = [candidates[2], candidates[0], candidates[1]]
    assert all(one is other for one, other in zip(ranked, expected, strict=True))
    assert ranked[:, ["text", "scores__clip_score__value", "scores__clip_score__op_name"]] == [
        ["c", "a", "b"],
        [1.0, 0.75, 0.5],
        ["softmax"] * 3,
    ]
    assert ranked[:, "tags__t"] == ["c", "a", "b"]
    assert ranked[:, "scores__clip_score_cosine__value"] == [0.0] * 3
    assert theirs.embedding is None
    with pytest.raises(ReplyError, match="3 candidates were sent, 2 came back"):
        write_back(theirs, Document(**{name: getattr(ours, name)[:2]}), candidates=name)


def test_search():
    theirs = docarray.Document(text="q", matches=[docarray.Document(text="old")])
    ours = to_document(theirs)
    assert ours.matches == []
    ours.embedding = np.zeros(2, np.float32)
    ours.matches = [
        Document(id="m1", text="she smiled", scores={"cosine": NamedScore(0.096)}, tags={"a": 1}),
        Document(id="m2", uri="apple.png", scores={"cosine": NamedScore(0.799)}, adjacency=1),
    ]
    write_back(theirs, ours, matches=True)
    assert theirs.matches[:, ["id", "text", "uri", "scores__cosine__value"]] == [
        ["m1", "m2"],
        ["she smiled", ""],
        ["", "apple.png"],
        [0.096, 0.799],
    ]
    assert str(theirs.matches[:, "scores__cosine"]) == "[{'value': 0.096}, {'value': 0.799}]"
    assert theirs.matches[0].adjacency == 1
    assert theirs.embedding.shape == (2,)


def test_collect():
    content = docarray.DocumentArray([docarray.Document(text="a"), docarray.Document(text="b")])
    collected = collect(list(content), content)
    assert isinstance(collected, docarray.DocumentArray)
    assert all(one is other for one, other in zip(collected, content, strict=True))
    assert collect([], content) == docarray.DocumentArray()
