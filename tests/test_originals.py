"""The caller's own Documents come back as the same objects, and ``errors=`` decides about the others."""

import numpy as np
import pytest
from casdk import Document, DocumentArray, EmptyItemError, EncodeResult, ItemTypeError, NotDoneError, TransportError
from casdk._calls.answers import Piece
from casdk._calls.options import Options
from casdk._calls.originals import Originals, are_ours, open_piece, present, write_embeddings
from casdk._calls.outcome import Outcome
from hypothesis import given
from hypothesis import strategies as st


class Refusing(Document):
    """A caller's own class that takes no embedding."""

    def __setattr__(self, name, value):
        if name == "embedding":
            raise RuntimeError("sealed")
        super().__setattr__(name, value)


def rows_of(count):
    return np.arange(count * 2, dtype=np.float32).reshape(count, 2)


def read(*chunks, as_documents=False, **how):
    """Read chunks as a call does, and keep what is in them."""
    originals, start = Originals([item for chunk in chunks for item in chunk], **how), 0
    for items in map(list, chunks):
        keep = originals.keep_as_documents if as_documents else originals.keep
        keep(items, originals.read(items, range(start, start + len(items))))
        start += len(items)
    return originals


items = st.lists(st.one_of(st.just("text"), st.builds(Document, text=st.just("a"))), max_size=6)


@given(st.lists(items, max_size=4))
def test_documents_are_kept_while_every_item_is_one(chunks):
    originals = read(*chunks)
    flat = [item for chunk in chunks for item in chunk]
    documents = all(isinstance(item, Document) for item in flat)
    assert originals.are_all_documents() is (documents and bool(flat))
    assert originals.all_from_caller is documents
    if documents:
        assert [id(item) for item in originals.array()] == [id(item) for item in flat]


@given(st.lists(items, max_size=4))
def test_all_items_become_documents_where_the_call_returns_them(chunks):
    originals = read(*chunks, as_documents=True)
    flat = [item for chunk in chunks for item in chunk]
    array = originals.array()
    assert isinstance(array, DocumentArray)
    assert [item.text for item in array] == [item.text if isinstance(item, Document) else item for item in flat]
    assert originals.all_from_caller is all(isinstance(item, Document) for item in flat)


def test_a_bad_item_has_its_place_among_the_documents():
    originals = read(["a", 7, "b"], as_documents=True)
    assert [document.text for document in originals.array()] == ["a", "", "b"]
    assert [document.text for document in originals.array(gone={1})] == ["a", "b"]


def test_a_call_that_returns_none_stores_the_first_chunk_only():
    originals = read([Document(text="a")], [Document(text="b")], as_documents=True, keeps_all=False)
    assert [document.text for document in originals.array()] == ["a"]


def test_no_items_are_documents_only_in_an_array_of_them():
    assert Originals(DocumentArray()).are_all_documents()
    assert not Originals([]).are_all_documents()


def test_what_is_many_is_made_on_a_worker():
    document = Document(text="a")
    assert not read([document] * 1000).are_many
    assert read([document] * 1001).are_many


@given(st.integers(0, 8).flatmap(lambda count: st.tuples(st.just(count), st.sets(st.integers(0, max(count - 1, 0))))))
def test_each_document_gets_its_row_and_those_without_one_stay(drawn):
    count, bad = drawn
    documents, rows = [Document(text="a") for _ in range(count)], rows_of(count)
    write_embeddings(documents, rows, bad)
    for position, document in enumerate(documents):
        if position in bad:
            assert document.embedding is None
        else:
            assert np.shares_memory(document.embedding, rows)
            np.testing.assert_array_equal(document.embedding, rows[position])


