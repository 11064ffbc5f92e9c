"""A column of Parquet files, or an image and its caption in two, as the source of a bulk run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from casdk._columns import Column, Unreadable
from casdk.bulk.pairs import Kind, as_row, image_first, read_columns
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
    pattern: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    columns: str | Sequence[str],
    name: str | None = None,
) -> Named:
    """Return a column of Parquet files as items, in the order of the files' names, read a few rows at a time.

    A null is an item that fails, and so is what is no UTF-8. That all files can be read and have the columns is checked
    at once, by what each says at its end; a file that turns out to be broken further on stops the run.

    Args:
        pattern: A pattern, as ``"data/*.parquet"`` (``**`` stands for any number of folders), or several, or paths; or
            URLs, as ``"s3://bucket/data/*.parquet"`` (``casdk[stores]``).
        columns: The column to encode. Strings are sentences, also such as look like a path. Binary values are image
            files, and so are Hugging Face's images: structs of ``bytes`` and ``path``, of which ``bytes`` comes first.
            Or two columns, in any order, one of images and one of strings: each row is an image and its caption.
        name: The column that says what items are called; a number is written as one. Where that has a null, or for
            ``None``, an item is called by its file and its row there, from 0: ``data/000.parquet:17``.

    Returns:
        Pairs of a name and a `Text` or an `Image`, or a tuple of both.

    Raises:
        InputValueError: Nothing has such a name; or a file is no Parquet file, or lacks a column, or has one of another
            type; or of two columns, both have images, or both strings.
        ConfigError: pyarrow is not installed.

    Examples:
        >>> from casdk import bulk
        >>> bulk.parquet("data/*.parquet", columns="caption", name="id")  # doctest: +SKIP
        >>> bulk.parquet("data/*.parquet", columns=("image", "caption"))  # doctest: +SKIP
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError('bulk.parquet needs pyarrow: pip install "casdk[arrow]"') from error
    arrow: Any = pyarrow
    wanted, paths = read_columns(columns), find_files(pattern)
    checked = [_checked(arrow, path, wanted, name) for path in paths]
    total = sum(rows for rows, _ in checked)
    kinds = [_known([found[place] for _, found in checked]) for place in range(len(wanted))]
    for column, known in zip(wanted, kinds, strict=True):
        if len(wanted) == 2 and len(known) == 2:
            raise InputValueError(f"column {column!r} holds images in some of these files, and strings in others")
    ordered, holds = image_first(wanted, [known[0] if len(known) == 1 else None for known in kinds])

    def read() -> Iterator[tuple[str, Any, str]]:
        for path in paths:
            yield from _rows(arrow, path, ordered, name)

    return Named(read, total, holds)


def _checked(arrow: Any, path: str, columns: tuple[str, ...], name: str | None) -> tuple[int, list[Kind | None]]:
    """Return the number of rows of a file, and what each of the columns holds, if it has them.

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
    for column in (*columns, *([] if name is None else [name])):
        if schema.names.count(column) != 1:
            how_many = "several columns" if column in schema.names else "no column"
            raise InputValueError(f"{path} has {how_many} {column!r}; its columns are {', '.join(schema.names)}")
    return rows, [_kind_of(arrow, path, schema.field(column)) for column in columns]


def _known(kinds: list[Kind | None]) -> list[Kind]:
    """Return what a column holds, each kind once; a file with nothing but nulls says nothing about it."""
    found: list[Kind] = []
    for kind in kinds:
        if kind is not None and kind not in found:
            found.append(kind)
    return found


def _kind_of(arrow: Any, path: str, field: Any) -> Kind | None:
    """Return what a column holds; ``None`` if nothing but nulls, which may be either.

    Raises:
        InputValueError: It holds something else.
    """
    types, kind = arrow.types, field.type
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_null(kind):
        return None
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return "image"
    if types.is_struct(kind) and {"bytes", "path"} & {part.name for part in kind}:
        return "image"
    raise InputValueError(
        f"{path}: column {field.name!r} holds {kind}, and has to hold strings, the bytes of images, or structs of "
        "bytes and path"
    )


def _rows(arrow: Any, path: str, columns: tuple[str, ...], name: str | None) -> Iterator[tuple[str, Any, str]]:
    """Yield the rows of a file as a source does.

    Raises:
        BulkError: The file is broken, or is no longer what it was.
    """
    wanted, row = [*columns] if name is None else [*columns, *({name} - {*columns})], 0
    try:
        # Not pyarrow's datasets, which read ahead: that takes more memory, is no faster for one column, and loses the
        # rows before a broken place.
        size = BLOCK_BYTES if is_url(path) else BUFFER_BYTES
        with arrow.parquet.ParquetFile(_readable(path), buffer_size=size, pre_buffer=False) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
                names = iter(()) if name is None else iter(Column(batch.column(name), "pyarrow"))
                for values in zip(*(Column(batch.column(column), "pyarrow") for column in columns), strict=True):
                    parts = [_item_of(value, column) for value, column in zip(values, columns, strict=True)]
                    yield _name_of(next(names, None), path, row), *as_row(parts)
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
    """Return a value as an item, and its fingerprint."""
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
