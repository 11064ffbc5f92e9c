"""The storage of a folder target: files by name, on disk (`DiskStorage`) or in an object store (`object_storage.py`).

`FolderTarget` and its layouts read and write all of their files through a `Storage`, so they do not know which it is.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final

from casdk.bulk.disk import Lock, checksum_of, make_folder, rename, sync_folder, write_whole
from casdk.bulk.targets import Held, remove

__all__ = ["FOLDERS", "LOCK", "DiskStorage", "Locks", "Storage", "lock_of_share"]

FOLDERS: Final = ("img_emb", "text_emb", "metadata", "_failed")
"""The subfolders in clip-retrieval's layout."""
LOCK: Final = "_lock"
"""The file whose lock a process needs to write the folder."""


def lock_of_share(share: str) -> str:
    """Return the name of the file whose lock a process needs to write a share, such as `0-of-4`."""
    return f"{LOCK}.{share}"


class Storage(ABC):
    """Named files, each of which exists completely or not at all; a name has a slash if its layout has subfolders.

    Args:
        name: The path or URL, as the caller wrote it.

    Attributes:
        name: The same, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name: str = name

    # who may write

    @abstractmethod
    def lock(self) -> Held:
        """Take the lock of the whole, and return it.

        Raises:
            BulkError: Another process writes here.
            OSError: Nothing can be written here.
        """

    @abstractmethod
    def lock_share(self, share: str) -> Held:
        """Take the lock of one share; another process may lock another share, but not the same one, or the whole.

        Args:
            share: The share, as it is written in names of files.

        Raises:
            BulkError: Another process holds the share or the whole.
            OSError: Nothing can be written here.
        """

    @property
    @abstractmethod
    def scratch(self) -> Path:
        """A folder on disk for files that are being written, while a lock is held."""

    # what is there

    @abstractmethod
    def exists(self) -> bool:
        """Whether the folder exists, or in a store any object below the URL."""

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Return the names of all files, in order, and how many bytes each has."""

    def names(self) -> list[str]:
        """Return the names of all files, in order."""
        return list(self.sizes())

    def beginning(self, with_: str) -> list[str]:
        """Return the sorted names with a certain beginning, of files that only this process makes."""
        return [name for name in self.names() if name.startswith(with_)]

    @abstractmethod
    def size_of(self, name: str) -> int | None:
        """Return how many bytes a file has; ``None`` if it is not there."""

    @abstractmethod
    def where(self, name: str) -> str:
        """Return the path or URL of a file, for messages."""

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """Open a file, to be read from its beginning to its end.

        Raises:
            OSError: It is not there, or cannot be read.
        """

    @abstractmethod
    def for_arrow(self, name: str) -> Any:
        """Return an object from which pyarrow reads parts of a file."""

    @abstractmethod
    def checksum_of(self, name: str) -> str:
        """Return the checksum of a file."""

    # what is written

    @abstractmethod
    def take_in(self, path: Path, name: str) -> None:
        """Move a complete file of the scratch folder to its name here."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a small file."""

    @abstractmethod
    def rename(self, old: str, new: str) -> None:
        """Give a file another name, also one that there is."""

    @abstractmethod
    def remove(self, *names: str) -> None:
        """Remove the files that exist, durably."""

    # the manifest

    @abstractmethod
    def read_manifest(self, name: str) -> bytes:
        """Return the bytes of a manifest.

        Raises:
            FileNotFoundError: There is none.
        """

    @abstractmethod
    def write_manifest(self, name: str, data: bytes) -> None:
        """Write a manifest, unless another process has written it since this object has read or written it."""


class Locks:
    """Several locks that are released together.

    Args:
        held: The stack that releases each of them when it is closed.
    """

    def __init__(self, held: ExitStack) -> None:
        self._held = held

    def release(self) -> None:
        """Release them."""
        self._held.close()


class DiskStorage(Storage):
    """A folder on disk, which is made when it is locked.

    Args:
        path: The folder.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path: Path = Path(os.path.expanduser(path))

    def lock(self) -> Held:
        make_folder(self.path)
        return Lock(self.path / LOCK, self.name)

    def lock_share(self, share: str) -> Held:
        make_folder(self.path)
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
        make_folder(target.parent)
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
