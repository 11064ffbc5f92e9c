"""The first images of a call, which are measured: which they are, and what was found. There is no I/O here.

Items count by their place in the input, and not by when they are packed or answered, so the same images are measured
whenever the same call is made, whatever fails or comes late in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from casdk._calls.batches import Batch
from casdk._content.crops import Written

__all__ = ["FEWEST_IMAGES", "SAMPLE_IMAGES", "Sample", "Verdict"]

SAMPLE_IMAGES: Final = 32
"""How many images of a call are measured."""
FEWEST_IMAGES: Final = 16
"""How many of them have to be, as some cannot: what is no image after all, and what is smaller than its crop."""


class Verdict(msgspec.Struct):
    """How crops are written, and why. A bulk run hands a shard's from one stream to the next.

    Attributes:
        least: The smallest cosine that the rows of crops without and with loss may have.
        fidelity: The one that was measured, if one was.
        written: How crops are written, once that is decided.
        first: Index of the first item whose crops are written so; those before have no loss.
        has_begun: Whether there are images that are to be measured.
    """

    least: float
    fidelity: float | None = None
    written: Written | None = None
    first: int = 0
    has_begun: bool = False


class Sample:
    """Which images of a call are measured. Nothing behind them is sent until they are.

    Args:
        count: Returns how many images an item has, of the item and its kind.
        verdict: Notes when there are any.

    Attributes:
        end: Index of the first item behind them; ``None`` while none was read, and when all may be sent.
    """

    def __init__(self, count: Callable[[Any, int], int], verdict: Verdict) -> None:
        self.end: int | None = None
        self._count = count
        self._verdict = verdict
        self._wanted = SAMPLE_IMAGES
        self._images = 0
        self._behind: list[tuple[int, int]] = []
        self._is_closed = False

    def read(self, batch: Batch) -> None:
        """Count what was read, in the order of the input."""
        if self._is_closed:
            return
        for index, item, kind in zip(batch.indices, batch.items, batch.kinds, strict=True):
            if images := self._count(item, kind):
                self._note(index, images)

    def _note(self, index: int, images: int) -> None:
        self._verdict.has_begun = True
        if self.end is None and self._images < self._wanted:
            self._images += images
            return
        if self.end is None:
            self.end = index
        self._behind.append((index, images))

    def grow(self) -> None:
        """Take as many images again, since too few of the first can be written with loss."""
        behind, self._behind, self.end = self._behind, [], None
        self._wanted = 2 * self._images
        for index, images in behind:
            self._note(index, images)

    def close(self) -> None:
        """Let everything be sent."""
        self._is_closed = True
        self._behind, self.end = [], None
