"""Replies -> what the caller gets back: one class for each kind of answer.

A `Run` passes the replies to its answer, on the engine; where the caller is, the verb's ``finish`` makes the result.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, TypeVar

import numpy as np

from casdk._calls.batches import Unfinished
from casdk._calls.options import DTYPES, Options
from casdk._calls.outcome import Outcome, Sent
from casdk._calls.tracebacks import drop_frames
from casdk._content.inputs import advise
from casdk._transport.codecs import Reply, read_documents
from casdk._wording import class_name, message_of
from casdk.documents import Document, DocumentArray, NamedScore
from casdk.errors import InputValueError, ItemError, ItemTypeError, NotSupportedError, ReplyError

if TYPE_CHECKING:
    from casdk._engine.callers import Caller
    from casdk._transport.transport import Received

__all__ = [
    "Answer",
    "Embeddings",
    "IndexedEmbeddings",
    "Nothing",
    "Piece",
    "Rankings",
    "SearchResults",
    "not_taken",
    "read_apart_if_large",
    "refuse",
]

T = TypeVar("T")

Scored: TypeAlias = "tuple[int, dict[str, NamedScore]]"
"""Position of a candidate, and its scores."""
LARGE_REPLY_BYTES: Final = 1 << 18
"""A larger reply is read on a worker: if its documents are as small as can be, it takes longer than about 50 ms."""
GROWTH_FACTOR: Final = 1.125
"""An array whose length is not known grows by this factor. The system does not copy so large a block when it grows, but
NumPy fills the new part with zeros, so each step is small."""


class Piece:
    """The rows of one chunk of a stream, or of several for a bulk run.

    Attributes:
        start: Index of its first item.
        items: The caller's items.
        rows: ``[len(items), D]``, or more rows as long as it may take more items; ``None`` before the first reply.
        bad: Positions of the items without a row.
        errors: The errors of these items, in no order.
        outstanding: Items that have neither a row nor an error yet.
        sent: How much was sent for it.
        room: How many items it may have, if it takes several chunks.
        opened_at: When its first chunk was read, by `time.monotonic`, if it takes several.
        ends: How many items it has with each of its chunks, if it takes several.
        done: For each item whether it has a row or an error, if it takes several chunks.
    """

    __slots__ = ("bad", "done", "ends", "errors", "items", "opened_at", "outstanding", "room", "rows", "sent", "start")

    def __init__(self, start: int, items: Sequence[Any]) -> None:
        self.start = start
        self.items = items
        self.rows: np.ndarray[Any, Any] | None = None
        self.bad: list[int] = []
        self.errors: list[ItemError] = []
        self.outstanding = len(items)
        self.sent = Sent()
        self.room = 0
        self.opened_at = 0.0
        self.ends: list[int] = []
        self.done = bytearray()

    @property
    def nbytes(self) -> int:
        """Bytes of its rows."""
        return 0 if self.rows is None else self.rows.nbytes


class Answer(ABC):
    """Collects the replies of one call, in any order; each verb has a class of its own.

    Attributes:
        pieces: Whether parts of it are handed over before the end of the call.
        unpacks: Whether it needs the documents of the replies, and not only their rows.
    """

    pieces: ClassVar[bool] = False
    unpacks: bool = False

    def opened(self, start: int, items: Sequence[Any]) -> None:
        """Note that a chunk was read."""

    def refused(self, error: ItemError) -> None:
        """Note that an item will have no result."""

    def answered(self, start: int, size: int, crops: int, of_call: Sent) -> None:
        """Note that a request was answered.

        Args:
            start: Index of its first item.
            size: Size of the request in bytes.
            crops: How many crops were in it.
            of_call: How much the call has sent so far.
        """

    def urgent(self, batch_start: int) -> bool:
        """Whether results wait in memory for this batch, so that it must not wait for memory."""
        return False

    def ready(self) -> Iterator[Piece]:
        """Yield the pieces that can be handed over now."""
        return iter(())

    def divide(self) -> bool:
        """Make a piece of what is complete at the beginning of the next one; return whether there is any."""
        return False

    @property
    def held_back(self) -> tuple[int, int]:
        """How many pieces are complete and wait for an earlier one, and how many bytes they have."""
        return 0, 0

    def unpack(self, indices: Sequence[int], reply: Reply, request_id: str) -> Any:
        """Read the documents of a reply, if the answer needs them. This changes nothing, and may take long.

        Args:
            indices: Index of each document that was sent, by its position in the message.
            reply: The reply.
            request_id: The request's id.

        Raises:
            ReplyError: The reply does not fit the request.
            NotSupportedError: The flow cannot do what was asked.
        """

    def note(self, reply: Reply, unpacked: Any) -> None:
        """Note what the reply shows about the flow, whether or not its rows are stored."""

    @abstractmethod
    def place(
        self, indices: Sequence[int], items: Sequence[Any], reply: Reply, unpacked: Any, request_id: str
    ) -> list[int]:
        """Store one reply.

        Args:
            indices: Index of each document that was sent, by its position in the message.
            items: The items that were sent.
            reply: The reply.
            unpacked: The value that `unpack` has returned.
            request_id: The request's id.

        Returns:
            Positions of the items for which the reply has no result.

        Raises:
            ReplyError: The reply does not fit the request, or the replies before it.
            NotSupportedError: The flow cannot do what was asked.
        """


class Embeddings(Answer):
    """Rows ``[N, D]`` by index, in any order, allocated when the first one says how wide they are.

    Args:
        total: Rows in all, if known.
        options: The call's options: the dtype, and ``out``, the caller's own matrix to fill.
    """

    def __init__(self, total: int | None, options: Options) -> None:
        self._total = total
        self._dtype = DTYPES[options.dtype]
        self._fills_out = options.out is not None
        self.rows: np.ndarray[Any, Any] | None = None
        if options.out is not None:
            # A plain view: a subclass may override anything, and only its memory is needed.
            self.rows = np.ndarray.view(options.out, np.ndarray)

    def place(
        self, indices: Sequence[int], items: Sequence[Any], reply: Reply, unpacked: Any, request_id: str
    ) -> list[int]:
        width, sent = reply.width, len(items)
        if width == 0:  # no document has an embedding, and so no item has a result
            if reply.rows > sent:
                raise ReplyError(f"the server sent {reply.rows} documents for {sent}")
            return list(range(sent))
        if self._fills_out and self.rows is not None and (wide := self.rows.shape[1]) != width:
            raise InputValueError(f"out has rows of {wide} numbers, the server's have {width}: make it [N, {width}]")
        rows = self.rows
        if type(indices) is range:
            start = indices.start
            if rows is None or len(rows) < start + sent:
                rows = self._reserve(start + sent, width)
            return reply.place(rows, start, sent, request_id)
        count = max(indices) + 1
        if rows is None or len(rows) < count:
            rows = self._reserve(count, width)
        return reply.place(rows, 0, sent, request_id, indices)

    def _reserve(self, count: int, width: int) -> np.ndarray[Any, Any]:
        rows = self.rows
        if rows is None:
            total = max(count, self._total or 0)
            try:
                rows = self.rows = np.empty((total, width), self._dtype)
            except (MemoryError, ValueError) as error:  # NumPy says ValueError of what no memory can hold
                raise InputValueError(
                    f"no memory can hold a matrix [{total}, {width}] of {self._dtype}, a row for each item that the "
                    "content says it has: read it with stream(), or give out= a memmap"
                ) from error
        elif len(rows) < count:
            if self._fills_out:
                raise InputValueError(f"out has {len(rows)} rows, the content has more")
            # No other code refers to the array before the call ends, so its memory may move.
            rows.resize((max(count, int(len(rows) * GROWTH_FACTOR) + 1024), width), refcheck=False)
        return rows

    def rows_of(self, outcome: Outcome) -> np.ndarray[Any, Any] | None:
        """Return the rows of a call that is over, NaN for each item without one.

        Returns:
            ``[read, 0]`` if no reply has shown the width of rows, or ``None`` if such a call was stopped. A stopped
            call with ``out=`` gets a view of that matrix.
        """
        count, missing, rows = outcome.read, outcome.missing, self.rows
        if outcome.stopped is not None and (rows is None or self._fills_out):
            return None if rows is None else _view(rows, count, missing)
        if rows is None:
            return np.full((count, 0), np.nan, self._dtype) if count else np.empty((0, 0), self._dtype)
        if len(rows) > count and not self._fills_out:
            rows.resize((count, rows.shape[1]), refcheck=False)
        elif len(rows) < count:
            self._reserve(count, rows.shape[1])
            rows.resize((count, rows.shape[1]), refcheck=False)
        if missing:
            rows[missing] = np.nan
        return rows


def _view(rows: np.ndarray[Any, Any], count: int, missing: Sequence[int]) -> np.ndarray[Any, Any]:
    """Return the part of the caller's own matrix that a stopped call has filled."""
    rows = rows[:count]
    rows[[index for index in missing if index < len(rows)]] = np.nan
    return rows


