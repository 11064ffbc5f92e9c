"""Where the rows of a stream's pieces go, and how many items a piece may have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PieceMemory"]


class PieceMemory:
    """Memory for the rows of the pieces of one stream.

    A bulk run passes one of its own as ``out=`` of `Client.stream`; every other stream has one of this class.

    Attributes:
        most_items: The most items of a piece that has those of several requests, which costs the caller less than a
            piece for each request; 0 for streams whose pieces are requests.
    """

    most_items: int = 0

    def room(self, start: int) -> int:
        """Return how many items the memory of one piece has room for, whose first item has this index."""
        return self.most_items

    def reserve(self, start: int, items: int, width: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array ``[items, width]`` for the rows of a piece; called on the engine.

        Args:
            start: Index of the first item.
            items: How many items the piece has, or may have in the end.
            width: Numbers of a row.
            dtype: Their type.
        """
        return np.empty((items, width), dtype)
