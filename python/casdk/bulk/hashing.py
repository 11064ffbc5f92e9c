"""A source whose files are fingerprinted by their bytes instead of size and time; a `Run` uses it for ``hash=True``."""

from __future__ import annotations

import asyncio
import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from casdk.bulk.sources import AsyncSource, Block, Source
from casdk.models import Image

__all__ = ["by_bytes"]

HASH: Final = partial(hashlib.blake2b, digest_size=16)


def by_bytes(source: Source | AsyncSource) -> Source | AsyncSource:
    """Return the same items, each file among them with a fingerprint of its bytes."""
    if isinstance(source, AsyncSource):
        return AsyncByBytes(source)
    return Source(lambda most: _read(source.take(most)), source.total, source.holds)


class AsyncByBytes(AsyncSource):
    """Items of an async input with fingerprints of the bytes of their files, which a thread reads.

    Args:
        source: The input.
    """

    def __init__(self, source: AsyncSource) -> None:
        self._source = source

    async def take(self, most: int) -> Block:
        """Take up to ``most`` items."""
        return await asyncio.to_thread(_read, await self._source.take(most))


def _read(block: Block) -> Block:
    """Return a block with fingerprints of the bytes of its files."""
    parts = len(block.items) // max(1, len(block))
    paths = {place // parts: path for place, item in enumerate(block.items) if (path := _path_of(item)) is not None}
    digests = {row: _digest_of(path) for row, path in paths.items()}
    return msgspec.structs.replace(block, contents={**block.contents, **digests})


def _path_of(item: Any) -> str | None:
    """Return the path of an item that is a file of this machine; ``None`` for any other item."""
    if isinstance(item, Image):
        source: Any = item.source
        return _path_of(Path(source) if isinstance(source, str) and "://" not in source[:10] else source)
    return os.fsdecode(item) if isinstance(item, os.PathLike) else None


def _digest_of(path: str) -> str:
    """Return a digest of a file, or the kind of error if it cannot be read, for comparison in a later run."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, HASH).hexdigest()
    except OSError as error:
        return type(error).__name__
    except ValueError:  # a null in the name
        return "no file"
