"""What the brackets of a DocumentArray select, compared with lists and NumPy."""

import random
import re
import string

import numpy as np
import pytest
from casdk.documents import Document, DocumentArray, NamedScore
from casdk.documents.selectors import STEP
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp


def tree(depth, breadth=3, name=""):
    """Documents whose id is their way from the root: ``1m0c2``."""
    return DocumentArray(
        Document(
            id=f"{name}{position}",
            text=f"text of {name}{position}",
            matches=tree(depth - 1, breadth, f"{name}{position}m") if depth else (),
            chunks=tree(depth - 1, breadth, f"{name}{position}c") if depth else (),
        )
        for position in range(breadth)
    )


TREE = tree(2)


def ids(documents):
    return [document.id for document in documents]


# paths: the oracle never parses a path; it gets the steps, which are then written as one

bounds = st.none() | st.integers(-5, 5)
slices = st.builds(slice, bounds, bounds) | st.builds(
    slice, bounds, bounds, st.none() | st.sampled_from([-2, -1, 1, 2])
)
parts = st.none() | st.integers(-4, 4) | slices
steps = st.tuples(st.sampled_from("rmc"), parts)
paths = st.lists(steps, min_size=1, max_size=3)
layouts = st.randoms(use_true_random=False)


def written(path, layout: random.Random):
    def bound(value):
        return "" if value is None else str(value)

    def part(value):
        if value is None:
            return ""
        if isinstance(value, int):
            text = str(value)
        else:
            text = f"{bound(value.start)}:{bound(value.stop)}"
            text += "" if value.step is None else f":{value.step}"
        return f"[{text}]" if layout.random() < 0.7 else text

    return "".join(axis + part(value) for axis, value in path)


def reached(documents, path):
    """Every step is taken by each group of its own; groups are joined at the end."""
    groups = [list(documents)]
    for axis, part in path:
        name = {"m": "matches", "c": "chunks"}.get(axis)
        inner = groups if name is None else [list(getattr(document, name)) for group in groups for document in group]
        groups = [picked(group, part) for group in inner]
    return [document for group in groups for document in group]


def picked(group, part):
    if part is None:
        return group
    if isinstance(part, slice):
        return group[part]
    return [group[part]] if -len(group) <= part < len(group) else []


@given(st.lists(paths, min_size=1, max_size=3), layouts)
def test_paths(several, layout):
    path = "@" + ",".join(written(path, layout) for path in several)
    spaced = "".join(c + " " * layout.choice([0, 0, 1]) for c in path[1:])
    found = TREE["@" + spaced]
    assert type(found) is DocumentArray
    assert ids(found) == [document.id for path in several for document in reached(TREE, path)]
    assert all(one is other for one, other in zip(found, TREE[path], strict=True))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("@r", "0 1 2"),
        ("@m", "0m0 0m1 0m2 1m0 1m1 1m2 2m0 2m1 2m2"),
        ("@r,m", "0 1 2 0m0 0m1 0m2 1m0 1m1 1m2 2m0 2m1 2m2"),
        ("@m,c[0]", "0m0 0m1 0m2 1m0 1m1 1m2 2m0 2m1 2m2 0c0 1c0 2c0"),
        ("@r[0]mm[-1]", "0m0m2 0m1m2 0m2m2"),
        ("@r[-1]cm[1:]", "2c0m1 2c0m2 2c1m1 2c1m2 2c2m1 2c2m2"),
        ("@r1m0", "1m0"),
        ("@r[::-1]", "2 1 0"),
        ("@mmm", ""),
        ("@ r , m [ 0 ]", "0 1 2 0m0 1m0 2m0"),
        ("@r[9]", ""),
    ],
)
def test_paths_by_hand(path, expected):
    assert " ".join(ids(TREE[path])) == expected


def test_the_root_is_the_array_itself():
    assert TREE["@r"] is TREE