class IndexedEmbeddings(Embeddings):
    """Embeddings of an indexing call.

    Attributes:
        executors: The most executors that one request went through.
    """

    executors = 0

    def note(self, reply: Reply, unpacked: Any) -> None:
        self.executors = max(self.executors, len(reply.routes) - 1)

    def place(
        self, indices: Sequence[int], items: Sequence[Any], reply: Reply, unpacked: Any, request_id: str
    ) -> list[int]:
        self.note(reply, unpacked)
        return super().place(indices, items, reply, unpacked, request_id)


class Nothing(Answer):
    """Stores nothing, for calls whose callbacks take the replies.

    Args:
        total: Items in all, if known.
        options: The call's options.
        answer: The verb's own answer, which still checks the replies.
    """

    def __init__(self, total: int | None, options: Options, answer: Answer | None = None) -> None:
        self._answer = answer
        self.unpacks = answer is not None and answer.unpacks

    def unpack(self, indices: Sequence[int], reply: Reply, request_id: str) -> Any:
        return None if self._answer is None else self._answer.unpack(indices, reply, request_id)

    def place(
        self, indices: Sequence[int], items: Sequence[Any], reply: Reply, unpacked: Any, request_id: str
    ) -> list[int]:
        if self._answer is not None:
            self._answer.note(reply, unpacked)
        return []


