"""Writes a Parquet file of names, embeddings and errors; pyarrow reads it.

To write a row of 512 numbers, pyarrow takes 3 to 4 us, which is more than everything else that the client does with
it: it makes two levels for each number, counts them into runs, and copies the number twice. Here all rows have the same
width, so the runs are known without counting. A dictionary or a codec would not make the numbers smaller. So each
column of a row group is one page of plain numbers, written from the arrays that they were received in.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from numpy.typing import NDArray

from casdk._rust import pack_strings
from casdk.bulk.disk import PAGE_BYTES
from casdk.bulk.large_part import LargePart
from casdk.bulk.row_blocks import RowBlock
from casdk.bulk.thrift import Long, Struct, varint, write_struct

__all__ = ["Group", "Matrix", "RowGroups"]

MAGIC: Final = b"PAR1"
CREATED_BY: Final = "casdk version 1"
LENGTH: Final = struct.Struct("<I")
"""The length of what follows, in bytes."""
STATISTICS_BYTES: Final = 256
"""The statistics of a row group have its first and last name, unless one of them is longer than this."""
# The names and numbers of enumerations in Parquet's own parquet.thrift.
VERSION: Final = 2
FLOAT, BYTE_ARRAY, FIXED_LEN_BYTE_ARRAY = 4, 6, 7
OPTIONAL, REPEATED = 1, 2
UTF8, LIST = 0, 3
PLAIN, RLE = 0, 3
UNCOMPRESSED, ZSTD = 0, 6
STRING_TYPE: Final[Struct] = {1: {}}
LIST_TYPE: Final[Struct] = {3: {}}
FLOAT16_TYPE: Final[Struct] = {15: {}}
TYPE_ORDER: Final[Struct] = {1: {}}
HERE, ABSENT = 1, 0
"""Definition levels of a string, and of a null."""
NUMBER: Final = 3
"""Definition level of a number of an embedding."""


class Matrix(NamedTuple):
    """The embeddings of a row group, one column of it.

    Attributes:
        rows: The embeddings ``[n, D]``, C-contiguous; or a block that has them, which is given back when it is written.
        nulls: Rows of the group that have no embedding, ascending.
    """

    rows: NDArray[Any] | RowBlock
    nulls: Sequence[int]


class Group(NamedTuple):
    """A row group.

    Attributes:
        names: The names of its rows.
        matrices: The embeddings, one matrix for each column.
        errors: The texts for the column ``error``, by row.
    """

    names: list[str]
    matrices: Sequence[Matrix]
    errors: Mapping[int, str]


class RowGroups:
    """Writes row groups into a file.

    Args:
        arrow: pyarrow.
        part: The file.
        schema: Its columns: ``name``, the embeddings, ``error``.
    """

    def __init__(self, arrow: Any, part: LargePart, schema: Any) -> None:
        self._arrow = arrow
        self._part = part
        self._schema = schema
        self._embeddings: Final[list[str]] = schema.names[1:-1]
        kind = schema.field(1).type
        self._width: int = kind.list_size
        self._is_half: bool = kind.value_type == arrow.float16()
        self._groups: list[Struct] = []
        self._rows = 0
        part.write(MAGIC)

    def add(self, group: Group) -> None:
        """Write a row group."""
        start, rows = self._part.tell(), len(group.names)
        columns = [self._write_names(group.names)]
        for name, matrix in zip(self._embeddings, group.matrices, strict=True):
            columns.append(self._write_matrix(name, rows, matrix))
        columns.append(self._write_errors(rows, group.errors))
        whole, size = (Long(sum(column[3][number] for column in columns)) for number in (6, 7))
        self._groups.append({1: columns, 2: whole, 3: Long(rows), 5: Long(start), 6: size})
        self._rows += rows

    def close(self) -> None:
        """Write the footer, which says where each column is; the file itself stays open."""
        schema = base64.b64encode(self._schema.serialize().to_pybytes())
        footer = write_struct(
            {
                1: VERSION,
                2: self._schema_elements(),
                3: Long(self._rows),
                4: self._groups,
                5: [{1: "ARROW:schema", 2: schema}],
                6: CREATED_BY,
                7: [TYPE_ORDER] * len(self._schema.names),
            }
        )
        self._part.write(footer + LENGTH.pack(len(footer)) + MAGIC)

    def _schema_elements(self) -> list[Struct]:
        """Return the schema as the footer lists it: a tree, each element before its children."""
        name, error = (
            {1: BYTE_ARRAY, 3: OPTIONAL, 4: column, 6: UTF8, 10: STRING_TYPE} for column in ("name", "error")
        )
        elements: list[Struct] = [{4: "schema", 5: len(self._schema.names)}, name]
        element: Struct = {1: FLOAT, 3: OPTIONAL, 4: "element"}
        if self._is_half:
            element = {1: FIXED_LEN_BYTE_ARRAY, 2: 2, 3: OPTIONAL, 4: "element", 10: FLOAT16_TYPE}
        for column in self._embeddings:
            elements.append({3: OPTIONAL, 4: column, 5: 1, 6: LIST, 10: LIST_TYPE})
            elements += [{3: REPEATED, 4: "list", 5: 1}, element]
        return [*elements, error]

    def _write_names(self, names: list[str]) -> Struct:
        levels = _levels([(len(names), HERE)])
        plain, bounds = pack_strings(names)
        statistics: Struct = {3: Long(0)}
        if bounds is not None and max(map(len, bounds)) <= STATISTICS_BYTES:
            statistics = {3: Long(0), 5: bounds[1], 6: bounds[0]}
        return self._write_strings("name", len(names), levels + plain, statistics)

    def _write_errors(self, rows: int, errors: Mapping[int, str]) -> Struct:
        there = sorted(errors)
        levels = _levels((length, HERE if is_error else ABSENT) for length, is_error in _stretches(rows, there))
        plain, _ = pack_strings([errors[row] for row in there])
        return self._write_strings("error", rows, levels + plain, {3: Long(rows - len(there))})

    def _write_strings(self, column: str, rows: int, data: bytes, statistics: Struct) -> Struct:
        packed = self._arrow.compress(data, codec="zstd", asbytes=True)
        start, header = self._part.tell(), _page_header(rows, len(data), len(packed))
        self._part.write(header + packed)
        written = _Written(rows, start, len(header) + len(data), len(header) + len(packed))
        return _column_chunk([column], BYTE_ARRAY, ZSTD, written, statistics)

    def _write_matrix(self, column: str, rows: int, matrix: Matrix) -> Struct:
        width, kind = self._width, FIXED_LEN_BYTE_ARRAY if self._is_half else FLOAT
        # The repetition level of a number is 0 at the beginning of a row, and 1 in it.
        null = _run(1, 0)
        row = null + (_run(width - 1, 1) if width > 1 else b"")
        stretches = list(_stretches(rows, matrix.nulls))
        repeated = b"".join(null if is_null else length * row for length, is_null in stretches)
        defined = _levels((1, ABSENT) if is_null else (length * width, NUMBER) for length, is_null in stretches)
        levels = LENGTH.pack(len(repeated)) + repeated + defined
        numbers = matrix.rows
        size = len(levels) + (len(numbers.bytes) if isinstance(numbers, RowBlock) else numbers.nbytes)
        values = (rows - len(matrix.nulls)) * width + len(matrix.nulls)
        header = _page_header(values, size, size)
        # Zeros before the header, which no reader looks at, so that the numbers begin a page of the file.
        self._part.write(bytes(-(self._part.tell() + len(header) + len(levels)) % PAGE_BYTES))
        start = self._part.tell()
        self._part.write(header + levels)
        if isinstance(numbers, RowBlock):
            self._part.write_rows(numbers)
        elif numbers.size:
            self._part.write(numbers.data)
        written = _Written(values, start, len(header) + size, len(header) + size)
        return _column_chunk([column, "list", "element"], kind, UNCOMPRESSED, written, None)


class _Written(NamedTuple):
    """A page that was written.

    Attributes:
        values: Number of its values, including nulls.
        start: Where it begins in the file.
        whole: Its size with its header before it was compressed, in bytes.
        size: Its size with its header in the file, in bytes.
    """

    values: int
    start: int
    whole: int
    size: int


def _page_header(values: int, whole: int, size: int) -> bytes:
    """Return the header of a page, which has a column of a row group.

    Args:
        values: Number of its values, including nulls.
        whole: Size of the page before it was compressed, in bytes.
        size: Size of the page as it is written, in bytes.
    """
    return write_struct({1: 0, 2: whole, 3: size, 5: {1: values, 2: PLAIN, 3: RLE, 4: RLE}})


def _column_chunk(path: list[str], kind: int, codec: int, page: _Written, statistics: Struct | None) -> Struct:
    """Return the entry of the footer for a column of a row group."""
    data = {1: kind, 2: [PLAIN, RLE], 3: path, 4: codec, 5: Long(page.values), 6: Long(page.whole), 7: Long(page.size)}
    return {2: Long(0), 3: data | {9: Long(page.start), 12: statistics}}


def _stretches(rows: int, odd: Sequence[int]) -> Iterator[tuple[int, bool]]:
    """Divide rows into stretches: each row of ``odd`` is one by itself, and so are all rows between two of these.

    Yields:
        The number of rows of a stretch, and whether it is a row of ``odd``.
    """
    start = 0
    for row in odd:
        if row > start:
            yield row - start, False
        yield 1, True
        start = row + 1
    if rows > start:
        yield rows - start, False


def _levels(runs: Iterable[tuple[int, int]]) -> bytes:
    """Return levels in the encoding of Parquet.

    Args:
        runs: Runs of equal levels: how many there are, and the level.
    """
    levels = b"".join(_run(count, level) for count, level in runs)
    return LENGTH.pack(len(levels)) + levels


def _run(count: int, level: int) -> bytes:
    """Return a run of ``count`` equal levels."""
    return varint(count << 1) + bytes([level])
