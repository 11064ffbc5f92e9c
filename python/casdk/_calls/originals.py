"""The caller's own Documents: stored as they are read, and returned as the same objects, with their results.

`Run` has one `Originals`; the verbs' ``finish`` functions make results with `present` and `open_piece`. All of it runs
where the caller is, since Documents may be of the caller's own classes.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from casdk._calls.answers import Piece, not_taken
from casdk._calls.options import Options
from casdk._calls.outcome import Outcome
from casdk._columns import to_arrow
from casdk._content.inputs import Chunk, as_document, read_chunk
from casdk._rust import Kind
from casdk.documents import Document, DocumentArray
from casdk.documents.docarray import collect, write_back
from casdk.documents.recognise import hold_documents, is_array, recognise
from casdk.errors import ItemError, ItemTypeError
from casdk.models import EncodeResult

__all__ = ["Originals", "are_ours", "open_piece", "present", "write_embeddings"]

MANY_DOCUMENTS: Final = 1000
"""Writing the results of so many takes a tenth of a millisecond; of docarray's, a single one takes as long."""


class Originals(msgspec.Struct, eq=False):
    """The caller's Documents, ours or docarray's, in order, as long as every item is one.

    Attributes:
        content: The content as the caller passed it.
        candidates: Attribute of docarray's documents whose documents travel too.
        whole: Whether docarray's documents travel whole.
        keeps_all: Whether the call returns them; if not, only those of the first chunk are stored.
        items: The items as the caller passed them; ``None`` once one of them was no Document.
        documents: Our Document of each item.
        has_foreign: Whether documents of docarray's are among them.
    """

    content: Any
    candidates: str | None = None
    whole: bool = False
    keeps_all: bool = True
    items: list[Any] | None = []
    documents: list[Document] = []
    has_foreign: bool = False

    def read(self, items: list[Any], indices: Sequence[int], **how: Any) -> Chunk:
        """Read a chunk, as `read_chunk` does, with what is to travel of docarray's documents."""
        return read_chunk(items, indices, candidates=self.candidates, whole=self.whole, **how)

    def keep(self, items: list[Any], chunk: Chunk) -> Chunk:
        """Store the Documents of a chunk that was read."""
        if chunk.items is not items and not self.has_foreign:
            self.has_foreign = hold_documents(items)
        if self.items is not None:
            if chunk.kinds.count(Kind.DOCUMENT) == len(items):
                self.items += items
                self.documents += chunk.items
            else:
                self.items = None
                if self.documents:
                    self.documents = []
        return chunk

    def keep_as_documents(self, items: list[Any], chunk: Chunk) -> Chunk:
        """Make Documents of all items of a chunk that was read, and store them."""
        if chunk.items is not items and not self.has_foreign:
            self.has_foreign = hold_documents(items)
        documents: list[Any] = []
        for position, item in enumerate(chunk.items):
            bad = chunk.errors is not None and position in chunk.errors
            documents.append("" if bad else as_document(item, chunk.kinds[position]))
        if self.items is not None and (self.keeps_all or not self.items):
            self.items += items
            # A bad item gets an empty Document, so that positions stay indices. The caller never gets it: a verb that
            # returns Documents ends at the first bad item.
            self.documents += [document if isinstance(document, Document) else Document() for document in documents]
        kinds = bytes(Kind.DOCUMENT if isinstance(document, Document) else Kind.TEXT for document in documents)
        return Chunk(documents, kinds, chunk.errors)

    @property
    def are_many(self) -> bool:
        """Whether making the result takes longer than it may block a loop of the caller's."""
        return self.has_foreign or len(self.documents) > MANY_DOCUMENTS

    @property
    def all_from_caller(self) -> bool:
        """Whether every item is a Document of the caller's, ours or docarray's."""
        return self.items is not None and all(
            issubclass(type(item), Document) or recognise(item) for item in self.items
        )

    def are_all_documents(self) -> bool:
        """Whether all items were Documents; if there were no items, whether the content is an array of Documents."""
        if self.items:
            return True
        return self.items is not None and (isinstance(self.content, DocumentArray) or is_array(self.content))

    def array(
        self,
        gone: Container[int] = (),
        *,
        missing: Container[int] = (),
        candidates: str | None = None,
        matches: bool = False,
    ) -> Any:
        """Return the Documents in the caller's kind of array, and write the results into docarray's documents.

        Args:
            gone: Indices to leave out.
            missing: Indices without a result: docarray's documents stay as they are there.
            candidates: Attribute of docarray's documents that was ranked.
            matches: Whether docarray's documents get matches.
        """
        items = self.items or []
        if self.has_foreign:
            owners: dict[int, Any] = {}
            written: set[int] = set()
            for index, (item, document) in enumerate(zip(items, self.documents, strict=True)):
                if index in missing or not recognise(item):
                    continue
                if candidates is not None and id(item) in written:  # its candidates have changed their order already
                    continue
                write_back(item, document, candidates=candidates, owners=owners, matches=matches)
                written.add(id(item))
        theirs = all(map(recognise, items)) if self.has_foreign else not items and is_array(self.content)
        result = items if theirs else self.documents
        if gone:
            result = [item for index, item in enumerate(result) if index not in gone]
        if not theirs:
            return DocumentArray(result)
        return collect(result, self.content)


