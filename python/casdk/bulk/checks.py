"""Checks of the rows that have come back, which a `Run` makes before it writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from casdk.bulk.targets import Rows, described
from casdk.errors import BulkError

if TYPE_CHECKING:
    from casdk.models import EncodeResult

__all__ = ["check_errors", "check_width"]


def check_errors(piece: EncodeResult, rows: Sequence[int], names: Sequence[str], parts: int = 1) -> None:
    """Check that no item has failed.

    Args:
        piece: What has come back.
        rows: Of its items in the target.
        names: Of its items.
        parts: Items in a row; of two, the first is an image, and the other one its caption.

    Raises:
        BulkError: One did; the first one is named.
    """
    if piece.errors:
        error = min(piece.errors, key=lambda error: error.index)
        place = error.index - piece.start
        of_what = "" if parts == 1 else f"the {('image', 'text')[place % parts]} of "
        raise BulkError(
            f"{of_what}item {rows[place]}, {names[place]!r}, cannot be encoded: {described(error)}; the same call goes "
            "on there, and with errors='record' beyond it"
        ) from error


def check_width(rows: Rows, width: int, target: str) -> None:
    """Check that rows are as wide as those of a target.

    Raises:
        BulkError: They are not.
    """
    if rows.shape[1] != width:
        raise BulkError(
            f"embeddings have {rows.shape[1]} numbers now, and {target} has {width}: another model answers at this "
            "address"
        )
