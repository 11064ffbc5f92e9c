"""Memory for the rows of a target: the engine receives them where the disk reads them from, so nothing copies them.

A file's rows are divided into blocks of equally many. While a stream is under way, the engine reserves the place of
each piece in its block before the rows arrive; the run then only counts them as filled. A piece that could get no place
there, since it crosses the end of a block or since too much memory is in use, has memory of its own and is copied.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from casdk._calls.piece_memory import PieceMemory
from casdk.bulk.disk import PAGE_BYTES, page_memory
from casdk.bulk.targets import Rows, Target, in_dtype

__all__ = ["RowBlock", "RowBlocks", "ShardMemory"]

BLOCK_BYTES: Final = 4 << 20
"""A block has about so many bytes, if the target does not say how many rows it has."""
AHEAD_BYTES: Final = 32 << 20
"""The most bytes of blocks that the engine reserves."""


class RowBlock:
    """Memory for rows that follow each other in a file.

    Args:
        unused: Where it is kept while its memory is not used.
        rows: How many rows it has room for.
        width: Numbers of a row.
        dtype: Their type.

    Attributes:
        lead: Bytes before the first row, for what comes before it in the file. So each byte has the same distance from
            the beginning of a page in memory as in the file.
        rows: ``[rows, width]``.
        filled: How many of the rows it has.
    """

    __slots__ = ("_memory", "_shape", "_unused", "filled", "lead", "rows")

    def __init__(self, unused: deque[RowBlock], rows: int, width: int, dtype: np.dtype[Any]) -> None:
        self._unused = unused
        self._shape = rows, width, dtype
        size = PAGE_BYTES + rows * width * dtype.itemsize
        self._memory: NDArray[np.uint8] = page_memory(size)
        self.begin(0)

    def begin(self, lead: int) -> None:
        """Have no rows, and room for others with so many bytes before the first of them."""
        rows, width, dtype = self._shape
        self.lead: int = lead
        self.filled: int = 0
        size = rows * width * dtype.itemsize
        self.rows: Rows = self._memory[lead : lead + size].view(dtype).reshape(rows, width)

    @property
    def bytes(self) -> NDArray[np.uint8]:
        """The bytes before the first row, and those of the rows that it has."""
        return self._memory[: self.lead + self.filled * self.rows.strides[0]]

    def release(self) -> None:
        """Have its memory used for other rows."""
        self._unused.append(self)


class RowBlocks:
    """The blocks of the rows of one target, file after file.

    The engine calls `reserve`, and the run everything else.

    Args:
        width: Numbers of a row.
        dtype: Their type in the target.
        block_rows: Rows of a block.
    """

    def __init__(self, width: int, dtype: np.dtype[Any], block_rows: int) -> None:
        self._width = width
        self._dtype = dtype
        self._block_rows = block_rows
        self._block_bytes = block_rows * width * dtype.itemsize
        self._most_ahead = AHEAD_BYTES // max(1, self._block_bytes)
        self._unused: deque[RowBlock] = deque()
        self._there: dict[int, RowBlock] = {}
        self._first = self._next = 0
        self._offset: int | None = None
        self._is_open = False

    @classmethod
    def of_pieces(cls, width: int, dtype: np.dtype[Any], rows: int) -> RowBlocks:
        """Return blocks of about `BLOCK_BYTES`, of whole pieces of so many rows if these are not much larger."""
        fitting = max(1, BLOCK_BYTES // max(1, width * dtype.itemsize))
        return cls(width, dtype, max(rows, fitting // rows * rows) if rows <= 4 * fitting else fitting)

    def begin(self, first: int, offset: int | None = None) -> None:
        """Begin with the rows of a file.

        Args:
            first: The row of the shard with which the first block begins.
            offset: Where that row is in the file; ``None`` if every block begins at a page.
        """
        self._offset = offset
        # New, since a block that was reserved and never filled may still be written to by a call that was stopped.
        self._there = {}
        self._first = self._next = first
        self._is_open = True

    def end(self) -> None:
        """Reserve nothing until the next file begins."""
        self._is_open = False

    def room(self, row: int) -> int:
        """Return how many rows have room in the block of a row of the shard, from that row on."""
        return self._block_rows - (row - self._first) % self._block_rows

    def reserve(self, row: int, rows: int) -> Rows | None:
        """Return the memory of rows of the shard that are still to come; ``None`` if they have no place in a block."""
        if not self._is_open or row < self._next:
            return None
        number, start = divmod(row - self._first, self._block_rows)
        if start + rows > self._block_rows:
            return None
        block = self._there.get(number)
        if block is None:
            if len(self._there) >= self._most_ahead:
                return None
            block = self._make(number)
        return block.rows[start : start + rows]

    def _make(self, number: int) -> RowBlock:
        try:
            block = self._unused.pop()
        except IndexError:
            block = RowBlock(self._unused, self._block_rows, self._width, self._dtype)
        block.begin(0 if self._offset is None else (self._offset + number * self._block_bytes) % PAGE_BYTES)
        there = self._there.setdefault(number, block)
        if there is not block:  # the other thread has made it in this moment
            block.release()
        return there

    def add(self, rows: Rows) -> None:
        """Put the next rows into the current block, which has room for all of them."""
        number, start = divmod(self._next - self._first, self._block_rows)
        block = self._there.get(number) or self._make(number)
        place = block.rows[start : start + len(rows)]
        if not _is_there(rows, place):
            place[:] = in_dtype(rows, self._dtype)
        block.filled = start + len(rows)
        self._next += len(rows)

    @property
    def next_row(self) -> int:
        """The row of the shard that is added next."""
        return self._next

    @property
    def is_full(self) -> bool:
        """Whether the latest rows have filled their block, which was not taken."""
        block = self._there.get(self._latest)
        return block is not None and block.filled == self._block_rows

    @property
    def _latest(self) -> int:
        """The number of the block that the latest rows were put into."""
        return (self._next - 1 - self._first) // self._block_rows

    def take(self) -> RowBlock | None:
        """Return the block of the latest rows, which gets no more of them; ``None`` if it was taken, or there is none.

        Its `RowBlock.release` must be called when its rows are not needed any more.
        """
        return self._there.pop(self._latest, None)


class ShardMemory(PieceMemory):
    """The memory of the pieces of one stream, whose rows are those of a shard from one row on.

    Args:
        most_items: The most items of a piece.
        target: The target, which has blocks once its first shard was begun; ``None`` if the rows of the stream are not
            those of the shard one by one.
        first: The row of the shard that is the first one of the stream.
    """

    def __init__(self, most_items: int, target: Target | None, first: int) -> None:
        self.most_items: int = most_items
        self._target = target
        self._first = first

    @property
    def _blocks(self) -> RowBlocks | None:
        return None if self._target is None else self._target.blocks

    def room(self, start: int) -> int:
        blocks = self._blocks
        return self.most_items if blocks is None else blocks.room(self._first + start)

    def reserve(self, start: int, items: int, width: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        blocks = self._blocks
        reserved = None if blocks is None else blocks.reserve(self._first + start, items)
        if reserved is None or reserved.shape[1] != width or reserved.dtype != dtype:
            return super().reserve(start, items, width, dtype)
        return reserved


def _is_there(rows: Rows, place: Rows) -> bool:
    """Whether rows lie at their place already."""
    return rows.dtype == place.dtype and _address_of(rows) == _address_of(place)


def _address_of(rows: Rows) -> int:
    address: int = rows.__array_interface__["data"][0]
    return address