@pytest.mark.parametrize(
    "path",
    [
        "@",
        "@x",
        "@m,",
        "@,m",
        "@m,,c",
        "@m[",
        "@m[]",
        "@m[1:2:3:4]",
        "@m[--1]",
        "@m[1-2]",
        "@m]",
        "@m.c",
        "@.[a]",
        "@@m",
    ],
)
def test_broken_paths(path):
    with pytest.raises(ValueError, match=re.escape(repr(path))):
        TREE[path]


@given(st.text(string.ascii_lowercase[:13] + "rmc[]:-,019 @.", max_size=8))
def test_any_path_is_read_or_refused(text):
    try:
        found = TREE["@" + text]
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = None
        assert type(found) is DocumentArray
        assert all(STEP.match(one) for one in re.sub(r"\s", "", text).split(","))
    assert refusal is None or repr("@" + text) in refusal


def test_flatten():
    order = ids(tree(1, 2)[...])
    assert " ".join(order) == "0c0 0c1 0m0 0m1 0 1c0 1c1 1m0 1m1 1"
    assert len(TREE[...]) == 3 + 18 + 108
    shared = Document(id="s")
    assert ids(DocumentArray([Document(id="a", matches=[shared]), Document(id="b", chunks=[shared, shared])])[...]) == [
        "s",
        "a",
        "b",
    ]
    loop = Document(id="l")
    loop.matches.append(loop)
    assert ids(DocumentArray(loop)[...]) == ["l"]


# positions, ids, masks: the oracle is a list or a NumPy array of numbers

FLAT = DocumentArray(Document(id=str(number), weight=number) for number in range(7))
NUMBERS = np.arange(7)


def numbers(documents):
    return [int(document.weight) for document in documents]


@given(slices)
def test_slices(index):
    found = FLAT[index]
    assert type(found) is DocumentArray
    assert numbers(found) == list(range(7))[index]


@given(st.lists(st.integers(-7, 6)))
def test_positions(index):
    expected = NUMBERS[np.array(index, dtype=int)].tolist()
    assert numbers(FLAT[index]) == expected
    assert numbers(FLAT[np.array(index, dtype=np.int32)]) == expected
    assert numbers(FLAT[[np.int64(position) for position in index]]) == expected
    by_id = [str(position % 7) for position in index]
    assert numbers(FLAT[by_id]) == expected
    assert numbers(FLAT[np.array(by_id, dtype=str)]) == expected


@given(hnp.arrays(bool, 7))
def test_masks(mask):
    expected = NUMBERS[mask].tolist()
    for index in (mask, mask.tolist(), tuple(mask.tolist()), list(mask)):
        found = FLAT[index]
        assert type(found) is DocumentArray
        assert numbers(found) == expected


@given(st.integers(-7, 6))
def test_one(position):
    for index in (position, np.int8(position), str(position % 7), np.str_(position % 7)):
        assert FLAT[index] is list(FLAT)[position]


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (7, IndexError, "out of range"),
        ([0, 7], IndexError, "position 7 of 7 documents"),
        ([-8], IndexError, "position -8 of 7 documents"),
        ([True] * 6, IndexError, "a mask of 6 for 7 documents"),
        (np.ones(8, bool), IndexError, "a mask of 8 for 7 documents"),
        (np.ones((7, 1), bool), IndexError, "one dimension, not 2"),
        ("7", KeyError, "no document has the id '7'"),
        (["0", "7"], KeyError, "no document has the id '7'"),
        ([0, "1"], TypeError, "not by int, str"),
        ([0, True], TypeError, "not by bool, int"),
        ([0.0], TypeError, "not by float"),
        (np.array([0.0]), TypeError, "not by float"),
        (1.0, TypeError, "has no 1.0 here"),
        (True, TypeError, "has no True here"),
        (None, TypeError, "has no None here"),
    ],
)
def test_what_is_no_index(index, error, message):
    with pytest.raises(error, match=message):
        FLAT[index]


def test_the_first_of_equal_ids():
    twins = DocumentArray([Document(id="a", text="first"), Document(id="a", text="second")])
    assert twins["a"].text == "first"
    assert twins[["a", "a"]].texts == ["first", "first"]


