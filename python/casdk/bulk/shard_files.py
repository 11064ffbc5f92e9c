"""Writes the Parquet file of a shard again, with rows filled in or left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from casdk.bulk.disk import Checksum
from casdk.bulk.large_part import LargePart
from casdk.bulk.row_groups import Group, Matrix, RowGroups
from casdk.bulk.targets import remove

__all__ = ["GROUP_ROWS", "Made", "fill_rows", "leave_out_rows"]

GROUP_ROWS: Final = 4096
"""Rows in a row group, which are held in memory until it is written."""


class Made(NamedTuple):
    """A file that was written again.

    Attributes:
        rows: Number of its rows.
        failed: How many of them have an error.
        size: Its size in bytes.
        checksum: The checksum of these bytes.
    """

    rows: int
    failed: int
    size: int
    checksum: str


def fill_rows(
    arrow: Any, old: Any, new: Path, schema: Any, rows: Mapping[int, NDArray[Any]], errors: Mapping[int, str]
) -> Made:
    """Write a file again, with rows in the place of some that had failed.

    Args:
        arrow: pyarrow.
        old: The file as it is, or its path, for pyarrow to read.
        new: Where to write it.
        schema: The columns of the file.
        rows: ``[columns, D]``, embeddings by row of the file.
        errors: The new errors of rows that have failed again, by row of the file.
    """

    def fill(start: int, batch: Any) -> Group:
        group = _group_of(batch)
        filled = [place for place in group.errors if start + place in rows]
        if not group.errors:
            return group
        said = {place: errors.get(start + place, error) for place, error in group.errors.items() if place not in filled}
        matrices = [
            _filled(matrix, len(batch), {place: rows[start + place][part] for place in filled})
            for part, matrix in enumerate(group.matrices)
        ]
        return Group(group.names, matrices, said)

    return _write_again(arrow, old, new, schema, fill)


def _filled(matrix: Matrix, count: int, rows: Mapping[int, NDArray[Any]]) -> Matrix:
    """Return the embeddings of ``count`` rows, with some of them filled in."""
    there = matrix.rows
    assert isinstance(there, np.ndarray)
    values, good = np.empty((count, there.shape[1]), there.dtype), np.ones(count, bool)
    good[matrix.nulls] = False
    values[good] = there
    for place, row in rows.items():
        values[place], good[place] = row, True
    return Matrix(values[good], np.flatnonzero(~good).tolist())


def leave_out_rows(arrow: Any, old: Any, new: Path, schema: Any, stays: NDArray[np.bool_]) -> Made:
    """Write a file again, without some of its rows.

    Args:
        arrow: pyarrow.
        old: The file as it is, or its path, for pyarrow to read.
        new: Where to write it.
        schema: The columns of the file.
        stays: Whether a row stays.
    """

    def leave_out(start: int, batch: Any) -> Group:
        return _group_of(batch.filter(arrow.array(stays[start : start + len(batch)])))

    return _write_again(arrow, old, new, schema, leave_out)


def _group_of(batch: Any) -> Group:
    """Return rows that were read as a row group."""
    said = batch.column("error").to_pylist()
    matrices = []
    for column in batch.columns[1:-1]:
        numbers = column.drop_null().flatten().to_numpy(zero_copy_only=False)
        nulls = np.flatnonzero(column.is_null()).tolist()
        matrices.append(Matrix(numbers.reshape(-1, column.type.list_size), nulls))
    errors = {row: error for row, error in enumerate(said) if error is not None}
    return Group(batch.column("name").to_pylist(), matrices, errors)


def _write_again(arrow: Any, old: Any, new: Path, schema: Any, change: Callable[[int, Any], Group]) -> Made:
    """Write a file again, each batch of its rows as ``change(first row, batch)`` returns it."""
    part = LargePart(new)
    part.checksum = Checksum()
    read = rows = failed = 0
    try:
        groups = RowGroups(arrow, part, schema)
        for batch in arrow.parquet.ParquetFile(old).iter_batches(GROUP_ROWS):
            group = change(read, batch)
            read += len(batch)
            rows += len(group.names)
            failed += len(group.errors)
            if group.names:
                groups.add(group)
        groups.close()
        part.sync()
    except BaseException:
        remove(new)
        raise
    finally:
        part.close()
    return Made(rows, failed, part.size, part.checksum.text)
