"""A score of a Document, and how the values of a Document's fields are compared and shown."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np

__all__ = ["SHOWN_CHARACTERS", "NamedScore", "same", "shown"]

SHOWN_CHARACTERS: Final = 60
"""Characters of one value in a repr."""


class NamedScore(msgspec.Struct, omit_defaults=True):
    """One score of a document.

    Attributes:
        value: The number.
        op_name: The name of the measure, e.g. ``cosine``.
        description: A description for people.
        ref_id: Id of the document that it compares with.
    """

    value: float = 0.0
    op_name: str = ""
    description: str = ""
    ref_id: str = ""

    def __repr__(self) -> str:
        return repr({"value": self.value} | {k: v for k in self.__struct_fields__[1:] if (v := getattr(self, k))})


def same(mine: Any, theirs: Any) -> bool:
    """Whether two values of a field are equal; arrays by dtype, shape and values, NaN being equal to NaN."""
    if isinstance(mine, np.ndarray) or isinstance(theirs, np.ndarray):
        return (
            type(mine) is type(theirs)
            and mine.dtype == theirs.dtype
            and np.array_equal(mine, theirs, equal_nan=mine.dtype.kind in "fc")
        )
    return bool(mine == theirs)


def shown(value: Any) -> str:
    """Return a value for the repr of a Document: the size of bytes and arrays, and the beginning of anything else."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    text = repr(value[: SHOWN_CHARACTERS + 1] if isinstance(value, str) else value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
