"""A long input through a client in flat memory: a few pieces of it at once, their results in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import msgspec

from casdk.cli.content import Entry
from casdk.errors import ItemError

__all__ = ["Bar", "Piece", "run_pieces"]

T = TypeVar("T")

PIECE: Final = 256
"""Items per piece: some requests of the default size, so that a bar moves."""
PIECES: Final = 3
"""Pieces under way: while one's last requests are awaited, the next one's are sent."""


class Piece(msgspec.Struct, Generic[T], frozen=True, eq=False):
    """Some items and what came of them.

    Attributes:
        first: Position of the first item in the whole input.
        entries: The items.
        result: What the call returned.
    """

    first: int
    entries: list[Entry]
    result: T


async def run_pieces(
    call: Callable[[list[Any]], Awaitable[T]], entries: Iterable[Entry], size: int = PIECE
) -> AsyncGenerator[Piece[T], None]:
    """Call with piece after piece of the items and yield the results in order.

    Raises:
        ItemError: As the call raised it, its index that of the whole input.
    """
    pending: deque[tuple[int, list[Entry], asyncio.Future[T]]] = deque()
    pieces = _cut(entries, size)
    try:
        while True:
            while len(pending) < PIECES and (piece := next(pieces, None)) is not None:
                first, taken = piece
                pending.append((first, taken, asyncio.ensure_future(call([entry.item for entry in taken]))))
            if not pending:
                return
            first, taken, future = pending[0]
            try:
                result = await future
            except ItemError as error:
                error.index += first
                raise
            pending.popleft()
            yield Piece(first, taken, result)
    finally:
        for *_, future in pending:
            future.cancel()
        await asyncio.gather(*(future for *_, future in pending), return_exceptions=True)


def _cut(entries: Iterable[Entry], size: int) -> Iterator[tuple[int, list[Entry]]]:
    left, first = iter(entries), 0
    while taken := list(islice(left, size)):
        yield first, taken
        first += len(taken)


class Bar:
    """A bar on standard error while items are done, if that is a terminal; a context manager.

    Args:
        title: Shown before it.
        total: Items in all, if known.
    """

    def __init__(self, title: str, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._row = self._progress.add_task(title, total=total, rate="")

    def advance(self, items: int) -> None:
        """Count items as done."""
        self._progress.advance(self._row, items)
        speed = self._progress.tasks[0].speed
        if speed:
            self._progress.update(self._row, rate=f"{speed:,.0f} items/s")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
