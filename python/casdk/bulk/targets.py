"""The contract of a target, which a `Run` writes to, and small functions that all targets share.

`matrix.py`, `shards.py` and `clip_retrieval.py` implement it; `casdk.bulk.call.open_target` chooses one for a path.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from casdk._rust import to_half
from casdk.bulk.manifest import BY_UPDATE, Manifest, Shard, read_manifest
from casdk.bulk.work import Labels
from casdk.errors import BulkError, ItemError

if TYPE_CHECKING:
    from casdk.bulk.row_blocks import RowBlocks

__all__ = [
    "FillableTarget",
    "Held",
    "Rows",
    "Target",
    "described",
    "described_rows",
    "in_dtype",
    "normalized",
    "remove",
]

Rows = NDArray[Any]


class Held(Protocol):
    """A lock that is held."""

    def release(self) -> None:
        """Release the lock."""
        ...


class Target(ABC):
    """Files that hold the rows of a run, and a manifest that says which of them are valid.

    The target holds what the manifest says. Between `begin` and `commit`, `keep` or `drop`, one shard is being made.

    Args:
        name: The target's path or URL, as the caller wrote it.

    Attributes:
        name: The same, for messages.
        blocks: Where the engine may put the rows of the shard as they come; ``None`` if there is no such place.
    """

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.blocks: RowBlocks | None = None

    def lock(self) -> Held:
        """Take the lock, which only one process can hold, and return it.

        Raises:
            BulkError: Another process holds it, or the folder does not exist.
        """
        try:
            return self._acquire()
        except OSError as error:
            raise BulkError(f"{self.name} cannot be written: {error.strerror}") from error

    @abstractmethod
    def _acquire(self) -> Held:
        """Take the lock and return it; raise ``OSError`` if that fails."""

    def read_manifest(self) -> Manifest | None:
        """Return the manifest; ``None`` if there is none.

        Raises:
            BulkError: There is a manifest that no run of this kind has made.
        """
        try:
            data, path = self._read_manifest()
        except FileNotFoundError:
            return None
        return read_manifest(data, path)

    @abstractmethod
    def _read_manifest(self) -> tuple[bytes, str]:
        """Return the bytes of the manifest, and its path."""

    def read_manifests(self) -> list[Manifest]:
        """Return the manifests: one for each run that writes the target, none if there is no target."""
        manifest = self.read_manifest()
        return [] if manifest is None else [manifest]

    @abstractmethod
    def write_manifest(self, manifest: Manifest) -> None:
        """Write the manifest, which from now on says what the target holds."""

    @abstractmethod
    def foreign_files(self) -> Iterator[str]:
        """Yield files that are in the way and belong to no bulk run; only called if there is no manifest."""

    @abstractmethod
    def clear(self) -> None:
        """Remove the files of earlier runs, the manifest first.

        Raises:
            BulkError: The target also has files that no bulk run has made.
        """

    @abstractmethod
    def check(self, manifest: Manifest) -> None:
        """Check that all files of the manifest exist with their sizes.

        Raises:
            BulkError: A file is missing, or has another size.
        """

    @abstractmethod
    def begin(self, manifest: Manifest, width: int) -> None:
        """Begin to write the next shard, behind the rows of it that are there already.

        Args:
            manifest: The manifest of the target.
            width: Numbers in an embedding.
        """

    @abstractmethod
    def add(self, rows: Rows, errors: Mapping[int, ItemError]) -> None:
        """Add rows to the shard; `add_labels` gets their names, at the latest before `commit` or `keep`.

        Args:
            rows: ``[N, D]``; if a row is an image and its caption, ``[2 N, D]``, each caption next to its image.
            errors: The errors of items without an embedding, by their position in ``rows``; their rows are NaN.
        """

    @abstractmethod
    def add_labels(self, labels: Labels) -> None:
        """Add the labels of the next rows that have none yet; these rows were added before.

        Names come apart from the rows because each reply brings only a few rows, and many names at a time cost less.
        """

    @abstractmethod
    def commit(self, shard: Shard, contents: bytes = b"") -> Shard:
        """Finish the shard: write it to disk under its name, and return its entry with files and checksum.

        Args:
            shard: The entry without files and checksum.
            contents: The contents of its items, as `casdk.bulk.items.Contents` encodes them; a target that can be
                updated stores them.
        """

    @abstractmethod
    def keep(self, shard: Shard, contents: bytes = b"") -> Shard:
        """Write the beginning of the shard to disk, for `begin` to continue; arguments and result as for `commit`."""

    @abstractmethod
    def drop(self) -> None:
        """Discard the shard that is being made."""

    @abstractmethod
    def complete(self, manifest: Manifest) -> None:
        """Give a finished target its final form; done again where an earlier run was stopped in the middle of it."""

    @property
    def advice(self) -> str:
        """What to do about an input that is another one than that of the target."""
        return BY_UPDATE

    @abstractmethod
    def names_of(self, manifest: Manifest, shard: Shard) -> Iterator[str]:
        """Yield the names of a shard's rows."""

    def begin_update(self, manifest: Manifest) -> Manifest:
        """Prepare a finished target for an update, and return its manifest afterwards."""
        return manifest

    def settle(self, manifest: Manifest) -> Manifest:
        """Complete or undo the change of an existing shard that a killed run has left unfinished.

        Returns:
            The manifest afterwards.
        """
        return manifest

    def _compare_size(self, path: str, found: int | None, size: int, *, exactly: bool = True) -> None:
        """Check that a file has the size in the manifest; ``found`` is ``None`` if the file does not exist."""
        if found is None:
            raise BulkError(f"{path} is gone, of which the manifest of {self.name} says that it is whole")
        if found < size or (exactly and found != size):
            raise BulkError(f"{path} has {found} bytes, and the manifest of {self.name} says {size}: it was changed")


