"""The pieces of a stream come in input order, whatever the order of the replies."""

import json

import numpy as np
import pytest
from casdk._calls.options import Options
from casdk._calls.outcome import Sent
from casdk._calls.pieces import Pieces
from casdk._rust import scan
from casdk.errors import ItemTypeError, ReplyError

REQUEST_ID = "0123456789abcdef" * 2


def reply_of(rows, width=3):
    """A reply that has a row for each of these positions of the request: as many times the position."""
    data = [{"id": f"{REQUEST_ID[:24]}{row:08x}", "embedding": [float(row)] * width} for row in rows]
    said = {"header": {"requestId": REQUEST_ID, "status": None}, "routes": [], "data": data}
    return scan("json", json.dumps(said).encode())


def place(pieces, indices, rows=None, width=3):
    items = [f"text {index}" for index in indices]
    found = range(len(items)) if rows is None else rows
    return pieces.place(indices, items, reply_of(found, width), None, REQUEST_ID)


@pytest.fixture
def pieces():
    """Three chunks of two items were read."""
    pieces = Pieces(None, Options())
    for start in (0, 2, 4):
        pieces.opened(start, [f"text {start}", f"text {start + 1}"])
    return pieces


def test_a_piece_waits_for_those_before_it(pieces):
    assert place(pieces, range(2, 4)) == []
    assert list(pieces.ready()) == []
    assert pieces.held_back == (1, 2 * 3 * 4)
    assert pieces.urgent(0)
    assert not pieces.urgent(4)
    place(pieces, range(2))
    assert [piece.start for piece in pieces.ready()] == [0, 2]
    assert pieces.held_back == (0, 0)
    assert pieces.urgent(5)


def test_a_piece_says_what_was_sent_for_it(pieces):
    sent = Sent()
    for start, size, crops, fidelity in ((0, 100, 1, None), (2, 200, 2, None), (1, 50, 0, 0.9995)):
        sent.fidelity = fidelity
        if start:
            sent.ask(7)
        pieces.answered(start, size, crops, sent)
    place(pieces, range(2))
    (piece,) = pieces.ready()
    assert (piece.sent.bytes, piece.sent.cropped, piece.sent.fidelity) == (157, 1, 0.9995)


def test_rows_of_several_requests_come_together(pieces):
    place(pieces, [1])
    assert list(pieces.ready()) == []
    place(pieces, [0])
    (piece,) = pieces.ready()
    np.testing.assert_array_equal(piece.rows, np.zeros((2, 3), np.float32))
    assert piece.items == ["text 0", "text 1"]


def test_what_has_no_result_is_nan(pieces):
    error = ItemTypeError(1, "text 1", "it is bad", None)
    pieces.refused(error)
    place(pieces, [0])
    (piece,) = pieces.ready()
    np.testing.assert_array_equal(piece.rows, [[0, 0, 0], [np.nan] * 3])
    assert (piece.bad, piece.errors) == ([1], [error])


def test_a_missing_row_is_awaited_from_elsewhere(pieces):
    assert place(pieces, range(2), rows=[0]) == [1]
    assert list(pieces.ready()) == []
    pieces.refused(ItemTypeError(1, "text 1", "it is bad", None))
    assert [piece.start for piece in pieces.ready()] == [0]


def test_a_reply_without_rows_names_all_its_items(pieces):
    assert place(pieces, range(2), rows=[]) == [0, 1]


def test_all_rows_are_of_one_width(pieces):
    place(pieces, range(2))
    with pytest.raises(ReplyError, match="a row of width 2 came after rows of width 3"):
        place(pieces, range(2, 4), width=2)


def test_the_rest_of_a_stopped_stream_is_one_piece(pieces):
    place(pieces, range(2))
    assert [piece.start for piece in pieces.ready()] == [0]
    place(pieces, range(4, 6))
    rest = pieces.rest({2, 3})
    assert (rest.start, rest.items, rest.bad) == (2, ["text 2", "text 3", "text 4", "text 5"], [0, 1])
    np.testing.assert_array_equal(rest.rows, [[np.nan] * 3, [np.nan] * 3, [0, 0, 0], [1, 1, 1]])
