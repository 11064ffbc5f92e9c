"""Content -> batches: which code runs where while it is read.

None of the caller's own code runs on the engine. The iterable is read where the caller is, or in a thread of its own
(see `casdk._content.feeds`). A chunk with items of other types than builtin ones is read on a worker: arrays, images of
PIL's, paths, documents of docarray's, classes of the caller's own. Chunks stay in order: the next chunks of the same
call wait for one that a worker reads, while other calls go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from casdk._calls.answers import Answer
from casdk._calls.batches import Batch, NewItems, Repeats, Unfinished
from casdk._calls.decisions import Call
from casdk._calls.originals import Originals
from casdk._calls.progress import Progress
from casdk._calls.tasks import Tasks
from casdk._content.feeds import Feed
from casdk._content.inputs import Chunk, Sources, unread
from casdk._engine.callers import Caller, EscapedError
from casdk._rust import Kind, classify
from casdk._wording import class_name, message_of
from casdk.errors import CasdkError, ItemTypeError

if TYPE_CHECKING:
    from casdk._calls.verbs import Verb

__all__ = ["Host", "Manner", "Reading"]


UNCLEAR: Final = Kind.UNCLEAR


class Manner(msgspec.Struct, frozen=True):
    """How a call reads its items.

    Attributes:
        verb: The verb, whose ``read`` reads them.
        originals: Stores the caller's Documents, if the verb returns them.
        answer: The call's answer, which ``read`` may fill.
        max_item_bytes: The most bytes that an image may have.
        sources: Where images may be read from.
    """

    verb: Verb
    originals: Originals
    answer: Answer
    max_item_bytes: int
    sources: Sources

    def read(self, items: list[Any], indices: Sequence[int], is_over: Callable[[], bool]) -> Chunk:
        """Read a chunk, which may run the caller's code; called on a worker."""
        return self.verb.read(
            self.originals,
            self.answer,
            items,
            indices,
            max_item_bytes=self.max_item_bytes,
            sources=self.sources,
            is_over=is_over,
        )


class Host(Protocol):
    """What runs the call whose content is read: a `Run`.

    Attributes:
        caller: The thread or loop that the call came from.
        tasks: The call's tasks.
    """

    caller: Caller[Any]
    tasks: Tasks

    def hand_over_pieces(self) -> None:
        """Hand over the pieces that are complete and next in order."""


class _Unread(NamedTuple):
    """A chunk from the iterable whose items have not been looked at yet."""

    items: list[Any]
    indices: range
    read_at: float


