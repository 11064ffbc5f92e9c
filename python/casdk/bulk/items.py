"""The keys of the items of a target, so that an update knows which ones it has; there is no I/O here.

A target has the names of its items in its shards, and beside a shard, where names do not say it all, 8 bytes for what
else is known of each item: size and time of a file, or what stands for bytes. Of both a key is made: items with the
same key are the same item.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONTENT_BYTES", "Contents", "Index", "contents_of", "keys_of", "unlike"]

NAME_BYTES: Final = 16
CONTENT_BYTES: Final = 8
NAME: Final = np.dtype(f"S{NAME_BYTES}")
KEY: Final = np.dtype(f"S{NAME_BYTES + CONTENT_BYTES}")
"""NumPy sorts and finds strings of bytes. All have one length, so the zeros that it drops at an end change nothing."""


class Contents:
    """What is known of the contents of items that follow each other, beside their names."""

    def __init__(self) -> None:
        self._digests = bytearray()

    def note(self, place: int, content: str) -> None:
        """Note what is known of an item; those before it of which nothing was noted have nothing but their names."""
        self._digests += bytes(place * CONTENT_BYTES - len(self._digests))
        self._digests += hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=CONTENT_BYTES).digest()

    def of(self, items: int) -> bytes:
        """Return 8 bytes for each of so many items, zeros where the name says it all; none if that is so of all."""
        if not self._digests:
            return b""
        return bytes(self._digests) + bytes(items * CONTENT_BYTES - len(self._digests))


def contents_of(known: Mapping[int, str], items: int) -> bytes:
    """Return what `Contents.of` does, where what is known of so many items is there at once, by place."""
    noted = Contents()
    for place, content in sorted(known.items()):
        noted.note(place, content)
    return noted.of(items)


def keys_of(names: Sequence[str], contents: bytes) -> NDArray[Any]:
    """Return a key for each of some items.

    Args:
        names: Theirs.
        contents: As `Contents.of` returns them.
    """
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=NAME_BYTES).digest() for name in names)
    keys = np.zeros((len(names), KEY.itemsize), np.uint8)
    keys[:, :NAME_BYTES] = np.frombuffer(digests, np.uint8).reshape(-1, NAME_BYTES)
    if contents:
        keys[:, NAME_BYTES:] = np.frombuffer(contents, np.uint8).reshape(-1, CONTENT_BYTES)
    return keys.view(KEY)[:, 0]


def unlike(keys: NDArray[Any]) -> NDArray[Any]:
    """Return keys of items of the same names whose contents are none that an item has."""
    others = keys.view(np.uint8).reshape(-1, KEY.itemsize).copy()
    others[:, NAME_BYTES:] ^= 0xFF
    return others.view(KEY)[:, 0]


class Index:
    """The items that a target has, by their keys, and which of them the input still has.

    It takes about 40 bytes of memory per row, and as many again while it is made. An item may be there several times;
    the input then takes its rows one by one, the first one first.

    Args:
        keys: Of all rows, in order.

    Attributes:
        stays: Whether a row is of an item that the input was found to have.
    """

    def __init__(self, keys: NDArray[Any]) -> None:
        self._rows = np.argsort(keys, kind="stable")
        self._keys = keys[self._rows]
        self._found = np.zeros(len(keys), np.uint32)
        self.stays: NDArray[np.bool_] = np.zeros(len(keys), bool)
        self._known: list[NDArray[Any]] = []

    def look_up(self, names: Sequence[str], contents: bytes) -> list[int | None]:
        """Note that the input has items; returns the row of each, ``None`` for those that the target does not have."""
        keys = keys_of(names, contents)
        firsts = np.searchsorted(self._keys, keys)
        rows = [self._take(keys[place], first) for place, first in enumerate(firsts.tolist())]
        missing = [place for place, row in enumerate(rows) if row is None]
        if missing:
            self._note_known(_names_of(keys[missing]))
        return rows

    def _take(self, key: bytes, first: int) -> int | None:
        """Take the next row of an item, whose first one is known; returns it, ``None`` if there is none left."""
        if first == len(self._keys):
            return None
        place = first + int(self._found[first])
        if place == len(self._keys) or self._keys[place] != key:
            return None
        self._found[first] += 1
        row = int(self._rows[place])
        self.stays[row] = True
        return row

    @property
    def replaced(self) -> int:
        """How many of the rows that do not stay are of an item that the input has with another content."""
        left = _names_of(self._keys[~self.stays[self._rows]])
        there, rows = np.unique(left, return_counts=True)
        known, items = np.unique(np.concatenate([left[:0], *self._known]), return_counts=True)
        _, of_rows, of_items = np.intersect1d(there, known, assume_unique=True, return_indices=True)
        return int(np.minimum(rows[of_rows], items[of_items]).sum())

    def _note_known(self, names: NDArray[Any]) -> None:
        """Note names of items that the target does not have, as far as it has others of that name."""
        if len(self._keys):
            # A name followed by zeros comes before all keys that begin with it.
            places = np.minimum(np.searchsorted(self._keys, names.astype(KEY)), len(self._keys) - 1)
            self._known.append(names[_names_of(self._keys[places]) == names])


def _names_of(keys: NDArray[Any]) -> NDArray[Any]:
    """Return what keys say of names."""
    return keys.astype(NAME)