def test_a_class_that_takes_no_embedding_is_named_when_all_others_have_theirs():
    documents, rows = [Document(text="a"), Refusing(text="b"), Document(text="c")], rows_of(3)
    with pytest.raises(ItemTypeError, match="embedding") as refusal:
        write_embeddings(documents, rows, [], start=40)
    assert refusal.value.index == 41
    assert str(refusal.value.__cause__) == "sealed"
    assert refusal.value.partial is rows
    assert (refusal.value.start, refusal.value.done, refusal.value.total) == (40, 3, 3)
    np.testing.assert_array_equal(documents[2].embedding, rows[2])


def outcome_of(stopped=None, bad=(), left=()):
    errors = {index: EmptyItemError(index, "", "it is empty") for index in bad}
    return Outcome(3, errors, dict.fromkeys(left, "item"), stopped, sorted([*bad, *left]))


def test_rows_come_back_as_errors_wants_them():
    rows = rows_of(3)
    assert present(rows, outcome_of(), None, Options()) is rows
    left = present(rows, outcome_of(bad=[1]), None, Options(errors="skip"))
    np.testing.assert_array_equal(left, rows[[0, 2]])
    result = present(rows, outcome_of(bad=[1]), None, Options(errors="return"))
    assert type(result) is EncodeResult
    assert result.embeddings is rows
    assert [(type(error), error.index) for error in result.errors] == [(EmptyItemError, 1)]
    assert result.stopped is None


def test_what_stopped_a_call_has_what_was_finished():
    rows, stopped = rows_of(3), TransportError("gone")
    assert present(rows, outcome_of(stopped, left=[2]), None, Options()) is stopped
    assert stopped.partial is rows
    originals, stopped = read([Document(text=text) for text in "abc"]), TransportError("gone")
    assert present(rows, outcome_of(stopped, left=[2]), originals, Options()) is stopped
    assert [document.embedding is None for document in stopped.documents] == [False, False, True]


def test_errors_return_has_what_stopped_the_call_if_something_was_done():
    rows, stopped = rows_of(3), TransportError("gone")
    assert present(rows, outcome_of(stopped, left=[1, 2]), None, Options(errors="return")) is stopped
    stopped.done = 1
    result = present(rows, outcome_of(stopped, left=[1, 2]), None, Options(errors="return"))
    assert result.stopped is stopped
    assert [(type(error), error.index, error.cause) for error in result.errors] == [
        (NotDoneError, 1, stopped),
        (NotDoneError, 2, stopped),
    ]


def test_an_out_is_returned_itself():
    out = rows_of(3)
    assert present(out.view(), outcome_of(), None, Options(out=out)) is out


def piece_of(items, bad=(), start=0):
    piece = Piece(start, items)
    piece.rows, piece.bad = rows_of(len(items)), list(bad)
    piece.errors = [EmptyItemError(start + position, "", "it is empty") for position in reversed(bad)]
    return piece


def test_a_piece_of_texts_is_rows():
    piece = piece_of(["a", "b", "c"], [1])
    assert open_piece(piece, Options()) is piece.rows
    np.testing.assert_array_equal(open_piece(piece, Options(errors="skip")), piece.rows[[0, 2]])


def test_a_piece_of_documents_is_an_array_of_them():
    documents = [Document(text=text) for text in "abc"]
    piece = piece_of(documents, [1])
    found = open_piece(piece, Options(errors="skip"))
    assert type(found) is DocumentArray
    assert [document.text for document in found] == ["a", "c"]
    assert [document.embedding is None for document in documents] == [False, True, False]


def test_a_piece_says_where_it_began_and_what_is_bad_in_it():
    result = open_piece(piece_of(["a", "b", "c"], [0, 2], start=10), Options(errors="return"))
    assert type(result) is EncodeResult
    assert result.start == 10
    assert [error.index for error in result.errors] == [10, 12]


def test_whether_items_are_ours_is_told_by_their_types():
    class Lying:
        __class__ = Document

    assert are_ours([Document(), Refusing(text="a")])
    assert not are_ours([Document(), Lying()])
    assert are_ours([])
