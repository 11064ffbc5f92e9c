"""Image and caption of the same row: which of two columns is which, and the items of both as one row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

from casdk.bulk.sources import Holds
from casdk.errors import InputValueError

__all__ = ["Kind", "as_row", "image_first", "read_columns"]

Kind: TypeAlias = Literal["image", "text"]
PAIR: Final[Holds] = ("image", "text")
OTHER: Final[dict[Kind | None, Kind | None]] = {"image": "text", "text": "image", None: None}


def read_columns(columns: object) -> tuple[str, ...]:
    """Return the columns that a caller names: one, or two.

    Raises:
        InputValueError: They are something else.
    """
    if isinstance(columns, str):
        return (columns,)
    names = tuple(columns) if isinstance(columns, Sequence) else ()
    if len(names) != 2 or not all(isinstance(name, str) for name in names) or names[0] == names[1]:
        raise InputValueError(
            'columns must be one name, or two for images and their captions, as ("image", "caption"), '
            f"not {columns!r:.60}"
        )
    return names


def image_first(columns: tuple[str, ...], kinds: Sequence[Kind | None]) -> tuple[tuple[str, ...], Holds]:
    """Return columns in the order in which they are encoded, and what a row of them holds.

    What a column holds says which one has the images, and not the order in which a caller names them.

    Args:
        columns: One, or two.
        kinds: What each holds; ``None`` for one that may be either.

    Raises:
        InputValueError: Both hold images, or both texts, or it is not known.
    """
    if len(columns) == 1:
        [kind] = kinds
        return columns, () if kind is None else (kind,)
    # Where one of them may be either, the other one decides.
    first, second = kinds[0] or OTHER[kinds[1]], kinds[1] or OTHER[kinds[0]]
    if (first, second) == ("image", "text"):
        return columns, PAIR
    if (first, second) == ("text", "image"):
        return columns[::-1], PAIR
    what = {"image": "both hold images", "text": "both hold texts", None: "neither says what it holds"}[first]
    both = f"columns {columns[0]!r} and {columns[1]!r}"
    raise InputValueError(f"{both}: one has to hold images and the other one texts, and {what}")


def as_row(parts: Sequence[tuple[Any, str]]) -> tuple[Any, str]:
    """Return the items of a row as one, and their fingerprint.

    Args:
        parts: One item, or an image and its caption, each with its fingerprint.
    """
    if len(parts) == 1:
        return parts[0]
    return tuple(item for item, _ in parts), "\n".join(content for _, content in parts)