class Reading(msgspec.Struct, eq=False):
    """Reads one call's content into batches, as far as the call has room for them.

    Attributes:
        call: The decisions, which get the batches.
        feed: The content.
        answer: The call's answer, which is notified of each chunk.
        manner: How items are read.
        unfinished: Stores the items that were read and have no result.
        repeats: Finds items that repeat earlier ones, for ``dedupe=True``.
        progress: The progress bar.
        count: How many items were read.
        asking: Whether the caller reads its iterable now.
        ended: Whether the iterable has no more items.
        unread: Chunks from the iterable that wait for a worker, which looks at the first.
        host: What runs the call, while it does.
    """

    call: Call
    feed: Feed
    answer: Answer
    manner: Manner
    unfinished: Unfinished
    repeats: Repeats | None = None
    progress: Progress | None = None
    count: int = 0
    asking: bool = False
    ended: bool = False
    unread: list[_Unread] = []
    host: Host | None = None

    @property
    def may_go_on(self) -> bool:
        """Whether more content can be read now, without waiting for the caller or a worker."""
        return self.feed.direct and not self.unread and self.call.room() > 0

    def go_on(self, host: Host) -> None:
        """Read as far as the call has room, or begin to; nothing begins while the caller or a worker still reads."""
        if self.asking or self.unread or (room := self.call.room()) <= 0:
            return
        self.host = host
        if not self.feed.direct:
            self.asking = True
            host.tasks.spawn(self._read_from_caller, reads=True)
            return
        while room > 0 and not self.unread:
            chunks = self.feed.read_held(room)
            for chunk in chunks:
                self._take(chunk)
            if len(chunks) < room or len(chunks[-1]) < self.feed.size:
                if self.unread:
                    self.ended = True
                else:
                    self.call.end_input()
                return
            room = self.call.room()

    def take_sentences(self, items: list[Any], kinds: bytes) -> None:
        """Take all of the content, sentences that were read from a list where the caller is."""
        self._add(items, self._open(items), perf_counter(), Chunk(items, kinds), None)
        self.call.end_input()

    def close(self) -> None:
        """Stop reading, since the call is over."""
        if not self.feed.direct:
            self.feed.close()
        self.host = None  # it refers to this object

    async def _read_from_caller(self) -> None:
        host = self.host
        assert host is not None
        try:
            self.ended = await self.feed.read(self.call.room(), host.caller, self._arrive)
        except CasdkError as error:  # raised by another call, which the iterable has made
            raise EscapedError(error) from None
        finally:
            self.asking = False
            del host
        self._end_if_read()

    def _end_if_read(self) -> None:
        if self.ended and not self.unread:
            self.call.end_input()

    def _arrive(self, items: list[Any]) -> None:
        host = self.host
        if host is None:
            return
        self.feed.taken()
        try:
            self._take(items)
        except Exception as error:  # the caller has posted this function, and no code waits for its outcome
            self.call.stop(error)
        host.tasks.wake()

    def _take(self, items: list[Any]) -> None:
        """Read a chunk here; or on a worker, after the chunks that wait for a worker already."""
        indices, read_at = self._open(items), perf_counter()
        if self.unread or not self._read_here(items, indices, read_at):
            self.unread.append(_Unread(items, indices, read_at))
            if len(self.unread) == 1 and self.host is not None:
                self.host.tasks.spawn(self._read_on_worker, reads=True)

    def _open(self, items: list[Any]) -> range:
        """Count items as read; return their indices."""
        start = self.count
        self.count = end = start + len(items)
        self.unfinished.chunks[start] = items
        if self.answer.pieces:
            self.answer.opened(start, items)
        return range(start, end)

    async def _read_on_worker(self) -> None:
        while self.unread and self.host is not None:
            items, indices, read_at = self.unread[0]
            if not self._read_here(items, indices, read_at):
                new, read = await self.host.caller.run_on_worker(partial(self._look_at, items, indices))
                self._add(items, indices, read_at, read, new)
            self.unread.pop(0)
        self._end_if_read()

    def _read_here(self, items: list[Any], indices: range, read_at: float) -> bool:
        """Read a chunk on the engine if that runs none of the caller's code; return whether it did."""
        manner = self.manner
        kinds = classify(items, look=manner.sources.local_files) if manner.verb.plain else None
        if kinds is None or UNCLEAR in kinds:
            return False
        read, new = Chunk(items, kinds), None
        if self.repeats is not None:
            if Kind.DOCUMENT in kinds or not self.repeats.are_plain:
                return False  # comparing them may run the caller's code
            new = self.repeats.find_new(items, indices.start, plain=True)
            if new is not None:
                read = read.of(new.positions)
        self._add(items, indices, read_at, read, new)
        return True

    def _look_at(self, items: list[Any], indices: range) -> tuple[NewItems | None, Chunk]:
        """Read a chunk, which may run the caller's code; called on a worker."""
        new = None if self.repeats is None else self.repeats.find_new(items, indices.start, plain=False)
        left: Sequence[int] = indices
        if new is not None:
            items, left = _picked(items, new), _picked(indices, new)
        return new, self.manner.read(items, left, lambda: self.host is None)

    def _add(self, items: list[Any], indices: Sequence[int], read_at: float, read: Chunk, new: NewItems | None) -> None:
        if new is not None:
            self._leave_out(items, indices, new)
            items, indices = _picked(items, new), _picked(indices, new)
        manner = self.manner
        if (keep := manner.verb.keep) is not None:
            read = keep(manner.originals, items, read)
        batch = Batch(indices, read.items, read.kinds, read_at)
        if read.errors:
            for error in read.errors.values():
                self.call.refuse(error)
            batch = batch.without(read.errors)
        if batch.items:
            self.call.add(batch)
        elif self.host is not None:
            self.host.hand_over_pieces()

    def _leave_out(self, items: list[Any], indices: Sequence[int], new: NewItems) -> None:
        """Mark the repeats in a chunk as done, and refuse the items that could not be compared."""
        for position, cause in new.failed.items():
            reason = f"comparing it with the others, for dedupe=True, raised {class_name(cause)}: {message_of(cause)}"
            self.call.refuse(ItemTypeError(indices[position], items[position], reason, cause))
        repeats = sorted({*range(len(items))}.difference(new.positions, new.failed))
        self.unfinished.mark_done([indices[position] for position in repeats])
        if self.progress is not None:
            self.progress.advance(len(repeats), 0, 0)

    def take_rest(self) -> None:
        """Count the items that were taken from the iterable, and not looked at, before the call ended.

        A caller whose iterable cannot be read a second time needs these items back, too. This runs where the caller is,
        and runs no code of the items.
        """
        for items in self.feed.untaken():
            self.unread.append(_Unread(items, self._open(items), perf_counter()))
        while self.unread:
            items = self.unread.pop(0).items
            if (keep := self.manner.verb.keep) is not None:
                keep(self.manner.originals, items, unread(items))


def _picked(of: Sequence[Any], new: NewItems) -> list[Any]:
    return [of[position] for position in new.positions]
