"""Documents and columns of odd kinds, on three schemes, sync and async."""

import math
import threading

import pandas as pd
import pyarrow as pa
import pytest
from casdk import Client, Document, DocumentArray, ItemTypeError
from odd import PIXELS, OwnError, alike, turns_of

TYPE, EMPTY = "ItemTypeError", "EmptyItemError"


@pytest.fixture(scope="module")
def turns(server, expected):
    yield from turns_of(lambda scheme: Client(server.address(scheme)), expected)


def failing(*_, **__):
    raise OwnError


class Refusing(Document):
    def __setattr__(self, name, value):
        raise OwnError


@pytest.mark.parametrize("verb", ["encode", "index", "search"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_document_that_takes_no_result(turns, verb, at):
    """It is the error of its item, and all others have theirs."""
    for turn in turns:
        if verb == "search":  # in what is there, whichever tests have run before
            turn.call("index", [Document(text="a")])
        documents = [Document(text=text) for text in "abc"]
        documents[at] = odd = Refusing(text="abc"[at])
        with pytest.raises(ItemTypeError, match=r"setting its (embedding|matches) raised OwnError") as caught:
            turn.call(verb, documents)
        assert (caught.value.index, caught.value.item, type(caught.value.cause)) == (at, odd, OwnError)
        others = [document for document in documents if document is not odd]
        if verb == "search":
            assert all(document.matches for document in others)
        else:
            assert [turn.name_of(document.embedding) for document in others] == [
                text for text in "abc" if text != odd.text
            ]
        if verb == "encode":
            assert [turn.name_of(row) for row in caught.value.partial] == ["a", "b", "c"]


def test_a_ranked_document_that_takes_no_result(turns):
    for turn in turns:
        documents = [Document(text="a", matches=[Document(text=text) for text in "bc"]) for _ in range(3)]
        documents[1] = type("Odd", (Document,), {})(text="a", matches=documents[1].matches)
        type(documents[1]).__setattr__ = failing
        with pytest.raises(ItemTypeError, match="setting its matches raised OwnError") as caught:
            turn.call("rank", documents)
        assert caught.value.index == 1
        assert all(match.scores for document in documents[::2] for match in document.matches)


def test_a_document_that_is_shared_and_one_that_changes(turns):
    """By another thread, all the time."""
    shared, over = Document(text="a", chunks=[Document(text="b")]), threading.Event()
    shared.chunks[0].chunks = DocumentArray([shared])

    def change():
        while not over.is_set():
            shared.tags["key"] = list(range(50))
            shared.tags.clear()
            shared.tags = {}

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for turn in turns:
            for _ in range(10):
                assert turn.encode([shared, "b", shared]) == ["a", "b", "a"]
    finally:
        over.set()
        thread.join()


COLUMNS = {
    "nulls alone": (lambda: pa.nulls(2), [EMPTY] * 2),
    "a dictionary": (lambda: pa.array(["a", None, "b"]).dictionary_encode(), ["a", EMPTY, "b"]),
    "a view": (lambda: pa.array(["a", None]).cast(pa.string_view()), ["a", EMPTY]),
    "chunks, one empty": (lambda: pa.chunked_array([["a"], [], ["b"]], pa.string()), ["a", "b"]),
    "runs": (lambda: pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"]), ["a", "a", "b"]),
    "a slice": (lambda: pa.array(list("xxab"))[2:], ["a", "b"]),
    "lists": (lambda: pa.array([["a"], ["b"]]), [TYPE] * 2),
    "structs": (lambda: pa.array([{"a": "b"}]), [TYPE]),
    "a text that is none": (
        lambda: pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xff", b"c"]).buffers()),
        ["a", TYPE, "c"],
    ),
    "a union": (
        lambda: pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array(["a", "x"]), pa.array(["y", "b"])]),
        ["a", "b"],
    ),
    "nulls of pandas": (lambda: pd.Series(["a", math.nan, pd.NaT, pd.NA, None, 1]), ["a", *[EMPTY] * 4, TYPE]),
    "categories": (lambda: pd.Series(["a", None, "b"], dtype="category"), ["a", EMPTY, "b"]),
    "one label twice": (lambda: pd.Series(["a", "b"], index=[0, 0]), ["a", "b"]),
    "arrays": (lambda: pd.Series([PIXELS, PIXELS]), ["picture"] * 2),
    "labels of two": (lambda: pd.MultiIndex.from_tuples([("a", "b")]), [TYPE]),
    "sparse": (lambda: pd.Series(pd.arrays.SparseArray(["a", "b"])), ["a", "b"]),
    "a subclass": (lambda: type("Odd", (pd.Series,), {"__len__": lambda _: 3, "isna": failing})(["a"]), ["a"]),
}


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("reader", ["caller", "thread"])
def test_odd_columns(turns, kind, reader):
    make, becomes = COLUMNS[kind]
    assert alike(turns, lambda turn: turn.encode(make(), reader=reader)) == becomes
    assert alike(turns, lambda turn: turn.encode(make(), batch_size=1)) == becomes
