"""An update of a matrix: the rows of unchanged items are copied from the old matrix, and all others are encoded.

A run over the whole input makes a new matrix beside the old one. `Copies` stands at both ends of its stream. Before it,
the items whose rows the old matrix has are taken out of each block of the input, so that only the others are sent.
Behind it, the copied rows are put between the encoded ones again, so that all rows are in the order of the input.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final

import msgspec

from casdk.bulk.items import Index, contents_of
from casdk.bulk.matrix import MatrixTarget
from casdk.bulk.modes import Mode, OnLoop
from casdk.bulk.old_matrix import OldMatrix
from casdk.bulk.sources import AsyncSource, Block, Source
from casdk.bulk.stores import at_hand
from casdk.models import EncodeResult

__all__ = ["Copied", "Copies"]

READ_ROWS: Final = 4096
"""Rows that are read from the old matrix at a time."""


class Copied(EncodeResult, frozen=True, kw_only=True, eq=False):
    """Rows that were copied from the old matrix: they have the target's dtype, and are normalised if it wants that."""


class RowRange(msgspec.Struct):
    """Consecutive rows of the new matrix that are either all copied or all encoded.

    Attributes:
        old_start: The row of the old matrix where the range begins, if it is copied; its rows are consecutive there,
            too. ``None`` for a range that is encoded.
        rows: Number of rows that were not written yet.
    """

    old_start: int | None
    rows: int


class Copies:
    """Decides which rows of a new matrix are copied, and puts them between the encoded ones.

    Reading the input adds the ranges of rows that are to come; writing the rows removes them.

    Args:
        target: The matrix that is updated; ``None`` for a run that copies nothing.

    Attributes:
        replaced: Number of rows of the old matrix whose items were encoded again: they have changed, or had failed.
        dropped: Number of rows of the old matrix whose items the input no longer has.
    """

    def __init__(self, target: MatrixTarget | None) -> None:
        self.replaced: int = 0
        self.dropped: int = 0
        self._target = target
        self._old: OldMatrix | None = None
        self._index: Index | None = None
        self._ranges: deque[RowRange] = deque()

    def open(self, mode: Mode, source: Any) -> Any:
        """Read which items the old matrix has, if there is one, and return the input of the stream.

        Args:
            mode: How the caller waits.
            source: The input of the run.

        Returns:
            A source whose blocks have the names of all rows, but only the items that are to be encoded.
        """
        self._old = None if self._target is None else self._target.read_old_matrix()
        if self._old is None:
            return source
        self._index = Index(self._old.keys())
        if isinstance(mode, OnLoop):
            return AsyncLookup(partial(mode.take, source), self._take_out)
        return Source(lambda most: self._take_out(source.take(most)))

    def for_comparison(self, source: Any) -> Any:
        """Return the input as the run compares it with the rows that the new matrix already has.

        None of these items is taken out, but the old rows that they have are not available to later items any more.
        """
        if isinstance(source, AsyncSource):
            return AsyncLookup(source.take, self._look_up_only)
        return Source(lambda most: self._look_up_only(source.take(most)), source.total, source.holds)

    def _look_up_only(self, block: Block) -> Block:
        if self._index is not None:
            self._old_rows(block)
        return block

    def _old_rows(self, block: Block) -> list[int | None]:
        """Return the row of the old matrix for each item of a block; ``None`` for an item that it does not have."""
        assert self._index is not None
        return self._index.look_up(block.names, contents_of(block.contents, len(block)))

    def _take_out(self, block: Block) -> Block:
        """Return a block without the items whose rows are copied, and add the ranges of its rows."""
        found = self._old_rows(block)
        ranges: list[RowRange] = []
        for row in found:
            last = ranges[-1] if ranges else None
            if last is not None and row == (None if last.old_start is None else last.old_start + last.rows):
                last.rows += 1
            else:
                ranges.append(RowRange(row, 1))
        # The ranges are added when they are complete, because another thread may write rows at the same time.
        self._ranges.extend(ranges)
        items = [item for item, row in zip(block.items, found, strict=True) if row is None]
        return msgspec.structs.replace(block, items=items)

    @property
    def has_rows(self) -> bool:
        """Whether rows may be copied, so that those of a stream are not all rows of a shard."""
        return self._index is not None

    def drop_ranges(self) -> None:
        """Drop the ranges whose rows were not written, because the run stops and will not write them."""
        self._ranges.clear()

    def with_copies(self, piece: EncodeResult) -> Iterable[EncodeResult]:
        """Return an encoded piece of the stream with the copied rows before it and between its rows."""
        return (piece,) if self._index is None else self._divided(piece)

    def _divided(self, piece: EncodeResult) -> Iterator[EncodeResult]:
        done, rows = 0, len(piece.embeddings)
        while done < rows:
            yield from self.next_copies()
            encoded = self._ranges[0]
            count = min(encoded.rows, rows - done)
            yield _part_of(piece, done, count)
            done += count
            encoded.rows -= count
            if not encoded.rows:
                self._ranges.popleft()

    def next_copies(self) -> Iterator[Copied]:
        """Yield the copied rows that come before the next encoded row, or before the end of the input."""
        while self._ranges and self._ranges[0].old_start is not None:
            assert self._old is not None
            copied = self._ranges.popleft()
            assert copied.old_start is not None
            # A range ends with its block of the input, but the next one may continue it; both are then read as one.
            while self._ranges and self._ranges[0].old_start == copied.old_start + copied.rows:
                copied.rows += self._ranges.popleft().rows
            for start in range(0, copied.rows, READ_ROWS):
                rows = self._old.rows(copied.old_start + start, min(READ_ROWS, copied.rows - start))
                yield Copied(embeddings=rows)

    def count(self) -> None:
        """Set `replaced` and `dropped`, after all of the input was read."""
        if self._index is not None:
            self.replaced = self._index.replaced
            self.dropped = int((~self._index.stays).sum()) - self.replaced


def _part_of(piece: EncodeResult, start: int, rows: int) -> EncodeResult:
    """Return consecutive rows of a piece, with their errors.

    Only the part with the first row keeps the other fields, such as `sent_bytes`, so that nothing is counted twice.
    """
    if rows == len(piece.embeddings):
        return piece
    first = piece.start + start
    errors = tuple(error for error in piece.errors if first <= error.index < first + rows)
    embeddings = piece.embeddings[start : start + rows]
    if start:
        return EncodeResult(embeddings=embeddings, errors=errors, start=first)
    return msgspec.structs.replace(piece, embeddings=embeddings, errors=errors)


class AsyncLookup(AsyncSource):
    """An async input whose items are looked up in the old matrix as they are read.

    Args:
        read: Reads up to a given number of items of the input.
        look_up: Looks up the items of a block, and returns the block that takes its place.
    """

    def __init__(self, read: Callable[[int], Awaitable[Block]], look_up: Callable[[Block], Block]) -> None:
        self._read = read
        self._look_up = look_up

    async def take(self, most: int) -> Block:
        """Take up to ``most`` rows."""
        block = self._look_up(await self._read(most))
        return msgspec.structs.replace(block, items=await at_hand(block.items))
