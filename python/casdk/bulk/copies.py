"""An update of a matrix: rows of items that have not changed are copied from the matrix that was there.

The new matrix is a run of its own, beside the old one, over all of the input. Of each block of items, only those are
sent that the old matrix does not have; their rows, and the copied ones, are then put into the order of the input again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final

import msgspec

from casdk.bulk.items import Index, contents_of
from casdk.bulk.matrix import MatrixTarget
from casdk.bulk.matrix_before import Before
from casdk.bulk.modes import Mode, OnLoop
from casdk.bulk.sources import AsyncSource, Block, Source
from casdk.bulk.stores import at_hand
from casdk.models import EncodeResult

__all__ = ["Copied", "Copies"]

READ_ROWS: Final = 4096
"""Rows that are copied at a time."""


class Copied(EncodeResult, frozen=True, kw_only=True, eq=False):
    """Rows that were copied from the old matrix, and are already in the target's dtype and normalised."""


class Span(msgspec.Struct):
    """Rows that follow each other in the new matrix.

    Attributes:
        first: The first of them in the old one, where they follow each other, too; ``None`` if they are encoded.
        rows: How many there are.
    """

    first: int | None
    rows: int


class Copies:
    """Which rows of a new matrix are copied, and which are encoded.

    Args:
        target: The matrix; ``None`` for a run that copies nothing.

    Attributes:
        replaced: Number of rows of the old matrix that were encoded again: their items have changed or had failed.
        dropped: Number of rows of the old matrix for which the input has no item any more.
    """

    def __init__(self, target: MatrixTarget | None) -> None:
        self.replaced: int = 0
        self.dropped: int = 0
        self._target = target
        self._before: Before | None = None
        self._index: Index | None = None
        self._spans: deque[Span] = deque()

    def open(self, mode: Mode, source: Any) -> Any:
        """Read which items the old matrix has, if there is one.

        Args:
            mode: How the caller waits.
            source: The input.

        Returns:
            An input of which each block has the names of all its rows, and the items of those that are to be encoded.
        """
        self._before = None if self._target is None else self._target.read_before()
        if self._before is None:
            return source
        self._index = Index(self._before.keys())
        if isinstance(mode, OnLoop):
            return AsyncCopying(partial(mode.take, source), self._look_up)
        return Source(lambda most: self._look_up(source.take(most)))

    def compared(self, source: Any) -> Any:
        """Return an input whose items are looked up as they are read: the new matrix has them already."""
        if isinstance(source, AsyncSource):
            return AsyncCopying(source.take, self._pass)
        return Source(lambda most: self._pass(source.take(most)), source.total, source.holds)

    def _pass(self, block: Block) -> Block:
        if self._index is not None:
            self._rows_of(block)
        return block

    def _rows_of(self, block: Block) -> list[int | None]:
        """Return the row of the old matrix for each of some items, ``None`` where it has none."""
        assert self._index is not None
        return self._index.look_up(block.names, contents_of(block.contents, len(block)))

    def _look_up(self, block: Block) -> Block:
        found = self._rows_of(block)
        spans: list[Span] = []
        for row in found:
            if spans and row == (None if spans[-1].first is None else spans[-1].first + spans[-1].rows):
                spans[-1].rows += 1
            else:
                spans.append(Span(row, 1))
        # All at once, because the writer of rows takes spans from the other end at the same time.
        self._spans.extend(spans)
        items = [item for item, row in zip(block.items, found, strict=True) if row is None]
        return msgspec.structs.replace(block, items=items)

    def forget(self) -> None:
        """Forget the rows that were looked up and are not in the new matrix."""
        self._spans.clear()

    def around(self, piece: EncodeResult) -> Iterator[EncodeResult]:
        """Yield rows that were encoded, and those that are copied before and between them."""
        if self._index is None:
            yield piece
            return
        done, rows = 0, len(piece.embeddings)
        while done < rows:
            yield from self.before_next()
            span = self._spans[0]
            count = min(span.rows, rows - done)
            yield _part_of(piece, done, count)
            done += count
            span.rows -= count
            if not span.rows:
                self._spans.popleft()

    def before_next(self) -> Iterator[Copied]:
        """Yield the rows that are copied before the next one that is encoded."""
        while self._spans and self._spans[0].first is not None:
            assert self._before is not None
            span = self._spans.popleft()
            assert span.first is not None
            # A block of the input ends no span.
            while self._spans and self._spans[0].first == span.first + span.rows:
                span.rows += self._spans.popleft().rows
            for start in range(0, span.rows, READ_ROWS):
                yield Copied(embeddings=self._before.rows(span.first + start, min(READ_ROWS, span.rows - start)))

    def count(self) -> None:
        """Count the rows that were not taken, now that all of the input was read."""
        if self._index is not None:
            self.replaced = self._index.replaced
            self.dropped = int((~self._index.stays).sum()) - self.replaced


def _part_of(piece: EncodeResult, start: int, rows: int) -> EncodeResult:
    """Return some rows of a piece; what else is said of all of it stays with the first ones."""
    if rows == len(piece.embeddings):
        return piece
    first = piece.start + start
    errors = tuple(error for error in piece.errors if first <= error.index < first + rows)
    embeddings = piece.embeddings[start : start + rows]
    if start:
        return EncodeResult(embeddings=embeddings, errors=errors, start=first)
    return msgspec.structs.replace(piece, embeddings=embeddings, errors=errors)


class AsyncCopying(AsyncSource):
    """An async input of which only those items are handed out that are to be encoded.

    Args:
        read: Reads up to so many items of the input.
        look_up: Leaves out the items of rows that are copied.
    """

    def __init__(self, read: Callable[[int], Awaitable[Block]], look_up: Callable[[Block], Block]) -> None:
        self._read = read
        self._look_up = look_up

    async def take(self, most: int) -> Block:
        """Take up to so many rows."""
        block = self._look_up(await self._read(most))
        return msgspec.structs.replace(block, items=await at_hand(block.items))
