"""How many items a request of a run has, and how many are in flight: as the caller says, or as a search finds.

With ``batch_size="auto"`` the first shard begins with a search; its rows are kept, as all others. What it has found is
written into the manifest before any row is, and holds for every later run. A run that is killed before that has written
nothing, and the next one searches anew.
"""

from __future__ import annotations

from typing import Final

import msgspec

from casdk._calls.tuning import FEWEST_ITEMS, Tuning
from casdk.bulk.manifest import Manifest, Settings

__all__ = ["Requests"]


class Requests:
    """The batch size and the window of the streams of a run.

    Args:
        total: Rows that this run makes, if known.
        tunes: Whether to find out what is best, and not to take what the settings say.
        row_items: Items of a row: 2 for an image and its caption, which go in one request.

    Attributes:
        searches: Whether a search is under way whose outcome is in no manifest.
    """

    def __init__(self, total: int | None, *, tunes: bool, row_items: int = 1) -> None:
        self.searches: bool = False
        self._tunes: Final = tunes
        self._row_items: Final = row_items
        self._may_search: Final = total is None or total * row_items >= FEWEST_ITEMS
        self._tuning: Tuning | None = None

    def begin(self, settings: Settings, manifest: Manifest | None) -> Settings:
        """Return the settings of a run that begins; where it may choose, they are those of the target that is there.

        Args:
            settings: As the caller has them.
            manifest: What there is of the target, if anything is.
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
        """Return the ``batch_size`` of `Client.stream`, by which a request has whole rows."""
        return settings.batch_size * self._row_items if self._tuning is None else self._tuning

    @property
    def fewest_items(self) -> int:
        """How many items a shard has at least of which the number may be known: a search needs as many."""
        return FEWEST_ITEMS if self.searches else 0

    @property
    def is_found(self) -> bool:
        """Whether a search is over whose outcome is in no manifest."""
        return self.searches and self._tuning is not None and self._tuning.is_over

    def settle(self, manifest: Manifest) -> Manifest:
        """Return the manifest with what a search has found by now, which ends it; the same one if there is none."""
        tuning = self._tuning
        if not self.searches or tuning is None:
            return manifest
        self.searches = False
        tuning.end()
        if not tuning.has_compared:
            self._tuning = None
            return manifest
        return manifest.with_requests(tuning.best.batch_size, tuning.best.window)