def are_ours(items: Sequence[Any]) -> bool:
    """Whether these are Documents, by their types: `isinstance` would run the ``__class__`` of other items."""
    return all(issubclass(type(item), Document) for item in items)


def write_embeddings(
    documents: Sequence[Document], rows: np.ndarray[Any, Any], bad: Iterable[int], start: int = 0
) -> None:
    """Set the embedding of each Document to its row, a view; Documents without a row stay as they are.

    Args:
        documents: The Documents, which may be of the caller's own classes.
        rows: Their rows, ``[N, D]``.
        bad: Positions of the Documents without a row.
        start: Index of the first Document.

    Raises:
        ItemTypeError: A class of the caller's own does not take its row. All other Documents have theirs, and the
            error's ``partial`` has all rows.
    """
    missing = set(bad)
    failed: ItemTypeError | None = None
    for position, (document, row) in enumerate(zip(documents, rows, strict=True)):
        if missing and position in missing:
            continue
        try:
            document.embedding = row
        except Exception as error:
            if failed is None:
                failed = not_taken(start + position, document, "embedding", error)
                failed.partial, failed.start = rows, start
                failed.done, failed.total = len(rows) - len(missing), len(rows)
    if failed is not None:
        raise failed from failed.cause


def present(rows: np.ndarray[Any, Any] | None, outcome: Outcome, originals: Originals | None, options: Options) -> Any:
    """Return the result of ``encode`` as ``errors=`` wants it, or what stopped the call, with what was finished.

    Args:
        rows: ``[N, D]``, NaN where there is none; ``None`` if the call was stopped before there was any.
        outcome: What became of each item.
        originals: The user's Documents, if there is nothing else.
        options: The call's.
    """
    stopped, missing = outcome.stopped, outcome.missing
    gone = set(missing) if options.errors == "skip" else ()
    if originals is not None and rows is not None:
        write_embeddings(originals.documents, rows[: len(originals.documents)], missing)
    if options.out is not None and stopped is None:
        rows = options.out  # the caller's own object, and not the view of it that was filled
    if stopped is not None:
        if originals is None:
            stopped.partial = rows
        else:
            stopped.documents = originals.array(missing=set(missing))
    if options.errors == "return" and rows is not None and (stopped is None or stopped.done):
        found = outcome.errors()
        errors, sent = tuple(found[index] for index in sorted(found)), outcome.sent
        if sent is None:
            return EncodeResult(embeddings=rows, errors=errors, stopped=stopped)
        return EncodeResult(
            embeddings=rows,
            errors=errors,
            stopped=stopped,
            sent_bytes=sent.bytes,
            cropped=sent.cropped,
            fidelity=sent.fidelity,
        )
    if stopped is not None:
        return stopped
    assert rows is not None
    if originals is not None and options.result is None:
        return originals.array(gone)
    left = np.delete(rows, missing, axis=0) if gone else rows
    return left if options.result is None else to_arrow(left)


def open_piece(piece: Piece, options: Options) -> Any:
    """Return what the caller of a stream gets for a piece."""
    rows = piece.rows
    assert rows is not None
    items = piece.items
    ours = are_ours(items)
    theirs = not ours and all(map(recognise, items))
    if ours:
        write_embeddings(items, rows, piece.bad, piece.start)
    elif theirs:
        bad = set(piece.bad)
        for position, item in enumerate(items):
            if position not in bad:
                write_back(item, Document(embedding=rows[position]))
    if options.errors == "return":
        errors, sent = tuple(sorted(piece.errors, key=_index_of)), piece.sent
        return EncodeResult(
            embeddings=rows,
            errors=errors,
            start=piece.start,
            sent_bytes=sent.bytes,
            cropped=sent.cropped,
            fidelity=sent.fidelity,
        )
    if options.errors == "skip" and piece.bad:
        good = [position for position in range(len(rows)) if position not in piece.bad]
        rows, items = rows[good], [items[position] for position in good]
    if theirs:
        return collect(items)
    return DocumentArray(items) if ours else rows


def _index_of(error: ItemError) -> int:
    return error.index
