"""Batches and requests, the items that repeat earlier ones, and the items that have no result yet.

`Run`, `Reading` and the decisions share these structs; there is no I/O here.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from casdk.documents.recognise import hold_documents, recognise
from casdk.errors import ItemError

if TYPE_CHECKING:
    from casdk._calls.allowance import Ticket
    from casdk._calls.choice import Assignment, ServerRecord
    from casdk._rust import Codec
    from casdk._transport.transport import Transport

__all__ = ["Batch", "NewItems", "Repeats", "Request", "Unfinished", "moved"]


class Batch(msgspec.Struct, eq=False):
    """Items that travel in one request.

    Attributes:
        indices: Index of each item in the content.
        items: The items, in the packer's types.
        kinds: What each of them is, a `casdk._rust.Kind`, one byte per item.
        attempts: Times it was sent.
        excused: Attempts that found the server away, and so do not count.
        outages: Times the server went away while the batch was with it.
        errors: What was wrong with each URL that could not be fetched.
        isolation: The search for a bad item that it is a part of.
        failed_at: What the pool knows of the server that failed on it last, if one did.
        not_before: When it may be sent again, in the engine's time.
        sent: Whether it was handed to the connection, in its latest attempt.
        read_at: When its items were read; this and the next two are times of `time.perf_counter`.
        taken_at: When its packing began, in its latest attempt.
        packed_at: When it was packed, in its latest attempt.
        crops: How many crops its message has in the place of pictures, by position; empty if none are wanted.
    """

    indices: Sequence[int]
    items: list[Any]
    kinds: bytes
    read_at: float = 0.0
    attempts: int = 0
    excused: int = 0
    outages: int = 0
    errors: dict[str, Exception] | None = None
    isolation: Any = None
    failed_at: ServerRecord | None = None
    not_before: float = 0.0
    sent: bool = False
    taken_at: float = 0.0
    packed_at: float = 0.0
    crops: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.items)

    def part(self, start: int, stop: int | None = None) -> Batch:
        """Return some of it as a batch of its own, never sent so far."""
        return Batch(self.indices[start:stop], self.items[start:stop], self.kinds[start:stop], self.read_at)

    def without(self, positions: Container[int]) -> Batch:
        """Return a batch of the items at all other positions."""
        left = [position for position in range(len(self)) if position not in positions]
        return Batch(
            [self.indices[position] for position in left],
            [self.items[position] for position in left],
            bytes(self.kinds[position] for position in left),
            self.read_at,
        )

    def joined(self, other: Batch) -> Batch:
        """Return both as one batch, this one's items first."""
        read_at = min(self.read_at, other.read_at)
        return Batch([*self.indices, *other.indices], self.items + other.items, self.kinds + other.kinds, read_at)


class Request(msgspec.Struct, eq=False):
    """One attempt to send a batch and to get its reply; `Run` makes one for each attempt.

    Attributes:
        batch: The items that it carries.
        id: Its id, which the reply repeats.
        transport: The server that it is sent to, once that is decided.
        codec: The form that its message is written in.
        assignment: What the pool has noted about it, if there is a pool.
        ticket: What the pace of the only server has noted about it, while that server refuses requests.
        send_at: When it may be sent, if not at once, in the engine's time.
        size: Bytes that count as in flight.
        reported: Whether the callbacks were called for it.
    """

    batch: Batch
    id: str
    transport: Transport | None = None
    codec: Codec = "proto"
    assignment: Assignment | None = None
    ticket: Ticket | None = None
    send_at: float | None = None
    size: int = 0
    reported: bool = False


class NewItems(NamedTuple):
    """The items of a chunk that repeat no earlier one.

    Attributes:
        positions: Their positions in the chunk.
        failed: What comparing an item with others has raised, by its position.
    """

    positions: list[int]
    failed: dict[int, Exception]


