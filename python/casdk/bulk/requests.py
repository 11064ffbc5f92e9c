"""How many items a request of a run has, and how many requests are in flight: as the caller says, or as a search finds.

With ``batch_size="auto"`` the first shard begins with a search, whose rows are written like all others. The two numbers
that it finds are written to the manifest before any row, and all later runs use them. A run that is killed before that
has written no row, and the next run searches again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from casdk._calls.tuning import FEWEST_ITEMS, Tuning
from casdk.bulk.manifest import Manifest, Settings

if TYPE_CHECKING:
    from casdk.models import EncodeResult

__all__ = ["Requests", "piece_items"]

PIECE_ITEMS: Final = 2048
"""A piece has as many items where requests have fewer, about 4 MB of rows: then the work for a piece is little."""


def piece_items(batch_size: int, row_items: int = 1) -> int:
    """Return the most items of a piece, whose requests have ``batch_size`` rows of so many items each."""
    request_items = batch_size * row_items
    return max(request_items, PIECE_ITEMS // request_items * request_items)


class Requests:
    """The batch size and the window of the streams of a run.

    Args:
        total: Rows that this run makes, if known.
        tunes: Whether to search for the best numbers, instead of taking those of the settings.
        row_items: Items of a row: 2 for an image and its caption, which go in one request.
        joins: Whether a piece may have several requests. In a run that stops at an error it has one, so that the rows
            of all requests before the error are kept.

    Attributes:
        searches: Whether there is a search whose result was not written to the manifest yet.
    """

    def __init__(self, total: int | None, *, tunes: bool, row_items: int = 1, joins: bool = True) -> None:
        self.searches: bool = False
        self._tunes: Final = tunes
        self._row_items: Final = row_items
        self._joins: Final = joins
        self._may_search: Final = total is None or total * row_items >= FEWEST_ITEMS
        self._tuning: Tuning | None = None

    def begin(self, settings: Settings, manifest: Manifest | None) -> Settings:
        """Begin a search if one is wanted and may pay; return the settings, with the batch size of an existing target.

        Args:
            settings: The caller's settings.
            manifest: The manifest of the target, if it exists.
        """
        if not self._tunes:
            return settings
        if manifest is not None:
            settings = msgspec.structs.replace(settings, batch_size=manifest.settings.batch_size)
        if manifest is not None and manifest.prefetch is not None:
            self._tuning = Tuning.known(settings.batch_size, manifest.prefetch, row_items=self._row_items)
        elif self._may_search and (manifest is None or not manifest.rows):
            self._tuning = Tuning(settings.batch_size, row_items=self._row_items)
            self.searches = True
        return settings

    def batch_size(self, settings: Settings) -> int | Tuning:
        """Return the ``batch_size`` for `Client.stream`, with which each request has whole rows."""
        return settings.batch_size * self._row_items if self._tuning is None else self._tuning

    def joined_items(self, settings: Settings) -> int:
        """Return the most items of a piece of the stream that has several requests; 0 for a piece for each request.

        While a search is under way, the size of requests changes.
        """
        return piece_items(settings.batch_size, self._row_items) if self._joins and not self.searches else 0

    def without_short(self, piece: EncodeResult, settings: Settings) -> EncodeResult:
        """Return a piece without the rows of a request that has fewer items than the others, because of a stop.

        So the run that goes on sends the same requests as one that was never stopped. While a search is under way,
        requests have any size.
        """
        items = len(piece.embeddings)
        whole = items if self.searches else items - items % (settings.batch_size * self._row_items)
        if whole == items:
            return piece
        errors = tuple(error for error in piece.errors if error.index - piece.start < whole)
        return msgspec.structs.replace(piece, embeddings=piece.embeddings[:whole], errors=errors)

    @property
    def fewest_items(self) -> int:
        """The fewest items that the stream may get as a list of known length: with fewer there would be no search."""
        return FEWEST_ITEMS if self.searches else 0

    @property
    def is_found(self) -> bool:
        """Whether a search is over whose result was not written to the manifest yet."""
        return self.searches and self._tuning is not None and self._tuning.is_over

    def settle(self, manifest: Manifest) -> Manifest:
        """End the search, and return the manifest with its result; the same manifest if there is no search."""
        tuning = self._tuning
        if not self.searches or tuning is None:
            return manifest
        self.searches = False
        tuning.end()
        if not tuning.has_compared:
            self._tuning = None
            return manifest
        return manifest.with_requests(tuning.best.batch_size, tuning.best.window)
