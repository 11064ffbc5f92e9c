"""Content -> batches: which code runs where while it is read.

None of the caller's own code runs on the engine. The iterable is read where the caller is, or in a thread of its own
(see `casdk._content.feeds`). A chunk with items of other types than builtin ones is read on a worker: arrays, images of
PIL's, paths, documents of docarray's, classes of the caller's own. Chunks stay in order: the next chunks of the same
call wait for one that a worker reads, while other calls go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from casdk._calls.answers import Answer
from casdk._calls.batches import Batch, NewItems, Repeats, Unfinished
from casdk._calls.decisions import Call
from casdk._calls.progress import Progress
from casdk._calls.tasks import Tasks
from casdk._content.feeds import Feed
from casdk._content.inputs import EVERYTHING, Chunk, Sources, glance, unread
from casdk._engine.callers import Caller, EscapedError
from casdk._rust import Kind
from casdk._wording import class_name, message_of
from casdk.errors import CasdkError, ItemTypeError

__all__ = ["Host", "Manner", "Reading"]


class Manner(NamedTuple):
    """How a verb reads its items.

    Attributes:
        read: Reads a chunk on a worker, as `read_chunk` does.
        keep: Takes each chunk that was read, on the engine.
        plain: Whether items of builtin types are read without ``read``.
        sources: Where the client may look for images.
    """

    read: Callable[..., Chunk]
    keep: Callable[[list[Any], Chunk], Chunk] | None = None
    plain: bool = True
    sources: Sources = EVERYTHING


class Host(Protocol):
    """What runs the call whose content is read: a `Run`.

    Attributes:
        caller: Where the call came from.
        tasks: What is under way.
    """

    caller: Caller[Any]
    tasks: Tasks

    def hand_over_pieces(self) -> None:
        """Hand over the pieces whose turn it is."""


class _Unread(NamedTuple):
    """A chunk from the iterable whose items have not been looked at yet."""

    items: list[Any]
    indices: range
    read_at: float


class Reading:
    """Reads one call's content into batches, as far as the call has room for them.

    Args:
        call: Gets the batches.
        feed: The content.
        answer: Notified of each chunk.
        manner: How items are read.
        unfinished: Stores the items that were read and have no result.
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
                self._end_if_read()
                return
            room = self._call.room

    def close(self) -> None:
        """Read no more: the call is over."""
        if not self._feed.direct:
            self._feed.close()
        self._host = None  # it refers to this object

    async def _read_from_caller(self) -> None:
        host = self._host
        assert host is not None
        try:
            self._ended = await self._feed.read(self._call.room, host.caller, self._arrive)
        except CasdkError as error:  # of another call, which the iterable has made
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
        except Exception as error:  # nobody waits for this function, which the caller has posted
            self._call.stop(error)
        host.tasks.wake()

    def _take(self, items: list[Any]) -> None:
        """Read a chunk here, or on a worker, after the chunks that wait for one."""
        chunk = _Unread(items, self._open(items), perf_counter())
        if self._unread or not self._read_here(chunk):
            self._unread.append(chunk)
            if len(self._unread) == 1 and self._host is not None:
                self._host.tasks.spawn(self._read_on_worker, reads=True)

    def _open(self, items: list[Any]) -> range:
        """Count items as read; return their indices."""
        start = self.count
        self.count += len(items)
        self._unfinished.chunks[start] = items
        if self._answer.pieces:
            self._answer.opened(start, items)
        return range(start, self.count)

    async def _read_on_worker(self) -> None:
        while self._unread and self._host is not None:
            chunk = self._unread[0]
            if not self._read_here(chunk):
                new, read = await self._host.caller.run_on_worker(partial(self._look_at, chunk.items, chunk.indices))
                self._add(chunk, read, new)
            self._unread.popleft()
        self._end_if_read()

    def _read_here(self, chunk: _Unread) -> bool:
        """Read a chunk on the engine if that runs none of the caller's code; return whether it did."""
        read = glance(chunk.items, self._manner.sources) if self._manner.plain else None
        if read is None:
            return False
        new = None
        if self._repeats is not None:
            if Kind.DOCUMENT in read.kinds or not self._repeats.are_plain:
                return False  # comparing them may run the caller's code
            new = self._repeats.find_new(chunk.items, chunk.indices.start, plain=True)
            if new is not None:
                read = read.of(new.positions)
        self._add(chunk, read, new)
        return True

    def _look_at(self, items: list[Any], indices: range) -> tuple[NewItems | None, Chunk]:
        """Read a chunk, which may run the caller's code; called on a worker."""
        new = None if self._repeats is None else self._repeats.find_new(items, indices.start, plain=False)
        left: Sequence[int] = indices
        if new is not None:
            items, left = _picked(items, new), _picked(indices, new)
        return new, self._manner.read(items, left, is_over=lambda: self._host is None)

    def _add(self, chunk: _Unread, read: Chunk, new: NewItems | None) -> None:
        items: list[Any] = chunk.items
        indices: Sequence[int] = chunk.indices
        if new is not None:
            self._leave_out(chunk, new)
            items, indices = _picked(items, new), _picked(indices, new)
        if self._manner.keep is not None:
            read = self._manner.keep(items, read)
        batch = Batch(indices, read.items, read.kinds, chunk.read_at)
        if read.errors:
            for error in read.errors.values():
                self._call.refuse(error)
            batch = batch.without(read.errors)
        if batch.items:
            self._call.add(batch)
        elif self._host is not None:
            self._host.hand_over_pieces()

    def _leave_out(self, chunk: _Unread, new: NewItems) -> None:
        """Mark the repeats in a chunk as done, and refuse the items that could not be compared."""
        for position, cause in new.failed.items():
            reason = f"comparing it with the others, for dedupe=True, raised {class_name(cause)}: {message_of(cause)}"
            self._call.refuse(ItemTypeError(chunk.indices[position], chunk.items[position], reason, cause))
        repeats = sorted({*range(len(chunk.items))}.difference(new.positions, new.failed))
        self._unfinished.mark_done([chunk.indices[position] for position in repeats])
        if self._progress is not None:
            self._progress.advance(len(repeats), 0, 0)

    def take_rest(self) -> None:
        """Count the items that had been read from the iterable and not been looked at when the call ended.

        A caller whose iterable cannot be read a second time has to get these items back, too. Called where the caller
        is; none of the items' code is run.
        """
        for items in self._feed.untaken():
            self._unread.append(_Unread(items, self._open(items), perf_counter()))
        while self._unread:
            items = self._unread.popleft().items
            if self._manner.keep is not None:
                self._manner.keep(items, unread(items))


def _picked(of: Sequence[Any], new: NewItems) -> list[Any]:
    return [of[position] for position in new.positions]
