"""A column of Parquet files as the source of a bulk run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, Final

from casdk._columns import Column, Unreadable
from casdk.bulk.sources import Named, digest_of, file_state, find_files
from casdk.bulk.stores import BLOCK_BYTES, is_url, open_object
from casdk.errors import BulkError, ConfigError, InputValueError
from casdk.models import Image, Text

__all__ = ["parquet"]

BATCH_ROWS: Final = 256
"""Rows read at a time: of photos of 100 kB these are 26 MB."""
BUFFER_BYTES: Final = 1 << 20
"""Bytes of a column read at a time; without this pyarrow would read all that a row group has of it."""


def parquet(
    pattern: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, columns: str, name: str | None = None
) -> Named:
    """Return a column of Parquet files as items, in the order of the files' names, read a few rows at a time.

    A null is an item that fails, and so is what is no UTF-8. That all files can be read and have the columns is checked
    at once, by what each says at its end; a file that turns out to be broken further on stops the run.

    Args:
        pattern: A pattern, as ``"data/*.parquet"`` (``**`` stands for any number of folders), or several, or paths; or
            URLs, as ``"s3://bucket/data/*.parquet"`` (``casdk[stores]``).
        columns: The column to encode. Strings are sentences, also such as look like a path. Binary values are image
            files, and so are Hugging Face's images: structs of ``bytes`` and ``path``, of which ``bytes`` comes first.
        name: The column that says what items are called; a number is written as one. Where that has a null, or for
            ``None``, an item is called by its file and its row there, from 0: ``data/000.parquet:17``.

    Returns:
        Pairs of a name and a `Text` or an `Image`.

    Raises:
        InputValueError: Nothing has such a name; or a file is no Parquet file, or lacks a column, or has one of another
            type.
        ConfigError: pyarrow is not installed.

    Examples:
        >>> from casdk import bulk
        >>> bulk.parquet("data/*.parquet", columns="caption", name="id")  # doctest: +SKIP
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError('bulk.parquet needs pyarrow: pip install "casdk[arrow]"') from error
    arrow: Any = pyarrow
    paths = find_files(pattern)
    total = sum(_checked_rows(arrow, path, columns, name) for path in paths)

    def read() -> Iterator[tuple[str, Any, str]]:
        for path in paths:
            yield from _rows(arrow, path, columns, name)

    return Named(read, total)


def _checked_rows(arrow: Any, path: str, columns: str, name: str | None) -> int:
    """Return the number of rows of a file, if it has the columns.

    Raises:
        InputValueError: It has not, or is no Parquet file.
    """
    if not is_url(path) and os.path.isdir(path):
        raise InputValueError(f"{path} is a folder: write {os.path.join(path, '*.parquet')}")
    try:
        with arrow.parquet.ParquetFile(_readable(path)) as file:
            schema, rows = file.schema_arrow, int(file.metadata.num_rows)
    except (OSError, arrow.ArrowException) as error:
        raise InputValueError(f"{path} cannot be read as a Parquet file: {error}") from error
    for column in (columns, *([] if name is None else [name])):
        if schema.names.count(column) != 1:
            how_many = "several columns" if column in schema.names else "no column"
            raise InputValueError(f"{path} has {how_many} {column!r}; its columns are {', '.join(schema.names)}")
    kind = schema.field(columns).type
    if not _holds_items(arrow, kind):
        raise InputValueError(
            f"{path}: column {columns!r} holds {kind}, and has to hold strings, the bytes of images, or structs of "
            "bytes and path"
        )
    return rows


def _holds_items(arrow: Any, kind: Any) -> bool:
    """Whether a type of Arrow's is one of texts or images; a column of nothing but nulls may have been either."""
    types = arrow.types
    if types.is_dictionary(kind):
        return _holds_items(arrow, kind.value_type)
    if types.is_struct(kind):
        return {"bytes", "path"} & {field.name for field in kind} != set()
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    return types.is_binary_view(kind) or types.is_null(kind) or any(test(kind) for test in tests)


def _rows(arrow: Any, path: str, columns: str, name: str | None) -> Iterator[tuple[str, Any, str]]:
    """Yield the rows of a file as a source does.

    Raises:
        BulkError: The file is broken, or is no longer what it was.
    """
    wanted, row = [columns] if name is None else [columns, name], 0
    try:
        # Not pyarrow's datasets, which read ahead: that takes more memory, is no faster for one column, and loses the
        # rows before a broken place.
        size = BLOCK_BYTES if is_url(path) else BUFFER_BYTES
        with arrow.parquet.ParquetFile(_readable(path), buffer_size=size, pre_buffer=False) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
                names = iter(()) if name is None else iter(Column(batch.column(name), "pyarrow"))
                for value in Column(batch.column(columns), "pyarrow"):
                    item, content = _item_of(value, columns)
                    yield _name_of(next(names, None), path, row), item, content
                    row += 1
    except (OSError, arrow.ArrowException) as error:
        raise BulkError(f"{path} cannot be read beyond row {row}: {error}") from error


def _readable(path: str) -> Any:
    """Return what pyarrow reads a file by: a path, or an object of a store, of which it reads what it wants."""
    return open_object(path) if is_url(path) else path


def _name_of(called: Any, path: str, row: int) -> str:
    """Return what an item is called; a row whose name cannot be read is called as one without."""
    if called is None or isinstance(called, Unreadable):
        return f"{path}:{row}"
    return called.decode("utf-8", "backslashreplace") if isinstance(called, bytes) else str(called)


def _item_of(value: Any, column: str) -> tuple[Any, str]:
    """Return a value as an item, and what tells that it has changed."""
    if isinstance(value, dict):  # Hugging Face's images
        value, path = value.get("bytes"), value.get("path")
        if value is None and path is not None:
            return Image(path), f"{path} {file_state(path)}"
    if isinstance(value, str):
        return Text(value), value
    if isinstance(value, bytes):
        return Image(value), digest_of(value)
    if isinstance(value, Unreadable):
        return value, str(value.cause)
    return Unreadable(InputValueError(f"column {column!r} has a null here")), ""
