"""Rows of matrices against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from casdk._rust import are_consecutive, copy_rows, to_half
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

TOLD = [np.float32, np.float16, np.float64, np.uint8, np.int8, np.int32, np.int64]


@given(st.sampled_from(TOLD), hnp.array_shapes(min_dims=1, max_dims=3, max_side=4), st.data())
def test_rows_that_follow_each_other(dtype: type, shape: tuple[int, ...], data: st.DataObject) -> None:
    matrix = np.zeros((6, *shape), dtype)
    chosen = data.draw(st.lists(st.integers(0, 5), min_size=1) | st.integers(0, 5).map(lambda first: range(first, 6)))
    expected = list(chosen) == list(range(chosen[0], chosen[0] + len(chosen)))
    assert are_consecutive([matrix[at] for at in chosen]) is expected


@given(st.sampled_from(TOLD), hnp.array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=4), st.data())
def test_parts_of_arrays(dtype: type, shape: tuple[int, ...], data: st.DataObject) -> None:
    """Rows of whatever part follow each other where NumPy says that the part is contiguous."""
    slices = data.draw(st.tuples(*map(st.slices, shape)))
    part = np.zeros(shape, dtype)[slices]
    if len(part) > 1 and part.size:
        assert are_consecutive(list(part)) is part.flags.c_contiguous


@pytest.mark.parametrize(
    "rows",
    [
        lambda m: [],
        lambda m: [None],
        lambda m: [m[0], None],
        lambda m: [m[0], m[1].tolist()],
        lambda m: [m[0], m[1].view(np.int32)],
        lambda m: [m[:2], m[2]],
        lambda m: [m[0], m[1], m[2, :2]],
        lambda m: list(m.astype(complex)),
        lambda m: list(m.astype(m.dtype.newbyteorder())),
        lambda m: [m[0, ::-1], m[1, ::-1]],
    ],
)
def test_what_does_not_follow(rows) -> None:  # type: ignore[no-untyped-def]
    assert are_consecutive(rows(np.zeros((3, 3), np.float32))) is False


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_rows_are_copied_into_a_matrix_of_their_own(dtype: type) -> None:
    rows = np.arange(12, dtype=dtype).reshape(4, 3)
    copied = copy_rows(rows, 1, 3)
    np.testing.assert_array_equal(copied, rows[1:3])
    assert copied.dtype == dtype
    assert copied.flags.owndata
    assert copied.flags.writeable
    for start, stop in ((3, 5), (3, 2)):
        with pytest.raises(IndexError):
            copy_rows(rows, start, stop)
    with pytest.raises(TypeError):
        copy_rows(rows.astype(float), 0, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("part", [slice(None), (slice(None), slice(None, None, 3)), slice(None, None, -2)])
@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=20)))
def test_half_precision_is_what_numpy_rounds_to(part: slice, rows: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        expected = rows[part].astype(np.float16)
    halves = to_half(rows[part])
    assert halves.dtype == np.float16
    assert halves.flags.c_contiguous
    np.testing.assert_array_equal(halves, expected)


def test_every_half_and_what_is_between_two_of_them_is_rounded_as_numpy_rounds() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    rows = halves[np.isfinite(halves)].astype(np.float32).reshape(-1, 64)
    between = (rows[:, 1:] + rows[:, :-1]) / 2
    for numbers in (rows, between, np.nextafter(between, np.float32(0)), between * np.float32(1.0000002)):
        np.testing.assert_array_equal(to_half(numbers), numbers.astype(np.float16))
    special = np.array([[np.nan, np.inf, -np.inf, 65504, -0.0]], np.float32)
    np.testing.assert_array_equal(to_half(special).view(np.uint16), special.astype(np.float16).view(np.uint16))


def test_rows_of_another_dtype_are_no_rows_to_halve() -> None:
    with pytest.raises(TypeError):
        to_half(np.zeros((2, 3)))  # type: ignore[arg-type]
