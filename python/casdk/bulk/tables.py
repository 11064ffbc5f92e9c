"""`parquet`, a source of a bulk run: one column of Parquet files, or two with images and their captions."""

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
"""Rows that are read at a time; with photos of 100 kB these are 26 MB."""
BUFFER_BYTES: Final = 1 << 20
"""Bytes of a column that are read at a time. Without this limit pyarrow reads the whole column of a row group."""


def parquet(
    pattern: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    columns: str | Sequence[str],
    name: str | None = None,
) -> Named:
    """Return a column of Parquet files as items. The files are sorted by path, and a few rows are read at a time.

    A null is an item that fails, and so is a string that is not UTF-8. The call checks the footer of every file, which
    says whether the file can be read and has the columns. A file that turns out to be broken elsewhere stops the run.

    Args:
        pattern: A pattern such as ``"data/*.parquet"`` (``**`` stands for any number of folders), several patterns, or
            paths. They may be URLs, such as ``"s3://bucket/data/*.parquet"`` (``casdk[stores]``).
        columns: The column to encode. Strings are sentences, even if they look like a path. Binary values are image
            files. Structs of ``bytes`` and ``path`` are Hugging Face's images, and ``path`` is used if ``bytes`` is
            null. Two columns, in any order, are one of images and one of strings; each row is then an image and its
            caption.
        name: The column with the names of the items; numbers are written in decimal. An item without a name there, and
            every item if this is ``None``, is named by its file and its row in it, from 0: ``data/000.parquet:17``.

    Returns:
        Pairs of a name and a `Text` or an `Image`, or a tuple of both.

    Raises:
        InputValueError: No file matches a pattern; or a file is no Parquet file, lacks a column, or has one of another
            type; or two columns both hold images, or both strings.
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
    """Return the number of rows of a file, and what each of the columns holds.

    Raises:
        InputValueError: The file is no Parquet file, or lacks a column.
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
    """Return the kinds that a column has in any of the files, each once; ``None`` stands for a file of nulls."""
    found: list[Kind] = []
    for kind in kinds:
        if kind is not None and kind not in found:
            found.append(kind)
    return found


def _kind_of(arrow: Any, path: str, field: Any) -> Kind | None:
    """Return whether a column holds images or texts; ``None`` if it is of the type of nulls, so that it may be either.

    Raises:
        InputValueError: The column holds something else.
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
    """Yield the name, item and fingerprint of each row of a file.

    Raises:
        BulkError: The file is broken, or was replaced after the check.
    """
    wanted, row = [*columns] if name is None else [*columns, *({name} - {*columns})], 0
    try:
        # pyarrow's datasets read ahead, which takes more memory, is no faster for one column, and loses the rows in
        # front of a broken part of the file.
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
    """Return what pyarrow can open: the path of a file, or a seekable file object for an object in a store."""
    return open_object(path) if is_url(path) else path


def _name_of(called: Any, path: str, row: int) -> str:
    """Return the name of an item; one whose name is null or cannot be read is named by its file and row."""
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