# columns


@pytest.fixture
def scored():
    return DocumentArray(
        Document(
            id=str(number),
            text="abc"[number],
            tags={"colour": "red", "sizes": [number, {"deep": number}], "1": "one"},
            scores={"clip_score": NamedScore(number / 4, "softmax")},
            embedding=np.full(2, number, np.float32),
            tensor=np.full((1, 2, 3), number, np.uint8),
        )
        for number in range(3)
    )


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("id", ["0", "1", "2"]),
        ("text", ["a", "b", "c"]),
        ("content", ["a", "b", "c"]),
        ("content_type", ["text"] * 3),
        ("scores__clip_score", [NamedScore(n / 4, "softmax") for n in range(3)]),
        ("scores__clip_score__value", [0.0, 0.25, 0.5]),
        ("scores__clip_score__op_name", ["softmax"] * 3),
        ("scores__cosine", [None] * 3),
        ("scores__cosine__value", [None] * 3),
        ("tags__colour", ["red"] * 3),
        ("tags__sizes__0", [0, 1, 2]),
        ("tags__sizes__1__deep", [0, 1, 2]),
        ("tags__1", ["one"] * 3),
        ("tags__nothing__deeper", [None] * 3),
        ("embedding__0", None),
    ],
)
def test_columns(scored, column, expected):
    if expected is None:
        with pytest.raises(AttributeError):
            scored[:, column]
        return
    assert scored[:, column] == expected
    assert scored[:, [column]] == expected
    assert scored[1:, column] == expected[1:]
    assert scored[[2, 0], column] == [expected[2], expected[0]]
    assert scored[[False, True, False], column] == [expected[1]]
    assert scored["@r", column] == expected
    assert scored[0, column] == expected[0]
    assert scored["2", column] == expected[2]
    assert scored[:, [column, "id"]] == [expected, ["0", "1", "2"]]
    assert scored[:, (column, "id")] == [expected, ["0", "1", "2"]]
    assert scored[1, [column, "id"]] == [expected[1], "1"]


def test_columns_of_arrays(scored):
    assert scored[:, "embedding"].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert scored[:, "tensor"].shape == (3, 1, 2, 3)
    names, rows, texts = scored[1:, ["id", "embedding", "text"]]
    assert (names, rows.tolist(), texts) == (["1", "2"], [[1, 1], [2, 2]], ["b", "c"])


def test_columns_of_nothing():
    assert DocumentArray()[:, "text"] == []
    assert DocumentArray()["@m", ["text", "scores__cosine"]] == [[], []]


def test_unknown_columns(scored):
    for index in ("nosuch", "nosuch__deeper", "scores__clip_score__nosuch"):
        with pytest.raises(AttributeError, match="nosuch"):
            scored[:, index]
        with pytest.raises(AttributeError, match="nosuch"):
            scored[0, index]


def test_two_ids_are_no_column(scored):
    assert ids(scored["0", "2"]) == ["0", "2"]
    scored[0].id = "text"
    assert ids(scored["text", "text"]) == ["text", "text"]


def test_the_page(scored):
    root = DocumentArray(Document(text="root", matches=scored))
    assert root["@m", ["text", "scores__clip_score__value"]] == [["a", "b", "c"], [0.0, 0.25, 0.5]]
    assert str(root["@m", ["text", "scores__clip_score"]]).startswith("[['a', 'b', 'c'], [{'value': 0.0, 'op_name'")


# assignment


def test_assigning_columns(scored):
    scored[:, "text"] = ["x", "y", "z"]
    assert scored.texts == ["x", "y", "z"]
    scored[1:, "text"] = "same"
    assert scored.texts == ["x", "same", "same"]
    scored[[0, 2], ["text", "uri"]] = [["p", "q"], ["p.png", "q.png"]]
    assert (scored.texts, scored.uris) == (["p", "same", "q"], ["p.png", "", "q.png"])
    scored["1", "text"] = "by id"
    scored[0, "uri"] = "by position"
    scored[2, ["text", "uri"]] = ["t", "u"]
    assert (scored.texts, scored.uris) == (["p", "by id", "t"], ["by position", "", "u"])
    scored[:, "embedding"] = np.zeros((3, 4), np.float32)
    assert scored.embeddings.shape == (3, 4)
    scored[:, "embedding"] = None
    assert scored.embeddings is None
    scored[np.array([True, False, True]), "tags"] = [{"a": 1}, {"a": 2}]
    assert scored[:, "tags__a"] == [1, None, 2]


