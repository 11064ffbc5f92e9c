"""Content -> batches: which code runs where while it is read.

Of the caller's own code nothing runs on the engine. Its iterable is read where the caller is, or in a thread of its own
(see `casdk._content.feeds`). Items of other types than builtin ones are read apart, on a worker: arrays, images of
PIL's, paths, documents of docarray's, classes of the caller's own. Chunks stay in order: what comes after one that is
being read apart waits for it, while no other call does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from casdk._calls.answers import Answer
from casdk._calls.batches import Batch, Repeats, Sifted, Unfinished
from casdk._calls.decisions import Call
from casdk._calls.progress import Progress
from casdk._calls.tasks import Tasks
from casdk._content.feeds import Feed
from casdk._content.inputs import DOCUMENT, EVERYTHING, Chunk, Sources, glance, unread
from casdk._engine.callers import Caller, EscapedError
from casdk._wording import class_name, message_of
from casdk.errors import CasdkError, ItemTypeError

__all__ = ["Host", "Manner", "Reading"]


class Manner(NamedTuple):
    """How a verb reads its items.

    Attributes:
        read: Reads a chunk apart, as `read_chunk` does.
        keep: Takes a chunk that was read, on the engine.
        plain: Whether items of builtin types need not be read apart.
        sources: Where the client may look.
    """

    read: Callable[..., Chunk]
    keep: Callable[[list[Any], Chunk], Chunk] | None = None
    plain: bool = True
    sources: Sources = EVERYTHING


class Host(Protocol):
    """What runs the call that is read for.

    Attributes:
        caller: Where the call came from.
        tasks: What is under way.
    """

    caller: Caller[Any]
    tasks: Tasks

    def give(self) -> None:
        """Hand over the pieces whose turn it is."""


class _Unread(NamedTuple):
    items: list[Any]
    indices: range
    read_at: float


class Reading:
    """Reads one call's content.

    Args:
        call: Gets the batches.
        feed: The content.
        answer: Told of each chunk.
        manner: How items are read.
        unfinished: Takes note of the items that were read and have no result.
        repeats: Finds items that need not be sent again.
        progress: The bar.

    Attributes:
        count: Items read.
    """

    def __init__(
        self,
        call: Call,
        feed: Feed,
        answer: Answer,
        manner: Manner,
        unfinished: Unfinished,
        repeats: Repeats | None,
        progress: Progress | None,
    ) -> None:
        self.count = 0
        self._call = call
        self._feed = feed
        self._answer = answer
        self._manner = manner
        self._unfinished = unfinished
        self._repeats = repeats
        self._progress = progress
        self._asking = self._ended = False
        self._unread: deque[_Unread] = deque()
        self._host: Host | None = None

    @property
    def may_go_on(self) -> bool:
        """Whether there is more to be read at once."""
        return self._feed.direct and not self._unread and self._call.room > 0

    def go_on(self, host: Host) -> None:
        """Read as far as there is room, or begin to; what has begun comes first."""
        if self._asking or self._unread or (room := self._call.room) <= 0:
            return
        self._host = host
        if not self._feed.direct:
            self._asking = True
            host.tasks.spawn(self._read_from_caller, reads=True)
            return
        while room > 0 and not self._unread:
            chunks = self._feed.read_held(room)
            for chunk in chunks:
                self._take(chunk)
            if len(chunks) < room or len(chunks[-1]) < self._feed.size:
                self._ended = True
                if not self._unread:
                    self._call.end_input()
                return
            room = self._call.room

    def close(self) -> None:
        """Read no more: the call is over."""
        if not self._feed.direct:
            self._feed.close()
        self._host = None  # which holds this

    async def _read_from_caller(self) -> None:
        host = self._host
        assert host is not None
        try:
            self._ended = await self._feed.read(self._call.room, host.caller, self._arrive)
        except CasdkError as error:  # of a call inside the iterable: it is none of this call's
            raise EscapedError(error) from None
        finally:
            self._asking = False
            del host
        self._end_if_read()

    def _end_if_read(self) -> None:
        if self._ended and not self._unread:
            self._call.end_input()

    def _arrive(self, items: list[Any]) -> None:
        host = self._host
        if host is None:
            return
        self._feed.taken()
        try:
            self._take(items)
        except Exception as error:  # whoever posts a chunk does not wait for what becomes of it
            self._call.stop(error)
        host.tasks.wake()

    def _take(self, items: list[Any]) -> None:
        """Read a chunk here, or have it read apart, behind those that are."""
        chunk = _Unread(items, self._open(items), perf_counter())
        if self._unread or not self._read_here(chunk):
            self._unread.append(chunk)
            if len(self._unread) == 1 and self._host is not None:
                self._host.tasks.spawn(self._read_apart, reads=True)

    def _open(self, items: list[Any]) -> range:
        """Count items as read; return their indices."""
        start = self.count
        self.count += len(items)
        self._unfinished.chunks[start] = items
        if self._answer.pieces:
            self._answer.opened(start, items)
        return range(start, self.count)

    async def _read_apart(self) -> None:
        while self._unread and self._host is not None:
            chunk = self._unread[0]
            if not self._read_here(chunk):
                sifted, read = await self._host.caller.run_on_worker(partial(self._look_at, chunk.items, chunk.indices))
                self._add(chunk, read, sifted)
            self._unread.popleft()
        self._end_if_read()

    def _read_here(self, chunk: _Unread) -> bool:
        """Read a chunk on the engine if that runs none of the caller's code; return whether it did."""
        read = glance(chunk.items, self._manner.sources) if self._manner.plain else None
        if read is None:
            return False
        sifted = None
        if self._repeats is not None:
            if DOCUMENT in read.verdicts or not self._repeats.are_plain:
                return False  # they may be compared in a way of their own
            sifted = self._repeats.sift(chunk.items, chunk.indices.start, plain=True)
            if sifted is not None:
                read = read.of(sifted.positions)
        self._add(chunk, read, sifted)
        return True

    def _look_at(self, items: list[Any], indices: range) -> tuple[Sifted | None, Chunk]:
        """Read a chunk whatever it runs; called on a worker."""
        sifted = None if self._repeats is None else self._repeats.sift(items, indices.start, plain=False)
        new: Sequence[int] = indices
        if sifted is not None:
            items, new = _picked(items, sifted), _picked(indices, sifted)
        return sifted, self._manner.read(items, new, is_over=lambda: self._host is None)

    def _add(self, chunk: _Unread, read: Chunk, sifted: Sifted | None) -> None:
        items: list[Any] = chunk.items
        indices: Sequence[int] = chunk.indices
        if sifted is not None:
            self._leave_out(chunk, sifted)
            items, indices = _picked(items, sifted), _picked(indices, sifted)
        if self._manner.keep is not None:
            read = self._manner.keep(items, read)
        batch = Batch(indices, read.items, read.verdicts, chunk.read_at)
        if read.errors:
            for error in read.errors.values():
                self._call.refuse(error)
            batch = batch.without(read.errors)
        if batch.items:
            self._call.add(batch)
        elif self._host is not None:
            self._host.give()

    def _leave_out(self, chunk: _Unread, sifted: Sifted) -> None:
        """See to the repeats in a chunk, and to what could not be compared."""
        for position, cause in sifted.failed.items():
            reason = f"comparing it with the others, for dedupe=True, raised {class_name(cause)}: {message_of(cause)}"
            self._call.refuse(ItemTypeError(chunk.indices[position], chunk.items[position], reason, cause))
        repeats = sorted({*range(len(chunk.items))}.difference(sifted.positions, sifted.failed))
        self._unfinished.settle([chunk.indices[position] for position in repeats])
        if self._progress is not None:
            self._progress.advance(len(repeats), 0, 0)

    def take_rest(self) -> None:
        """Count what had been read, but not looked at when the call ended; called where the caller is.

        A caller whose iterable cannot be read a second time has to know of these items, too. No code of theirs is run.
        """
        for items in self._feed.untaken():
            self._unread.append(_Unread(items, self._open(items), perf_counter()))
        while self._unread:
            items = self._unread.popleft().items
            if self._manner.keep is not None:
                self._manner.keep(items, unread(items))


def _picked(of: Sequence[Any], sifted: Sifted) -> list[Any]:
    return [of[position] for position in sifted.positions]