class Repeats:
    """Finds items that equal earlier ones of the same call, for ``dedupe=True``.

    Attributes:
        found: Index of each repeat and of what it repeats.
        are_plain: Whether comparing builtin items with those seen so far runs none of the caller's code.
    """

    def __init__(self) -> None:
        self.found: list[tuple[int, int]] = []
        self.are_plain = True
        # A set of the items is enough until one repeats; filling it takes a tenth of the time of a dict of indices.
        self._seen: set[Any] = set()
        self._read: list[Any] = []
        self._firsts: dict[Any, int] | None = None

    def find_new(self, items: list[Any], start: int, *, plain: bool) -> NewItems | None:
        """Return which items repeat no earlier one; ``None`` if none of them repeats one.

        Items that cannot be hashed (arrays, Documents) count as new, and so do docarray's documents.

        Args:
            items: The next chunk of the content.
            start: Index of its first item.
            plain: Whether all of them are builtin; otherwise their ``__hash__`` and ``__eq__`` are run.
        """
        self.are_plain &= plain
        theirs = hold_documents(items)
        if self._firsts is None:
            if not theirs and self._are_new(items):
                return None
            self._firsts = dict(zip(self._read, range(start - len(self._read), start), strict=True))
            self._seen, self._read = set(), []
        known, firsts = self._firsts, None
        if not theirs:
            with suppress(Exception):  # one that fails is found below, one by one
                firsts = list(map(known.setdefault, items, range(start, start + len(items))))
        failed: dict[int, Exception] = {}
        if firsts is None:
            firsts = [_first(known, item, start + position, position, failed) for position, item in enumerate(items)]
        if not failed and firsts == list(range(start, start + len(items))):
            return None
        self.found += [(start + position, first) for position, first in enumerate(firsts) if first != start + position]
        new = [position for position, first in enumerate(firsts) if first == start + position]
        return NewItems([position for position in new if position not in failed], failed)

    def spread(self, bad: dict[int, ItemError], left: dict[int, Any]) -> None:
        """Mark the repeats of each item without a result as having no result, too.

        Args:
            bad: Errors by index; those of repeats are added.
            left: Items that were read and not done, by index; repeats are added.
        """
        for index, first in self.found:
            if first in bad:
                bad[index] = moved(bad[first], index - first)
            elif first in left:
                left[index] = left[first]

    def copy(self, rows: np.ndarray[Any, Any]) -> None:
        """Copy the row of each item to those that repeat it.

        Args:
            rows: ``[N, D]``; fewer, if the call was stopped because there is no room for more.
        """
        if self.found and rows.size:
            again, firsts = np.array([pair for pair in self.found if pair[0] < len(rows)], int).reshape(-1, 2).T
            rows[again] = rows[firsts]

    def _are_new(self, items: list[Any]) -> bool:
        count = len(self._seen) + len(items)
        try:
            self._seen.update(items)
        except Exception:
            return False
        if len(self._seen) < count:
            return False
        self._read += items
        return True


def _first(known: dict[Any, int], item: Any, index: int, position: int, failed: dict[int, Exception]) -> int:
    if recognise(item):
        return index
    try:
        return known.setdefault(item, index)
    except TypeError:  # it cannot be hashed
        return index
    except Exception as error:
        failed[position] = error
        return index


def moved(error: ItemError, by: int) -> ItemError:
    """Return a copy of the error whose index is another."""
    copied = copy.copy(error)
    copied.index += by
    return copied


class Unfinished(msgspec.Struct, eq=False):
    """Items that were read and have no result so far, as the caller passed them.

    Attributes:
        chunks: The chunks, by the index of the first item, ascending; a request never has items of two chunks.
        parts: Indices without a result in a chunk, by its start, once other items of the chunk have one.
    """

    chunks: dict[int, Sequence[Any]] = {}
    parts: dict[int, set[int]] = {}

    def mark_done(self, indices: Sequence[int]) -> None:
        """Note that items of one chunk have a result, or will have none."""
        if not indices:
            return
        first, chunks = indices[0], self.chunks
        items = chunks.get(first)
        if items is not None and len(indices) == len(items):  # a whole chunk, most of the time
            del chunks[first]
            if self.parts:
                self.parts.pop(first, None)
            return
        if (start := self.start_of(first)) is None:
            return
        items = chunks[start]
        left = self.parts.setdefault(start, set(range(start, start + len(items))))
        left.difference_update(indices)
        if not left:
            del self.chunks[start], self.parts[start]

    def item(self, index: int, otherwise: Any) -> Any:
        """Return an item of a chunk that is not done as a whole, else ``otherwise``."""
        start = self.start_of(index)
        return otherwise if start is None else self.chunks[start][index - start]

    def start_of(self, index: int) -> int | None:
        """Return where the chunk of an item begins, unless the whole chunk is done; a window has few chunks."""
        for start in reversed(self.chunks):
            if start <= index:
                return start if index < start + len(self.chunks[start]) else None
        return None

    def left(self) -> dict[int, Any]:
        """Return what has no result, by index, ascending."""
        return {
            start + position: item
            for start, items in sorted(self.chunks.items(), key=itemgetter(0))
            for position, item in enumerate(items)
            if start not in self.parts or start + position in self.parts[start]
        }
