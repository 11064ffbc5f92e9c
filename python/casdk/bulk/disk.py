"""Files that are whole or not there, and that outlive a loss of power: what all targets write with."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import numpy as np

from casdk._rust import sum_words
from casdk.errors import BulkError

__all__ = [
    "READ_BYTES",
    "Checksum",
    "Lock",
    "Part",
    "checksum_of",
    "is_locked",
    "make_folder",
    "open_locked",
    "rename",
    "sum_of",
    "sync_folder",
    "write_whole",
]

MODULUS: Final = 1 << 64
READ_BYTES: Final = 1 << 20
LOOK_SECONDS: Final = 0.05
"""Longer than `is_locked` holds a lock that it looks at."""
WRITEBACK_BYTES: Final = 16 << 20
"""After so many bytes the system is asked to begin to write them to the disk, so that the end does not wait for all."""


class Checksum:
    """Sum of the 64-bit little-endian words of a sequence of bytes, modulo 2 to the 64th; zeros fill up the last word.

    It finds files that a disk has damaged or that were cut. It is as fast as reading memory, unlike every checksum of
    the standard library.

    Attributes:
        count: Bytes that were counted in.
    """

    def __init__(self) -> None:
        self.count: int = 0
        self._sum = 0

    def add(self, data: bytes | memoryview) -> None:
        """Count bytes in."""
        view = np.frombuffer(data, np.uint8)
        self.note(sum_words(view, self.count), len(view))

    def note(self, total: int, count: int) -> None:
        """Count bytes in of which somebody else has made the sum, as what comes behind those that were counted."""
        self._sum += total
        self.count += count

    @property
    def text(self) -> str:
        """The sum, in hexadecimal."""
        return f"{self._sum % MODULUS:016x}"


def sum_of(checksums: Iterable[str]) -> str:
    """Return the checksum of several sequences, each of whole words but for its end, from those of each."""
    return f"{sum(int(checksum, 16) for checksum in checksums) % MODULUS:016x}"


def checksum_of(path: Path) -> str:
    """Return the checksum of a file."""
    checksum = Checksum()
    with open(path, "rb") as file:
        while data := file.read(READ_BYTES):
            checksum.add(data)
    return checksum.text


def open_locked(path: Path, operation: int) -> int:
    """Open a file, which is made if it is not there, under a lock that ends with the descriptor.

    Args:
        path: The file.
        operation: ``fcntl.LOCK_EX`` or ``fcntl.LOCK_SH``.

    Raises:
        BlockingIOError: Another process holds the lock.
        OSError: It cannot be opened, with its name.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError:
            os.close(descriptor)
            raise
        # The former holder has removed or renamed the file between opening and locking it, so try again.
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a target alone; to find out, it is shared for a moment."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


class Lock:
    """Held by the one process that writes a target; the system takes it back from a process that ends, however it does.

    Args:
        path: The file that is locked; removed when the lock is given back.
        target: The target's name.
        shared: Let others share it; who holds it alone removes the file.

    Raises:
        BulkError: Another process holds it.
    """

    def __init__(self, path: Path, target: str, *, shared: bool = False) -> None:
        self._path = path
        self._shared = shared
        operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            try:
                self._descriptor = open_locked(path, operation)
            except BlockingIOError:  # `is_locked` of another process may hold it for a moment
                time.sleep(LOOK_SECONDS)
                self._descriptor = open_locked(path, operation)
        except BlockingIOError:
            raise BulkError(f"{target} is being written by another process, or by another call of this one") from None
        if not shared:
            os.utime(self._descriptor)  # a file that a killed process has left says now since when it is held

    def release(self) -> None:
        """Give it back."""
        if not self._shared:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # as some file systems on a network say
            raise
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder, if it is not there, and wait until its name is on disk."""
    if not path.is_dir():
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def rename(source: Path, target: Path) -> None:
    """Rename a file that is on disk, and wait until the new name is on disk."""
    os.replace(source, target)
    sync_folder(target.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there with all of its bytes, or as it was before.

    Raises:
        OSError: It cannot be written, with its name.
    """
    part = Part(path.with_name(f"{_hidden(path.name)}.tmp"))
    try:
        part.write(data)
        part.sync()
    finally:
        part.close()
    rename(part.path, path)


def _hidden(name: str) -> str:
    """Return a name that readers of a folder pass over."""
    return name if name.startswith("_") else f"_{name}"


class Part:
    """A file that is being written, at its end alone.

    Args:
        path: Its name.
        size: Bytes of it that are kept, if it is there.

    Attributes:
        size: Bytes that are written.
        closed: Whether it is closed.
        checksum: Counts in what is written, if it is there.

    Raises:
        OSError: It cannot be opened, with its name.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path: Path = path
        self.size: int = size
        self.closed: bool = False
        self.checksum: Checksum | None = None
        self._written_back = size
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._act(lambda: os.ftruncate(self._descriptor, size))

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Add bytes to the end: all of them, or none.

        Returns:
            How many there were.

        Raises:
            OSError: There is no room for them; the error has the file's name.
        """
        view = memoryview(data).cast("B")
        try:
            self._put(view, self.size)
        except OSError:
            self.cut(self.size)
            raise
        self.size += len(view)
        if self.checksum is not None:
            self.checksum.add(view)
        return len(view)

    def _put(self, view: memoryview, start: int) -> None:
        """Write bytes to a place of the file."""
        done = 0
        try:
            while done < len(view):
                done += os.pwrite(self._descriptor, view[done:], start + done)
        except OSError as error:
            raise self._named(error) from None
        if start + done - self._written_back >= WRITEBACK_BYTES and hasattr(os, "posix_fadvise"):
            # On Linux this begins to write what is dirty, and does not wait for it.
            os.posix_fadvise(self._descriptor, self._written_back, WRITEBACK_BYTES, os.POSIX_FADV_DONTNEED)
            self._written_back += WRITEBACK_BYTES

    def overwrite(self, data: bytes) -> None:
        """Put bytes in place of the first ones."""
        self._act(lambda: os.pwrite(self._descriptor, data, 0))

    def cut(self, size: int) -> None:
        """Drop what comes after so many bytes."""
        self._act(lambda: os.ftruncate(self._descriptor, size))
        self.size = size

    def sync(self) -> None:
        """Wait until all of it is on disk."""
        self._act(lambda: os.fsync(self._descriptor))

    def tell(self) -> int:
        """Return where the next byte goes, as file objects do."""
        return self.size

    def flush(self) -> None:
        """Do nothing: no byte waits in here."""

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self.closed = True
            os.close(self._descriptor)

    def _act(self, step: Callable[[], object]) -> None:
        try:
            step()
        except OSError as error:
            raise self._named(error) from None

    def _named(self, error: OSError) -> OSError:
        return OSError(error.errno, error.strerror, str(self.path))
