"""The keys by which an update finds out which items a target has already; there is no I/O here.

A key is made of an item's name and of its fingerprint (see `casdk.bulk.sources`): items with the same key are the same
item. A target has the names in its shards. If some of its items have a fingerprint, it also has a file with 8 bytes for
each item of the shard, a hash of the fingerprint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONTENT_BYTES", "Contents", "Index", "contents_of", "keys_of", "unmatched"]

NAME_BYTES: Final = 16
CONTENT_BYTES: Final = 8
NAME: Final = np.dtype(f"S{NAME_BYTES}")
KEY: Final = np.dtype(f"S{NAME_BYTES + CONTENT_BYTES}")
"""NumPy can sort and search byte strings. It drops zeros at their end, which is harmless: all keys have one length."""


class Contents:
    """The hashed fingerprints of consecutive items."""

    def __init__(self) -> None:
        self._digests = bytearray()

    def note(self, place: int, content: str) -> None:
        """Add the fingerprint of an item; the items before it that were not added have none."""
        self._digests += bytes(place * CONTENT_BYTES - len(self._digests))
        self._digests += hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=CONTENT_BYTES).digest()

    def of(self, items: int) -> bytes:
        """Return 8 bytes for each of so many items, zeros for one without a fingerprint; empty if no item has one."""
        if not self._digests:
            return b""
        return bytes(self._digests) + bytes(items * CONTENT_BYTES - len(self._digests))


def contents_of(known: Mapping[int, str], items: int) -> bytes:
    """Return what `Contents.of` returns for so many items, of which all fingerprints are known, by position."""
    contents = Contents()
    for place, content in sorted(known.items()):
        contents.note(place, content)
    return contents.of(items)


def keys_of(names: Sequence[str], contents: bytes) -> NDArray[Any]:
    """Return the keys of items.

    Args:
        names: The names of the items.
        contents: Their hashed fingerprints, as `Contents.of` returns them.
    """
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=NAME_BYTES).digest() for name in names)
    keys = np.zeros((len(names), KEY.itemsize), np.uint8)
    keys[:, :NAME_BYTES] = np.frombuffer(digests, np.uint8).reshape(-1, NAME_BYTES)
    if contents:
        keys[:, NAME_BYTES:] = np.frombuffer(contents, np.uint8).reshape(-1, CONTENT_BYTES)
    return keys.view(KEY)[:, 0]


def unmatched(keys: NDArray[Any]) -> NDArray[Any]:
    """Return keys with the same names that match no item, as for items that failed and are to be encoded again."""
    others = keys.view(np.uint8).reshape(-1, KEY.itemsize).copy()
    others[:, NAME_BYTES:] ^= 0xFF
    return others.view(KEY)[:, 0]


class Index:
    """Finds the rows of a target for the items of an input, and remembers which rows were found.

    It takes about 40 bytes of memory per row, and as many again while it is made. A target may have several rows with
    the same key. Each item of the input then gets one of them, beginning with the first.

    Args:
        keys: The keys of all rows, in order.

    Attributes:
        stays: For each row, whether an item of the input was found to have it.
    """

    def __init__(self, keys: NDArray[Any]) -> None:
        self._rows = np.argsort(keys, kind="stable")
        self._keys = keys[self._rows]
        # How many rows with a key were found, at the position of the first of them in the sorted keys.
        self._found = np.zeros(len(keys), np.uint32)
        self.stays: NDArray[np.bool_] = np.zeros(len(keys), bool)
        self._changed: list[NDArray[Any]] = []

    def look_up(self, names: Sequence[str], contents: bytes) -> list[int | None]:
        """Find a row for each of the next items of the input; ``None`` for an item that the target does not have."""
        keys = keys_of(names, contents)
        firsts = np.searchsorted(self._keys, keys)
        rows = [self._take(keys[place], first) for place, first in enumerate(firsts.tolist())]
        missing = [place for place, row in enumerate(rows) if row is None]
        if missing:
            self._note_changed(_names_of(keys[missing]))
        return rows

    def _take(self, key: bytes, first: int) -> int | None:
        """Return the next row with a key; ``None`` if none is left.

        Args:
            key: The key.
            first: The position in the sorted keys where the first row with this key is, if there is one.
        """
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
        """How many rows do not stay because the input has their items with other fingerprints."""
        left = _names_of(self._keys[~self.stays[self._rows]])
        there, rows = np.unique(left, return_counts=True)
        changed, items = np.unique(np.concatenate([left[:0], *self._changed]), return_counts=True)
        _, of_rows, of_items = np.intersect1d(there, changed, assume_unique=True, return_indices=True)
        return int(np.minimum(rows[of_rows], items[of_items]).sum())

    def _note_changed(self, names: NDArray[Any]) -> None:
        """Note those names of items without a row that rows of the target have, too: these items may have changed."""
        if len(self._keys):
            # A name followed by zeros is sorted before all keys that begin with this name.
            places = np.minimum(np.searchsorted(self._keys, names.astype(KEY)), len(self._keys) - 1)
            self._changed.append(names[_names_of(self._keys[places]) == names])


def _names_of(keys: NDArray[Any]) -> NDArray[Any]:
    """Return the part of each key that stands for the name."""
    return keys.astype(NAME)
