"""The pieces of a stream come in input order, whatever the order of the replies."""

import json

import numpy as np
import pytest
from casdk._calls.options import Options
from casdk._calls.outcome import Sent
from casdk._calls.piece_memory import PieceMemory
from casdk._calls.pieces import QUICK_SECONDS, Pieces
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


class Large(PieceMemory):
    """Pieces of up to eight items, but none beyond the tenth item."""

    most_items = 8

    def room(self, start):
        return 10 - start if start < 10 else 8


@pytest.fixture
def clock(monkeypatch):
    """The time, in seconds, that pieces see."""
    now = [100.0]
    monkeypatch.setattr("casdk._calls.pieces.monotonic", lambda: now[0])
    return now


@pytest.fixture
def joined():
    """Pieces that may have several requests."""
    return Pieces(None, Options(out=Large()))


def answer(pieces, *starts):
    """Read and answer requests of two items each; returns what can be handed over then."""
    for start in starts:
        pieces.opened(start, [f"text {start}", f"text {start + 1}"])
    for start in starts:
        place(pieces, range(start, start + 2))
    return [(piece.start, len(piece.items), piece.rows[:, 0].tolist()) for piece in pieces.ready()]


def test_a_quick_server_has_requests_joined_more_and_more(joined, clock):
    assert answer(joined, 0, 2) == [(0, 2, [0, 1]), (2, 2, [0, 1])]
    assert answer(joined, 4, 6, 8) == [(4, 4, [0, 1, 0, 1]), (8, 2, [0, 1])]
    assert answer(joined, 10, 12, 14) == [(10, 4, [0, 1] * 2), (14, 2, [0, 1])]
    assert answer(joined, 16, 18, 20, 22, 24) == [(16, 4, [0, 1] * 2), (20, 4, [0, 1] * 2), (24, 2, [0, 1])]


def test_none_is_longer_than_its_memory(joined, clock):
    answer(joined, 0)
    answer(joined, 2, 4)
    assert answer(joined, 6, 8, 10) == [(6, 4, [0, 1, 0, 1]), (10, 2, [0, 1])]


def test_a_slow_server_has_a_piece_for_each_request(joined, clock):
    answer(joined, 0)
    for start in (2, 4, 6):
        joined.opened(start, ["a text"] * 2)
    clock[0] += QUICK_SECONDS + 0.01
    for start in (2, 4, 6):
        place(joined, range(start, start + 2))
    assert [len(piece.items) for piece in joined.ready()] == [4, 2]
    assert answer(joined, 8, 10) == [(8, 2, [0, 1]), (10, 2, [0, 1])]


def test_a_slow_input_holds_up_no_piece(joined, clock):
    answer(joined, 0)
    assert answer(joined, 2) == [(2, 2, [0, 1])]
    assert answer(joined, 4) == [(4, 2, [0, 1])]


def test_joined_requests_name_their_own_bad_items(joined, clock):
    answer(joined, 0)
    joined.opened(2, ["text 2", "text 3"])
    joined.opened(4, ["text 4", "text 5"])
    error = ItemTypeError(5, "text 5", "it is bad", None)
    joined.refused(error)
    place(joined, [4])
    assert place(joined, range(2, 4), rows=[1]) == [0]
    place(joined, [2])
    (piece,) = joined.ready()
    np.testing.assert_array_equal(piece.rows[:, 0], [0, 1, 0, np.nan])
    assert (piece.bad, piece.errors) == ([3], [error])


def test_what_is_left_of_joined_requests_is_one_piece(joined, clock):
    answer(joined, 0)
    for start in (2, 4, 6):
        joined.opened(start, [f"text {start}", f"text {start + 1}"])
    place(joined, range(6, 8))
    rest = joined.rest({2, 3, 4, 5})
    assert (rest.start, rest.items) == (2, [f"text {number}" for number in range(2, 8)])
    np.testing.assert_array_equal(rest.rows[:, 0], [np.nan] * 4 + [0, 1])


def test_what_is_complete_of_joined_requests_is_handed_over_at_the_end_of_a_call(joined, clock):
    answer(joined, 0)
    answer(joined, 2, 4)
    for start in (6, 8):
        joined.opened(start, [f"text {start}", f"text {start + 1}"])
    error = ItemTypeError(6, "text 6", "it is bad", None)
    joined.refused(error)
    place(joined, [7])
    place(joined, [8])
    assert list(joined.ready()) == []
    assert joined.divide()
    (piece,) = joined.ready()
    assert (piece.start, piece.items, piece.bad, piece.errors) == (6, ["text 6", "text 7"], [0], [error])
    np.testing.assert_array_equal(piece.rows[:, 0], [np.nan, 0])
    assert joined.held_back == (0, 0)
    rest = joined.rest({9})
    assert (rest.start, rest.items) == (8, ["text 8", "text 9"])
    np.testing.assert_array_equal(rest.rows[:, 0], [0, np.nan])
    assert not joined.divide()
    assert list(joined.ready()) == []


def test_the_first_of_joined_requests_may_be_the_one_that_is_missing(joined, clock):
    answer(joined, 0)
    answer(joined, 2, 4)
    for start in (6, 8):
        joined.opened(start, ["a text"] * 2)
    place(joined, range(8, 10))
    assert not joined.divide()
    assert list(joined.ready()) == []
