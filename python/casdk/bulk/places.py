"""Where the files of a folder target lie, each by its name in there: the one contract, and a folder on disk."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final

from casdk.bulk.disk import Lock, checksum_of, rename, sync_folder, write_whole
from casdk.bulk.targets import Held, remove

__all__ = ["FOLDERS", "LOCK", "DiskPlace", "Locks", "Place", "lock_of_share"]

FOLDERS: Final = ("img_emb", "text_emb", "metadata", "_failed")
"""Folders in the layout of clip-retrieval."""
LOCK: Final = "_lock"
"""The file that is locked by whoever writes."""


def lock_of_share(share: str) -> str:
    """Return the file that is locked by whoever writes a share, as `0-of-4`."""
    return f"{LOCK}.{share}"


class Place(ABC):
    """Files of which each is there as a whole, or not at all; their names have a slash where a layout has folders.

    Args:
        name: As the caller named it.

    Attributes:
        name: That.
    """

    def __init__(self, name: str) -> None:
        self.name: str = name

    # who may write

    @abstractmethod
    def lock(self) -> Held:
        """Return the lock of the one process that writes here.

        Raises:
            BulkError: Another process writes here.
            OSError: Nothing can be written here.
        """

    @abstractmethod
    def lock_share(self, share: str) -> Held:
        """Return the lock of one run among several: nobody else has the share, and nobody has all of the place.

        Args:
            share: What the share is called in names of files.

        Raises:
            BulkError: Somebody has it.
            OSError: Nothing can be written here.
        """

    @property
    @abstractmethod
    def scratch(self) -> Path:
        """A folder on disk for files under way, while a lock is held."""

    # what is there

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is such a place, or anything in it."""

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Return the names of all files, in order, and how many bytes each has."""

    def names(self) -> list[str]:
        """Return the names of all files, in order."""
        return list(self.sizes())

    def beginning(self, with_: str) -> list[str]:
        """Return the names that begin in a certain way, in order, of files that nobody but this process makes."""
        return [name for name in self.names() if name.startswith(with_)]

    @abstractmethod
    def size_of(self, name: str) -> int | None:
        """Return how many bytes a file has; ``None`` if it is not there."""

    @abstractmethod
    def where(self, name: str) -> str:
        """Return what a file is called outside."""

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """Open a file, to be read from its beginning to its end.

        Raises:
            OSError: It is not there, or cannot be read.
        """

    @abstractmethod
    def for_arrow(self, name: str) -> Any:
        """Return what pyarrow reads a file from, a part of it at a time."""

    @abstractmethod
    def checksum_of(self, name: str) -> str:
        """Return the checksum of a file."""

    # what is written

    @abstractmethod
    def take_in(self, path: Path, name: str) -> None:
        """Let a file of the scratch folder, which is on disk as a whole, appear under its name."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a small file."""

    @abstractmethod
    def rename(self, old: str, new: str) -> None:
        """Give a file another name, also one that there is."""

    @abstractmethod
    def remove(self, *names: str) -> None:
        """Remove files, if they are there, for good."""

    # the manifest

    @abstractmethod
    def read_manifest(self, name: str) -> bytes:
        """Return the bytes of a manifest.

        Raises:
            FileNotFoundError: There is none.
        """

    @abstractmethod
    def write_manifest(self, name: str, data: bytes) -> None:
        """Write a manifest, unless somebody else has written it since this place has read or written it."""


class Locks:
    """Several locks that are given back together.

    Args:
        held: Gives each of them back when it is closed.
    """

    def __init__(self, held: ExitStack) -> None:
        self._held = held

    def release(self) -> None:
        """Give them back."""
        self._held.close()


class DiskPlace(Place):
    """A folder on disk, made when it is locked.

    Args:
        path: The folder.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path: Path = Path(os.path.expanduser(path))

    def lock(self) -> Held:
        self.path.mkdir(exist_ok=True)
        return Lock(self.path / LOCK, self.name)

    def lock_share(self, share: str) -> Held:
        self.path.mkdir(exist_ok=True)
        with ExitStack() as held:
            # The lock of the whole is shared, and its file stays for the runs that are still there.
            among = Lock(self.path / LOCK, self.name, shared=True)
            held.callback(among.release)
            own = Lock(self.path / lock_of_share(share), self.name)
            held.callback(own.release)
            return Locks(held.pop_all())

    @property
    def scratch(self) -> Path:
        return self.path

    def exists(self) -> bool:
        return self.path.is_dir()

    def names(self) -> list[str]:
        """Return the names of what is in the folder, and in those folders in it that a layout has."""
        names: list[str] = []
        for path in sorted(self.path.iterdir()) if self.path.is_dir() else ():
            if path.name in FOLDERS and path.is_dir():
                names += (f"{path.name}/{below.name}" for below in sorted(path.iterdir()))
            else:
                names.append(path.name)
        return names

    def sizes(self) -> dict[str, int]:
        return {name: os.lstat(self.path / name).st_size for name in self.names()}

    def beginning(self, with_: str) -> list[str]:
        return sorted(path.name for path in self.path.glob(f"{with_}*"))

    def size_of(self, name: str) -> int | None:
        try:
            return (self.path / name).stat().st_size
        except FileNotFoundError:
            return None

    def where(self, name: str) -> str:
        return str(self.path / name)

    def open(self, name: str) -> IO[bytes]:
        return open(self.path / name, "rb")

    def for_arrow(self, name: str) -> Path:
        return self.path / name

    def checksum_of(self, name: str) -> str:
        return checksum_of(self.path / name)

    def take_in(self, path: Path, name: str) -> None:
        target = self.path / name
        if not target.parent.is_dir():
            target.parent.mkdir(exist_ok=True)  # another share may make it, too
            sync_folder(self.path)
        rename(path, target)

    def write(self, name: str, data: bytes) -> None:
        write_whole(self.path / name, data)

    def rename(self, old: str, new: str) -> None:
        rename(self.path / old, self.path / new)

    def remove(self, *names: str) -> None:
        there = [self.path / name for name in names if os.path.lexists(self.path / name)]
        for path in there:
            remove(path)
            if path.parent != self.path and not any(path.parent.iterdir()):
                path.parent.rmdir()
        if there:
            sync_folder(self.path)

    def read_manifest(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write_manifest(self, name: str, data: bytes) -> None:
        write_whole(self.path / name, data)
