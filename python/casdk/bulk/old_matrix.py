"""The matrix that was there before an update, which makes a new one beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from casdk.bulk.items import CONTENT_BYTES, keys_of, unmatched
from casdk.bulk.manifest import Manifest
from casdk.bulk.targets import Rows

__all__ = ["OldMatrix"]

READ_NAMES: Final = 4096
"""Names that are read at a time."""


class OldMatrix:
    """The old matrix of an update, which stays complete until the new one takes its place.

    Args:
        manifest: The manifest of the old matrix.
        files: The paths of its ``rows``, ``names``, ``errors`` and ``contents``.
        dtype: The dtype of its numbers.
        head_bytes: The size of the header before its rows.
    """

    def __init__(self, manifest: Manifest, files: Mapping[str, Path], dtype: np.dtype[Any], head_bytes: int) -> None:
        self.manifest: Manifest = manifest
        self._files = files
        self._dtype = dtype
        self._head_bytes = head_bytes

    def keys(self) -> NDArray[Any]:
        """Return the keys of its rows, in order; those of items that failed match no item, so these are sent again."""
        keys = [keys_of([], b"")]
        contents = self._contents()
        with open(self._files["names"], "rb") as lines:
            first = 0
            while names := [msgspec.json.decode(line, type=str) for line in islice(lines, READ_NAMES)]:
                last = first + len(names)
                keys.append(keys_of(names, contents[first * CONTENT_BYTES : last * CONTENT_BYTES]))
                first = last
        joined = np.concatenate(keys)
        with open(self._files["errors"], "rb") as lines:
            failed = [json.loads(line)["row"] for line in lines]
        if failed:
            joined[failed] = unmatched(joined[failed])
        return joined

    def _contents(self) -> bytes:
        """Return the hashed fingerprints of its items; empty if it has none, or an early version made it."""
        shards = self.manifest.shards
        return self._files["contents"].read_bytes() if shards and "contents" in shards[-1].files else b""

    def rows(self, first: int, count: int) -> Rows:
        """Return ``count`` consecutive rows, ``[count, D]``."""
        width = self.manifest.width
        with open(self._files["rows"], "rb") as file:
            file.seek(self._head_bytes + first * width * self._dtype.itemsize)
            return np.fromfile(file, self._dtype, count * width).reshape(count, width)
