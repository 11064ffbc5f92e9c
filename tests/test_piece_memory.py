"""Streams have a piece for each request, and memory of their own; a bulk run gives them another kind of memory."""

import numpy as np
import pytest
from casdk import Client
from casdk._calls.piece_memory import PieceMemory
from casdk.errors import InputValueError


@pytest.fixture
def encoder(server):
    """A client over grpc."""
    with Client(server.address("grpc")) as client:
        yield client


class Given(PieceMemory):
    """Rows of one array, which are NaN before they come."""

    most_items = 6

    def __init__(self):
        self.rows, self.reserved = np.full((40, 512), np.nan, np.float32), []

    def reserve(self, start, items, width, dtype):
        assert (width, dtype) == (512, np.float32)
        self.reserved.append((start, items))
        return self.rows[start : start + items]


def test_rows_come_where_the_memory_is(encoder):
    texts, memory = [f"text {number}" for number in range(40)], Given()
    pieces = list(encoder.stream(texts, batch_size=2, prefetch=1, out=memory))
    assert all(np.shares_memory(piece, memory.rows) for piece in pieces)
    np.testing.assert_array_equal(memory.rows, encoder.encode(texts))
    np.testing.assert_array_equal(np.concatenate(pieces), memory.rows)
    assert sorted(start for start, _ in memory.reserved) == [0, *np.cumsum([len(piece) for piece in pieces])[:-1]]


def test_every_other_stream_has_memory_of_its_own():
    memory = PieceMemory()
    assert memory.most_items == memory.room(7) == 0
    rows = memory.reserve(3, 4, 5, np.dtype(np.float16))
    assert (rows.shape, rows.dtype) == ((4, 5), np.float16)
    assert not np.shares_memory(rows, memory.reserve(3, 4, 5, np.dtype(np.float16)))


def test_a_matrix_does_not_go_with_a_stream(encoder):
    with pytest.raises(InputValueError, match="out= does not go with a stream"):
        encoder.stream(["a text"], out=np.empty((1, 512), np.float32))