class FillableTarget(Target):
    """A target in which the rows of failed items can be filled in later, for ``retry_errors`` and ``update``."""

    @abstractmethod
    def failures(self, manifest: Manifest, shard: Shard) -> dict[int, str]:
        """Return the recorded errors of a shard's failed items, by row of the shard."""

    @abstractmethod
    def fill(self, manifest: Manifest, shard: Shard, rows: Mapping[int, Rows], errors: Mapping[int, str]) -> Manifest:
        """Fill in the rows of items that had failed, and return the manifest afterwards.

        A run that is killed meanwhile leaves the shard as it was, or in a state that `settle` completes.

        Args:
            manifest: The manifest of the target.
            shard: A complete shard, or the beginning of the next one.
            rows: ``[columns, D]``, the embeddings of a row, by row of the shard.
            errors: The new errors of items that have failed again, by row of the shard.
        """


def in_dtype(rows: Rows, dtype: np.dtype[Any] | str) -> Rows:
    """Return rows ``[N, D]`` in the dtype of a target, C-contiguous."""
    if rows.dtype == np.float32 and dtype == np.float16:
        return to_half(rows)
    return np.ascontiguousarray(rows, dtype)


def normalized(rows: Rows) -> Rows:
    """Return rows divided by their lengths; rows of zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    return cast(Rows, rows / lengths)


def described(error: ItemError) -> str:
    """Return the text that a target records about a failed item."""
    return f"{type(error).__name__}: {error.reason}"


def described_rows(errors: Mapping[int, ItemError], parts: int) -> dict[int, str]:
    """Return the texts that a target records about rows with a failed item, by row.

    Args:
        errors: The errors, by item.
        parts: Items in a row: 1, or 2 for an image and its caption.
    """
    said: dict[int, str] = {}
    for place, error in sorted(errors.items()):
        row, part = divmod(place, parts)
        words = described(error) if parts == 1 else f"{('image', 'text')[part]}: {described(error)}"
        words = words.encode("utf-8", "backslashreplace").decode()
        said[row] = f"{said[row]}; {words}" if row in said else words
    return said


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