class Rankings(Answer):
    """The scores of each Document's candidates. They are written into the Documents when the call has ended well.

    Until then the Documents stay as they were packed: one may be in the content more than once.

    Args:
        source: Attribute that holds the candidates.
        total: Documents in all, if known.
        options: The call's options.
    """

    unpacks = True

    def __init__(self, source: str, total: int | None, options: Options) -> None:
        self.source = source
        self._counts: dict[int, int] = {}
        self._rankings: dict[int, tuple[Document, list[Scored]]] = {}

    def expect(self, index: int, candidates: int) -> None:
        """Note how many candidates a Document has that is going to be sent."""
        self._counts[index] = candidates

    def unpack(self, indices: Sequence[int], reply: Reply, request_id: str) -> list[list[Scored]]:
        unpacked = []
        for index, answer in zip(indices, _paired(reply, len(indices)), strict=True):
            if any("clip_score" not in match.scores for match in answer.matches):
                raise NotSupportedError(
                    f"document {index}: the matches came back without clip_score: this flow does not rank at that "
                    "endpoint (a model_name needs a flow that maps /rank/{model_name})",
                    request_id=request_id,
                )
            count = self._counts[index]
            scored = [(_position(match.id, count, index), match.scores) for match in answer.matches]
            if len({at for at, _ in scored}) != count or len(scored) != count:
                raise ReplyError(f"document {index}: {count} matches were sent, {len(scored)} came back")
            unpacked.append(sorted(scored, key=lambda pair: -pair[1]["clip_score"].value))
        return unpacked

    def place(
        self, indices: Sequence[int], items: Sequence[Any], reply: Reply, unpacked: list[list[Scored]], request_id: str
    ) -> list[int]:
        for index, document, scored in zip(indices, items, unpacked, strict=True):
            self._rankings[index] = document, scored
        return []

    def write(self) -> None:
        """Set the candidates of each Document in their new order, with their scores.

        A candidate of several Documents has other scores in each of them, so the later Documents get copies.

        Raises:
            InputValueError: A Document has other candidates by now; then no Document has changed.
            ItemTypeError: A class of the caller's own does not take its candidates, and all other Documents have
                theirs; or the candidates cannot be read any more, and then no Document has changed.
        """
        owners: dict[int, Document] = {}
        failed: ItemTypeError | None = None
        ranked = [
            (index, document, self._candidates(index, document, scored))
            for index, (document, scored) in sorted(self._rankings.items(), key=itemgetter(0))
        ]
        for index, document, candidates in ranked:
            found = DocumentArray()
            try:
                for candidate, scores in candidates:
                    if owners.setdefault(id(candidate), document) is not document:
                        candidate = copy.copy(candidate)
                        candidate.scores = dict(candidate.scores)
                    candidate.scores.update(scores)
                    found.append(candidate)
                setattr(document, self.source, found)
            except Exception as error:
                failed = failed or not_taken(index, document, self.source, error)
        if failed is not None:
            raise failed from failed.cause

    def _candidates(
        self, index: int, document: Document, scored: list[Scored]
    ) -> list[tuple[Document, dict[str, NamedScore]]]:
        """Return the candidates of a Document, whose class may be the caller's own, with their scores."""
        try:
            candidates = list(getattr(document, self.source))
        except Exception as error:
            reason = f"reading its {self.source} raised {class_name(error)}: {message_of(error)}"
            raise ItemTypeError(index, document, reason, error) from error
        if len(candidates) != len(scored):
            raise InputValueError(f"document {index}: its .{self.source} changed while they were ranked")
        return [(candidates[at], scores) for at, scores in scored]


