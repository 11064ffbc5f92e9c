"""The sample: the first images of a call, on which the loss of crops is measured. There is no I/O here.

Items are chosen by their position in the input, and not by when they are packed or answered. So the same call always
measures the same images, even if requests fail or are late.
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
"""How many have to be measured at least: items that are no images, or are smaller than their crop, cannot be."""


class Verdict(msgspec.Struct):
    """How crops are written, and the measurement that has decided it; a bulk run passes one to each stream of a shard.

    Attributes:
        least: The smallest cosine that the rows of crops without and with loss may have.
        fidelity: The smallest cosine that was measured, if one was.
        written: How crops are written, once that is decided.
        first: Index of the first item whose crops are written like that; crops before it have no loss.
        has_begun: Whether an image that is to be measured was read.
    """

    least: float
    fidelity: float | None = None
    written: Written | None = None
    first: int = 0
    has_begun: bool = False


class Sample:
    """The images of a call that are measured; no item behind them is sent before that is done.

    Args:
        count: Returns how many images an item has; it gets the item and its kind.
        verdict: Notes whether there are images to be measured.

    Attributes:
        end: Index of the first item behind the sample; ``None`` if none was read yet, or all items may be sent.
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
        """Count the images of a batch that was read; batches come in the order of the input."""
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
        """Double the sample, since too few of its images could be measured."""
        behind, self._behind, self.end = self._behind, [], None
        self._wanted = 2 * self._images
        for index, images in behind:
            self._note(index, images)

    def close(self) -> None:
        """End the sample: all items may be sent."""
        self._is_closed = True
        self._behind, self.end = [], None
