"""`DocumentArray.embeddings`: rows that lie in one matrix stay there, and all others are stacked into a new one."""

import numpy as np
import pytest
from casdk.documents import Document, DocumentArray
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

bounds = st.none() | st.integers(-5, 5)
slices = st.builds(slice, bounds, bounds) | st.builds(
    slice, bounds, bounds, st.none() | st.sampled_from([-2, -1, 1, 2])
)


def rows_of(matrix):
    return DocumentArray(Document(embedding=row) for row in matrix)


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.float16]), hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)
    ),
    slices,
    st.integers(0, 2),
)
def test_stacking(matrix, part, cut):
    """Whatever slice of a matrix the rows are, they stack to it; without a copy where they follow each other."""
    part_of = matrix[:, cut : matrix.shape[1]] if cut and cut < matrix.shape[1] else matrix
    rows = part_of[part]
    documents = rows_of(rows)
    stacked = documents.embeddings
    if not len(rows):
        assert stacked.shape == (0, 0)
        return
    assert stacked.dtype == matrix.dtype
    assert np.array_equal(stacked, rows, equal_nan=True)
    consecutive = part_of is matrix and (len(rows) == 1 or part.step in (None, 1))
    assert np.shares_memory(stacked, matrix) or not consecutive
    if np.shares_memory(stacked, matrix):
        stacked[...] = 1
        assert all((document.embedding == 1).all() for document in documents)


def test_a_view_is_written_through():
    matrix = np.zeros((5, 3), np.float32)
    documents = rows_of(matrix)
    assert np.shares_memory(documents[1:4].embeddings, matrix)
    documents[1:4].embeddings[...] = 7
    assert matrix[:, 0].tolist() == [0, 7, 7, 7, 0]


@pytest.mark.parametrize(
    "rows",
    [
        lambda m: [m[1], m[0]],
        lambda m: [m[0], m[2]],
        lambda m: [m[0], m[0]],
        lambda m: [m[0], m[1].copy()],
        lambda m: [m[0].copy(), m[1].copy()],
        lambda m: [m[:, 0], m[:, 1]],
        lambda m: [m[0][::-1], m[1][::-1]],
        lambda m: [m[0].view(np.int32), m[1].view(np.int32)],
        lambda m: [m[0], m[1].view(np.int32)],
        lambda m: [m[0].tolist(), m[1]],
        lambda m: list(np.asfortranarray(m)[:2]),
        lambda m: list(np.broadcast_to(m[0], (2, 3))),
        lambda m: list(np.frombuffer(m.tobytes(), np.float32).reshape(3, 3)[:2]),
        lambda m: [np.frombuffer(m, np.float32, 3, offset).reshape(1, 3)[0] for offset in (0, 12)],
        lambda m: list(m.astype(np.longdouble)[:2]),
    ],
)
def test_rows_from_elsewhere(rows):
    matrix = np.arange(9, dtype=np.float32).reshape(3, 3).copy()
    chosen = rows(matrix)
    stacked = rows_of(chosen).embeddings
    assert stacked.shape == (2, 3)
    assert np.array_equal(stacked, np.stack([np.asarray(row) for row in chosen]))


def test_no_columns_at_all():
    assert rows_of(np.zeros((3, 0), np.float32)).embeddings.shape == (3, 0)