class SearchResults(Embeddings):
    """The queries, each with its matches by ascending distance.

    Attributes:
        executors: The most executors that one request went through.
        matched: Whether any query has a match.
    """

    unpacks = True

    def __init__(self, total: int | None, options: Options) -> None:
        super().__init__(total, options)
        self.executors = 0
        self.matched = False
        self._found: dict[int, tuple[Document, DocumentArray]] = {}

    def unpack(self, indices: Sequence[int], reply: Reply, request_id: str) -> list[DocumentArray]:
        return [DocumentArray(sorted(found.matches, key=_distance)) for found in _paired(reply, len(indices))]

    def note(self, reply: Reply, unpacked: list[DocumentArray]) -> None:
        self.executors = max(self.executors, len(reply.routes) - 1)
        self.matched = self.matched or any(unpacked)

    def place(
        self, indices: Sequence[int], items: Sequence[Any], reply: Reply, unpacked: list[DocumentArray], request_id: str
    ) -> list[int]:
        self.note(reply, unpacked)
        for index, document, matches in zip(indices, items, unpacked, strict=True):
            self._found[index] = document, matches
        return super().place(indices, items, reply, unpacked, request_id)

    def write(self) -> None:
        """Set the matches of each query, where the caller is: a Document may be of the caller's own class.

        Raises:
            ItemTypeError: Such a class does not take its matches; all other queries have theirs.
        """
        failed: ItemTypeError | None = None
        for index, (document, matches) in self._found.items():
            try:
                document.matches = matches
            except Exception as error:
                failed = failed or not_taken(index, document, "matches", error)
        if failed is not None:
            raise failed from failed.cause


async def read_apart_if_large(read: Callable[[], T], received: Received, caller: Caller[Any]) -> T:
    """Read the documents of a reply; on a worker if the reply is large, since other calls would have to wait."""
    if received.size <= LARGE_REPLY_BYTES:
        return read()
    found: T = await caller.run_on_worker(read)
    return found


def refuse(answer: Answer, unfinished: Unfinished, error: ItemError) -> None:
    """Note that an item will have no result. As a method of `Run` it would be part of a reference cycle."""
    index = error.index
    error.item = unfinished.item(index, error.item)
    unfinished.mark_done([index])
    drop_frames(error)
    advise(error)
    answer.refused(error)


def not_taken(index: int, document: Document, name: str, error: Exception) -> ItemTypeError:
    """Return the error of a Document, of a class of the caller's own, that does not take its result."""
    if type(document) is Document:  # our own class takes every result, so a signal's handler has raised the error
        raise error
    reason = f"setting its {name} raised {class_name(error)}: {message_of(error)}"
    return ItemTypeError(index, document, reason, error)


def _distance(match: Document) -> float:
    return match.scores["cosine"].value if "cosine" in match.scores else 0.0


def _paired(reply: Reply, sent: int) -> DocumentArray:
    if reply.rows != sent:
        raise ReplyError(f"{sent} documents were sent, {reply.rows} came back")
    return read_documents(reply.documents())


def _position(wire_id: str, count: int, index: int) -> int:
    """Return the position of a candidate that came back, which `casdk._rust.Packer` has sent as its id."""
    if wire_id.isascii() and wire_id.isdigit() and len(wire_id) <= len(str(count)) and int(wire_id) < count:
        return int(wire_id)
    raise ReplyError(f"document {index}: a match came back with an id that was not sent: {wire_id[:40]!r}")
