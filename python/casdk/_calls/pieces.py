"""Replies -> the pieces of a stream, in input order."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from operator import itemgetter
from time import monotonic
from typing import Any, Final

import numpy as np

from casdk._calls.answers import Answer, Piece
from casdk._calls.options import DTYPES, Options
from casdk._calls.outcome import Sent
from casdk._calls.piece_memory import PieceMemory
from casdk._transport.codecs import Reply
from casdk.errors import ItemError, ReplyError

__all__ = ["Pieces"]


QUICK_SECONDS: Final = 0.05
"""Requests are joined into larger pieces if a piece is complete within this time. Then a larger one is, too, soon
enough for a progress bar; with a slower server, the caller's work for each piece is a small part of the time."""


class Pieces(Answer):
    """Rows in input order, chunk by chunk, while later ones are still on their way.

    A piece is one chunk, which is one request; or for a bulk run, whose server is quick, several chunks that follow
    each other. Such a piece takes more chunks only while a request of it is under way, so no slow input holds it up.

    Args:
        total: Items in all, if known.
        options: The call's: its dtype, and as ``out`` a bulk run's memory for the pieces.
    """

    pieces = True

    def __init__(self, total: int | None, options: Options) -> None:
        self._dtype = DTYPES[options.dtype]
        self._memory: PieceMemory = PieceMemory() if options.out is None else options.out
        self._most = 0
        self._last: Piece | None = None
        self._pieces: dict[int, Piece] = {}
        self._head = 0
        self._width = 0
        self._held_back = 0
        self._held_back_bytes = 0

    @property
    def held_back(self) -> tuple[int, int]:
        return self._held_back, self._held_back_bytes

    def opened(self, start: int, items: Sequence[Any]) -> None:
        if not self._memory.most_items:
            self._pieces[start] = Piece(start, items)
            return
        last = self._last
        if last is None or not last.outstanding or len(last.items) + len(items) > last.room:
            last = self._last = self._pieces[start] = Piece(start, [])
            last.room = max(len(items), min(self._most, self._memory.room(start)))
            last.opened_at = monotonic()
        assert isinstance(last.items, list)
        last.items += items
        last.outstanding += len(items)
        last.ends.append(len(last.items))
        last.done += bytes(len(items))

    def urgent(self, batch_start: int) -> bool:
        piece = self._pieces.get(self._head)
        return piece is not None and batch_start < piece.start + len(piece.items)

    def _piece_of(self, index: int) -> Piece:
        piece = self._pieces.get(index)
        if piece is None:  # it is not the first item of its piece
            last = self._last
            piece = last if last is not None and last.start < index else self._piece_around(index)
        return piece

    def _piece_around(self, index: int) -> Piece:
        """Return the piece of an item that is not the first one in it; the pieces are few, and in order."""
        return self._pieces[next(start for start in reversed(self._pieces) if start < index)]

    def refused(self, error: ItemError) -> None:
        piece = self._piece_of(error.index)
        piece.bad.append(error.index - piece.start)
        piece.errors.append(error)
        if piece.done:
            piece.done[error.index - piece.start] = True
        self._count_done(piece, 1)

    def answered(self, start: int, size: int, crops: int, of_call: Sent) -> None:
        sent = self._piece_of(start).sent
        sent.bytes += size + of_call.take_asked()
        sent.cropped += crops
        sent.fidelity = of_call.fidelity

    def place(
        self, indices: Sequence[int], items: Sequence[Any], reply: Reply, unpacked: Any, request_id: str
    ) -> list[int]:
        piece, sent = self._piece_of(indices[0]), len(items)
        if reply.width == 0:
            return list(range(sent))
        if self._width and reply.width != self._width:
            raise ReplyError(f"a row of width {reply.width} came after rows of width {self._width}")
        self._width = reply.width
        if piece.rows is None:
            piece.rows = self._memory.reserve(piece.start, max(len(piece.items), piece.room), reply.width, self._dtype)
        start = piece.start
        if type(indices) is range:
            missing = reply.place(piece.rows, indices.start - start, sent, request_id)
        else:
            missing = reply.place(piece.rows, 0, sent, request_id, [index - start for index in indices])
        if piece.done:
            self._note_done(piece, indices, missing)
        self._count_done(piece, sent - len(missing))
        return missing

    def _count_done(self, piece: Piece, items: int) -> None:
        piece.outstanding -= items
        if items and piece.outstanding == 0:
            self._held_back += 1
            self._held_back_bytes += piece.nbytes

    def _note_done(self, piece: Piece, indices: Sequence[int], missing: Sequence[int]) -> None:
        """Note which items of a piece have their rows by now."""
        if type(indices) is range:
            piece.done[indices.start - piece.start : indices.stop - piece.start] = b"\1" * len(indices)
        else:
            for index in indices:
                piece.done[index - piece.start] = True
        for position in missing:
            piece.done[indices[position] - piece.start] = False

    def divide(self) -> bool:
        piece = self._pieces.get(self._head)
        if piece is None or not piece.outstanding or not piece.done:
            return False
        count = max((end for end in piece.ends if end <= piece.done.find(0)), default=0)
        if not count:
            return False
        first, rest = Piece(piece.start, piece.items[:count]), Piece(piece.start + count, piece.items[count:])
        first.outstanding, rest.outstanding, first.sent = 0, piece.outstanding, piece.sent
        if piece.rows is not None:
            first.rows, rest.rows = piece.rows[:count], piece.rows[count:]
        first.bad, rest.bad = [at for at in piece.bad if at < count], [at - count for at in piece.bad if at >= count]
        first.errors = [error for error in piece.errors if error.index < rest.start]
        rest.errors = [error for error in piece.errors if error.index >= rest.start]
        later = {start: other for start, other in self._pieces.items() if start != piece.start}
        self._pieces = {first.start: first, rest.start: rest} | later
        self._held_back += 1
        self._held_back_bytes += first.nbytes
        return True

    def ready(self) -> Iterator[Piece]:
        """Yield the pieces that are complete and next in order."""
        while (piece := self._pieces.get(self._head)) is not None and piece.outstanding == 0:
            del self._pieces[self._head]
            self._head += len(piece.items)
            self._held_back -= 1
            self._held_back_bytes -= piece.nbytes
            if piece.rows is None:
                piece.rows = np.empty((len(piece.items), self._width), self._dtype)
            if piece.room:
                piece.rows = piece.rows[: len(piece.items)]
                self._settle_size(piece)
            if piece.bad:
                piece.rows[piece.bad] = np.nan
            yield piece

    def _settle_size(self, piece: Piece) -> None:
        """Set how many items the next pieces may have, by the time that one took which is complete."""
        is_quick = monotonic() - piece.opened_at <= QUICK_SECONDS
        self._most = min(2 * len(piece.items), self._memory.most_items) if is_quick else 0

    def rest(self, missing: Container[int]) -> Piece:
        """Return, when the call was stopped, all items that were read and not handed over, as one piece.

        Args:
            missing: Indices of the items without a row.
        """
        pieces = [piece for _, piece in sorted(self._pieces.items(), key=itemgetter(0))]
        rest = Piece(self._head, [item for piece in pieces for item in piece.items])
        rest.bad = [at for at in range(len(rest.items)) if rest.start + at in missing]
        rest.rows = np.full((len(rest.items), self._width), np.nan, self._dtype)
        for piece in pieces:
            if piece.rows is not None:
                rest.rows[piece.start - rest.start :][: len(piece.items)] = piece.rows[: len(piece.items)]
        rest.rows[rest.bad] = np.nan
        return rest