def test_assigning_deeper(scored):
    scored[:, "tags__colour"] = ["red", "green", "blue"]
    assert scored[:, "tags__colour"] == ["red", "green", "blue"]
    scored[:, "tags__new"] = 1
    assert scored[0].tags["new"] == 1
    scored[:, "tags__sizes__0"] = [7, 8, 9]
    assert scored[:, "tags__sizes__0"] == [7, 8, 9]
    scored[:, "scores__clip_score__value"] = [1.0, 2.0, 3.0]
    assert scored[1].scores["clip_score"] == NamedScore(2.0, "softmax")
    with pytest.raises(KeyError, match="scores__cosine is not there"):
        scored[:, "scores__cosine__value"] = 1.0
    with pytest.raises(AttributeError, match="nosuch"):
        scored[:, "nosuch"] = 1


def test_assigning_along_a_path():
    documents = tree(1, 2)
    documents["@m", "text"] = ["w", "x", "y", "z"]
    assert [document.matches.texts for document in documents] == [["w", "x"], ["y", "z"]]
    documents["@r,c", "text"] = "same"
    assert set(documents["@r,c", "text"]) == {"same"}
    assert documents["@m", "text"] == ["w", "x", "y", "z"]


def test_assigning_documents(scored):
    new = [Document(id=f"n{number}") for number in range(3)]
    scored[0] = new[0]
    scored["1"] = new[1]
    scored[-1:] = [new[2]]
    assert all(one is other for one, other in zip(scored, new, strict=True))
    scored[[2, 0]] = [Document(id="a"), Document(id="b")]
    assert ids(scored) == ["b", "n1", "a"]
    scored[["n1"]] = Document(id="c")
    scored[np.array([True, False, False])] = [Document(id="d")]
    assert ids(scored) == ["d", "c", "a"]
    scored[1:] = []
    assert ids(scored) == ["d"]


@pytest.mark.parametrize(
    ("index", "value", "error", "message"),
    [
        ((slice(None), "text"), ["x"], ValueError, "1 values for 3"),
        ((slice(None), ["text", "uri"]), [["x"] * 3], ValueError, "1 values for 2"),
        ([0, 1], [Document()], ValueError, "1 values for 2"),
        ("nosuch", Document(), KeyError, "nosuch"),
        ("@m", [Document()], TypeError, "has no '@m' here"),
        (1.5, Document(), TypeError, "has no 1.5 here"),
        (True, Document(), TypeError, "has no True here"),
        ("0", "text", TypeError, "not str"),
        ([0], ["text"], TypeError, "not str"),
    ],
)
def test_what_cannot_be_assigned(scored, index, value, error, message):
    before = ids(scored), scored.texts
    with pytest.raises(error, match=message):
        scored[index] = value
    assert (ids(scored), scored.texts) == before


@pytest.mark.parametrize(
    ("index", "left"),
    [
        (0, "12"),
        (-1, "01"),
        (slice(1, None), "0"),
        ("1", "02"),
        ([0, 2, 0], "1"),
        (["2", "0"], "1"),
        (np.array([True, False, True]), "1"),
    ],
)
def test_deleting(scored, index, left):
    del scored[index]
    assert "".join(ids(scored)) == left


@pytest.mark.parametrize(("index", "error"), [("9", KeyError), (3, IndexError), ([3], IndexError), ("@m", TypeError)])
def test_what_cannot_be_deleted(scored, index, error):
    with pytest.raises(error):
        del scored[index]
    assert len(scored) == 3
