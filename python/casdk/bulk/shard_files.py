"""The Parquet file of one shard: how it is written, and how it is made again with rows filled in or left out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from casdk._columns import to_arrow
from casdk.bulk.disk import Checksum, Part
from casdk.bulk.targets import remove

__all__ = ["GROUP_ROWS", "Made", "fill_rows", "leave_out_rows", "open_writer"]

GROUP_ROWS: Final = 4096
"""Rows in a row group, which are held in memory until it is written."""


class Made(NamedTuple):
    """A file that was made again, and is on disk.

    Attributes:
        rows: Rows in it.
        failed: How many of them have an error and no embedding.
        size: Its bytes.
        checksum: Of them.
    """

    rows: int
    failed: int
    size: int
    checksum: str


def open_writer(arrow: Any, part: Part, schema: Any) -> Any:
    """Return what writes row groups of names, embeddings and errors into a file.

    Args:
        arrow: pyarrow.
        part: The file.
        schema: Its columns.
    """
    return arrow.parquet.ParquetWriter(
        part,
        schema,
        # Names differ from row to row, and so do the numbers of embeddings: a dictionary or a codec finds nothing.
        use_dictionary=["error"],
        compression={name: "zstd" if name in ("name", "error") else "none" for name in schema.names},
        write_statistics=["name"],
    )


def fill_rows(
    arrow: Any, old: Path, new: Path, schema: Any, rows: Mapping[int, NDArray[Any]], errors: Mapping[int, str]
) -> Made:
    """Write a file again, with rows in the place of some that had failed.

    Args:
        arrow: pyarrow.
        old: The file as it is.
        new: Where to write it.
        schema: Its columns.
        rows: ``[columns, D]``, embeddings by row of the file.
        errors: What is said from now on of rows that have failed again.
    """
    columns = [name for name in schema.names if name not in ("name", "error")]

    def fill(start: int, batch: Any) -> Any:
        said = batch.column("error").to_pylist()
        failed = [place for place, error in enumerate(said) if error is not None]
        if not failed:
            return batch
        for place in failed:
            said[place] = None if start + place in rows else errors.get(start + place, said[place])
        filled = [place for place in failed if said[place] is None]
        embeddings = [
            _filled(batch.column(name), {place: rows[start + place][part] for place in filled})
            for part, name in enumerate(columns)
        ]
        return arrow.record_batch([batch.column("name"), *embeddings, arrow.array(said, arrow.string())], schema=schema)

    return _write_again(arrow, old, new, schema, fill)


def _filled(column: Any, rows: Mapping[int, NDArray[Any]]) -> Any:
    """Return a column of embeddings with others in some places."""
    values = np.full((len(column), column.type.list_size), np.nan, column.type.value_type.to_pandas_dtype())
    good = np.array(column.is_valid())
    values[good] = column.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, values.shape[1])
    for place, row in rows.items():
        values[place], good[place] = row, True
    return to_arrow(values, np.flatnonzero(~good))


def leave_out_rows(arrow: Any, old: Path, new: Path, schema: Any, stays: NDArray[np.bool_]) -> Made:
    """Write a file again, without some of its rows.

    Args:
        arrow: pyarrow.
        old: The file as it is.
        new: Where to write it.
        schema: Its columns.
        stays: Whether a row stays.
    """

    def leave_out(start: int, batch: Any) -> Any:
        return batch.filter(arrow.array(stays[start : start + len(batch)]))

    return _write_again(arrow, old, new, schema, leave_out)


def _write_again(arrow: Any, old: Path, new: Path, schema: Any, change: Callable[[int, Any], Any]) -> Made:
    """Write a file again, each group of its rows as ``change(first row, group)`` returns it."""
    part = Part(new)
    part.checksum = Checksum()
    writer = open_writer(arrow, part, schema)
    read = rows = failed = 0
    try:
        for batch in arrow.parquet.ParquetFile(old).iter_batches(GROUP_ROWS):
            changed = change(read, batch)
            read += len(batch)
            if len(changed):
                changed = arrow.record_batch(changed.columns, schema=schema)
                writer.write_batch(changed, row_group_size=GROUP_ROWS)
            rows += len(changed)
            failed += len(changed) - changed.column("error").null_count
        writer.close()
        part.sync()
    except BaseException:
        with contextlib.suppress(OSError):  # it writes a footer, and the disk may be full; the file goes anyway
            writer.close()
        remove(new)
        raise
    finally:
        part.close()
    return Made(rows, failed, part.size, part.checksum.text)
