"""A Parquet file of names, embeddings and errors, whose numbers are written from where they were received.

pyarrow takes 3 to 4 us to write a row of 512 numbers, more than all else that the client does with it: for each number
it makes two levels, counts them into runs, and copies the number twice. Here every row has as many numbers, so the runs
are known without counting, and neither a dictionary nor a codec would find anything in the numbers. A column of a row
group is one page, plain. What is read is read by pyarrow.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from numpy.typing import NDArray

from casdk.bulk.disk import Part
from casdk.bulk.thrift import Long, Struct, varint, write_struct

__all__ = ["Group", "Matrix", "RowGroups"]

MAGIC: Final = b"PAR1"
CREATED_BY: Final = "casdk version 1"
LENGTH: Final = struct.Struct("<I")
"""How many bytes follow."""
STATISTICS_BYTES: Final = 256
"""The first and the last of some names are left out of the statistics if one of them is longer."""
# Numbers of Parquet's own, as its parquet.thrift names them.
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
"""Levels of a string that is there, and of a null."""
NUMBER: Final = 3
"""Level of a number of an embedding."""


class Matrix(NamedTuple):
    """The embeddings of a row group, one column of it.

    Attributes:
        pieces: ``[n, D]`` each, C-contiguous, one below the other: a row for each embedding that there is.
        nulls: The rows of the group that have none, in order.
    """

    pieces: Sequence[NDArray[Any]]
    nulls: Sequence[int]


class Group(NamedTuple):
    """A row group.

    Attributes:
        names: One for each row.
        matrices: One for each column of embeddings.
        errors: What is said of the rows in which something failed.
    """

    names: Sequence[str]
    matrices: Sequence[Matrix]
    errors: Mapping[int, str]


class RowGroups:
    """Writes row groups into a file.

    Args:
        arrow: pyarrow.
        part: The file.
        schema: Its columns: ``name``, the embeddings, ``error``.
    """

    def __init__(self, arrow: Any, part: Part, schema: Any) -> None:
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
        size = Long(self._part.tell() - start)
        whole = Long(sum(column[3][6] for column in columns))
        self._groups.append({1: columns, 2: whole, 3: Long(rows), 5: Long(start), 6: size})
        self._rows += rows

    def close(self) -> None:
        """Write what says where all of it is; the file itself stays open."""
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
        """Return the columns as Parquet names them, in the order of a walk through the tree that they are."""
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

    def _write_names(self, names: Sequence[str]) -> Struct:
        levels = _levels([(len(names), HERE)])
        first, last = min(names).encode(), max(names).encode()
        statistics: Struct = {3: Long(0)}
        if max(len(first), len(last)) <= STATISTICS_BYTES:
            statistics = {3: Long(0), 5: last, 6: first}
        return self._write_strings("name", len(names), levels, names, statistics)

    def _write_errors(self, rows: int, errors: Mapping[int, str]) -> Struct:
        there = sorted(errors)
        levels = _levels((length, HERE if is_error else ABSENT) for length, is_error in _stretches(rows, there))
        statistics = {3: Long(rows - len(there))}
        return self._write_strings("error", rows, levels, [errors[row] for row in there], statistics)

    def _write_strings(
        self, column: str, rows: int, levels: bytes, strings: Sequence[str], statistics: Struct
    ) -> Struct:
        plain: list[bytes] = [b""] * (2 * len(strings))
        plain[1::2] = map(str.encode, strings)
        plain[::2] = map(LENGTH.pack, map(len, plain[1::2]))
        data = levels + b"".join(plain)
        packed = self._arrow.compress(data, codec="zstd", asbytes=True)
        written = self._write_page(rows, len(data), len(packed), [packed])
        return _column_chunk([column], BYTE_ARRAY, ZSTD, written, statistics)

    def _write_matrix(self, column: str, rows: int, matrix: Matrix) -> Struct:
        width, kind = self._width, FIXED_LEN_BYTE_ARRAY if self._is_half else FLOAT
        # A row begins where a number does not repeat the row of the one before.
        null = _run(1, 0)
        row = null + (_run(width - 1, 1) if width > 1 else b"")
        stretches = list(_stretches(rows, matrix.nulls))
        repeated = b"".join(null if is_null else length * row for length, is_null in stretches)
        defined = _levels((1, ABSENT) if is_null else (length * width, NUMBER) for length, is_null in stretches)
        levels = LENGTH.pack(len(repeated)) + repeated + defined
        numbers = [piece.data for piece in matrix.pieces if piece.size]
        size = len(levels) + sum(piece.nbytes for piece in numbers)
        values = (rows - len(matrix.nulls)) * width + len(matrix.nulls)
        written = self._write_page(values, size, size, [levels, *numbers])
        return _column_chunk([column, "list", "element"], kind, UNCOMPRESSED, written, None)

    def _write_page(self, values: int, whole: int, size: int, data: Sequence[bytes | memoryview]) -> _Written:
        """Write the page that a column of a row group is.

        Args:
            values: How many there are, nulls among them.
            whole: Bytes of the page before it was compressed.
            size: Its bytes.
            data: Those, in pieces.
        """
        start = self._part.tell()
        header = write_struct({1: 0, 2: whole, 3: size, 5: {1: values, 2: PLAIN, 3: RLE, 4: RLE}})
        for piece in (header, *data):
            self._part.write(piece)
        return _Written(values, start, len(header) + whole, len(header) + size)


class _Written(NamedTuple):
    """A page that was written.

    Attributes:
        values: In it, nulls among them.
        start: Where it begins in the file.
        whole: Its bytes, with its header, before it was compressed.
        size: Its bytes as they are.
    """

    values: int
    start: int
    whole: int
    size: int


def _column_chunk(path: list[str], kind: int, codec: int, page: _Written, statistics: Struct | None) -> Struct:
    """Return what the footer says of a column of a row group, which is one page."""
    said = {1: kind, 2: [PLAIN, RLE], 3: path, 4: codec, 5: Long(page.values), 6: Long(page.whole), 7: Long(page.size)}
    return {2: Long(0), 3: said | {9: Long(page.start), 12: statistics}}


def _stretches(rows: int, odd: Sequence[int]) -> Iterator[tuple[int, bool]]:
    """Yield the lengths of stretches of rows, and whether each is one of some odd rows, which are stretches of 1."""
    start = 0
    for row in odd:
        if row > start:
            yield row - start, False
        yield 1, True
        start = row + 1
    if rows > start:
        yield rows - start, False


def _levels(runs: Iterable[tuple[int, int]]) -> bytes:
    """Return levels that are given as runs, each a count and a level."""
    levels = b"".join(_run(count, level) for count, level in runs)
    return LENGTH.pack(len(levels)) + levels


def _run(count: int, level: int) -> bytes:
    """Return a level that comes so many times."""
    return varint(count << 1) + bytes([level])
