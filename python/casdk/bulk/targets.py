"""What a bulk run writes to: what all targets have in common, and which one a path names."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from casdk.bulk.manifest import BY_UPDATE, Manifest, Shard, read_manifest
from casdk.errors import BulkError, ItemError

__all__ = ["FillableTarget", "Held", "Rows", "Target", "described", "described_rows", "normalized", "remove"]

Rows = NDArray[Any]


class Held(Protocol):
    """A lock that is held."""

    def release(self) -> None:
        """Give it back."""
        ...


class Target(ABC):
    """Files that hold the rows of a run, and a manifest that says which of them are true.

    Between `begin` and `commit`, `keep` or `drop` one shard is being made. What the target holds is what the manifest
    says.

    Args:
        name: As the caller named it.

    Attributes:
        name: That.
    """

    def __init__(self, name: str) -> None:
        self.name: str = name

    def lock(self) -> Held:
        """Return the lock that its one writer holds.

        Raises:
            BulkError: Somebody else holds it, or there is no such folder.
        """
        try:
            return self._acquire()
        except OSError as error:
            raise BulkError(f"{self.name} cannot be written: {error.strerror}") from error

    @abstractmethod
    def _acquire(self) -> Held:
        """Return the lock, or raise an error as a file does."""

    def read_manifest(self) -> Manifest | None:
        """Return what it holds; ``None`` if there is nothing.

        Raises:
            BulkError: There is something that no run of this kind has made.
        """
        try:
            data, path = self._read_manifest()
        except FileNotFoundError:
            return None
        return read_manifest(data, path)

    @abstractmethod
    def _read_manifest(self) -> tuple[bytes, str]:
        """Return the bytes of the manifest, and where it is."""

    def read_manifests(self) -> list[Manifest]:
        """Return what it holds: one for each run that writes it; none if there is nothing."""
        manifest = self.read_manifest()
        return [] if manifest is None else [manifest]

    @abstractmethod
    def write_manifest(self, manifest: Manifest) -> None:
        """Say what it holds from now on."""

    @abstractmethod
    def foreign_files(self) -> Iterator[str]:
        """Yield what lies in its place and is not of a bulk run, as there is no manifest."""

    @abstractmethod
    def clear(self) -> None:
        """Remove what an earlier run has left, its manifest first.

        Raises:
            BulkError: There are files of others that would remain in it.
        """

    @abstractmethod
    def check(self, manifest: Manifest) -> None:
        """Check that what the manifest says is there.

        Raises:
            BulkError: A file is missing, or has another size.
        """

    @abstractmethod
    def begin(self, manifest: Manifest, width: int) -> None:
        """Begin with the next shard, at the end of what is there of it.

        Args:
            manifest: What the target holds.
            width: Numbers in an embedding.
        """

    @abstractmethod
    def add(
        self, names: Sequence[str], rows: Rows, errors: Mapping[int, ItemError], captions: Sequence[str] = ()
    ) -> None:
        """Add rows to the shard.

        Args:
            names: Theirs.
            rows: ``[len(names), D]``; where a row is an image and its caption, ``[2 len(names), D]``, each caption next
                to its image.
            errors: Of the items without an embedding, by position in these; their rows are NaN.
            captions: The texts of the rows, if the layout has a place for them.
        """

    @abstractmethod
    def commit(self, shard: Shard, contents: bytes = b"") -> Shard:
        """Make the shard whole, on disk and under its name; returns it with its files and checksum.

        Args:
            shard: Its entry so far.
            contents: What is known of its items, as `casdk.bulk.items.Contents` has it: kept by a target that can be
                updated.
        """

    @abstractmethod
    def keep(self, shard: Shard, contents: bytes = b"") -> Shard:
        """Put what there is of the shard on disk, for `begin` to go on with; arguments and result as of `commit`."""

    @abstractmethod
    def drop(self) -> None:
        """Let go of the shard, which is not to be kept."""

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
        """Prepare a finished target for an update, and return what it then holds."""
        return manifest

    def settle(self, manifest: Manifest) -> Manifest:
        """Bring to its end, or take back, what a killed run has left that was changing a shard which was there.

        Returns:
            What the target then holds.
        """
        return manifest

    def _compare_size(self, path: str, found: int | None, size: int, *, exactly: bool = True) -> None:
        """Check that a file has the bytes that the manifest says; ``None``: it is not there."""
        if found is None:
            raise BulkError(f"{path} is gone, of which the manifest of {self.name} says that it is whole")
        if found < size or (exactly and found != size):
            raise BulkError(f"{path} has {found} bytes, and the manifest of {self.name} says {size}: it was changed")


class FillableTarget(Target):
    """A target in which rows can be put in the place of some that had failed."""

    @abstractmethod
    def failures(self, manifest: Manifest, shard: Shard) -> dict[int, str]:
        """Return what is written of a shard's failed items, by row of the shard."""

    @abstractmethod
    def fill(self, manifest: Manifest, shard: Shard, rows: Mapping[int, Rows], errors: Mapping[int, str]) -> Manifest:
        """Put rows in the place of some that had failed, and return what the target then holds.

        A run that is killed meanwhile leaves the shard as it was, or something that `settle` makes good.

        Args:
            manifest: What it holds.
            shard: A shard, or what there is of the next one.
            rows: ``[columns, D]``, the embeddings of a row, by row of the shard.
            errors: What is said from now on of those that have failed again.
        """


def normalized(rows: Rows) -> Rows:
    """Return rows divided by their lengths; rows of zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    return cast(Rows, rows / lengths)


def described(error: ItemError) -> str:
    """Return what is written of a failed item."""
    return f"{type(error).__name__}: {error.reason}"


def described_rows(errors: Mapping[int, ItemError], parts: int) -> dict[int, str]:
    """Return what is written of the rows of which an item failed, by row.

    Args:
        errors: By item.
        parts: Items in a row; of two, the first is an image, and the other one its caption.
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
