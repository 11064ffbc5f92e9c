"""The files and locks of all targets on disk, written so that they survive a kill and a loss of power."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from casdk._rust import sum_words
from casdk.errors import BulkError

__all__ = [
    "PAGE_BYTES",
    "READ_BYTES",
    "Checksum",
    "Lock",
    "Part",
    "checksum_of",
    "is_locked",
    "make_folder",
    "open_locked",
    "page_memory",
    "rename",
    "sum_of",
    "sync_folder",
    "write_whole",
]

MODULUS: Final = 1 << 64
READ_BYTES: Final = 1 << 20
LOOK_SECONDS: Final = 0.05
"""How long to wait for a lock before a second attempt; `is_locked` of another process holds it for less."""
PAGE_BYTES: Final = 4096
"""Past its cache, the system writes only from addresses, to offsets and in sizes that are multiples of this."""
WRITEBACK_BYTES: Final = 16 << 20
"""Bytes after which the system is asked to begin to write them to the disk, so that the final sync waits for less."""


class Checksum:
    """The sum of the 64-bit little-endian words of a sequence of bytes, modulo 2 to the 64th.

    The last word is padded with zeros. The sum shows that a file was damaged by a disk or truncated. It is as fast as
    reading memory, unlike every checksum of the standard library.

    Attributes:
        count: How many bytes the sum contains.
    """

    def __init__(self) -> None:
        self.count: int = 0
        self._sum = 0

    def add(self, data: bytes | memoryview) -> None:
        """Add the bytes that follow."""
        view = np.frombuffer(data, np.uint8)
        self.note(sum_words(view, self.count), len(view))

    def note(self, total: int, count: int) -> None:
        """Add the sum of the bytes that follow, which the caller has computed.

        Args:
            total: The sum of their words, as `sum_words` returns it for their position.
            count: How many bytes they are.
        """
        self._sum += total
        self.count += count

    @property
    def text(self) -> str:
        """The sum, in hexadecimal."""
        return f"{self._sum % MODULUS:016x}"


def sum_of(checksums: Iterable[str]) -> str:
    """Return the checksum of several files, each of which begins at a new word, from the checksum of each."""
    return f"{sum(int(checksum, 16) for checksum in checksums) % MODULUS:016x}"


def checksum_of(path: Path) -> str:
    """Return the checksum of a file."""
    checksum = Checksum()
    with open(path, "rb") as file:
        while data := file.read(READ_BYTES):
            checksum.add(data)
    return checksum.text


def open_locked(path: Path, operation: int) -> int:
    """Open a file and lock it; the file is created if it does not exist, and closing the descriptor releases the lock.

    Args:
        path: The file.
        operation: ``fcntl.LOCK_EX`` or ``fcntl.LOCK_SH``.

    Raises:
        BlockingIOError: Another process holds the lock.
        OSError: The file cannot be opened; the error has its name.
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
    """Whether a process holds the exclusive lock of a target. To find out, this takes the shared lock for a moment."""
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
    """The lock of the process that writes a target; the system releases it when the process ends, however it ends.

    Args:
        path: The file that is locked.
        target: The target's name, for messages.
        shared: Whether other processes may share the lock. The file is only removed on the release of a lock that is
            not shared.

    Raises:
        BulkError: Another process holds the lock.
    """

    def __init__(self, path: Path, target: str, *, shared: bool = False) -> None:
        self._path = path
        self._shared = shared
        operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            try:
                self._descriptor = open_locked(path, operation)
            except BlockingIOError:  # `is_locked` of another process may hold the lock for a moment
                time.sleep(LOOK_SECONDS)
                self._descriptor = open_locked(path, operation)
        except BlockingIOError:
            raise BulkError(f"{target} is being written by another process, or by another call of this one") from None
        if not shared:
            # A killed process may have left the file, whose time tells `casdk bulk status` since when the lock is held.
            os.utime(self._descriptor)

    def release(self) -> None:
        """Release the lock."""
        if not self._shared:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder, unless it exists, and wait until its name is on disk."""
    if not path.is_dir():
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def rename(source: Path, target: Path) -> None:
    """Rename a file that is on disk, and wait until the new name is on disk."""
    os.replace(source, target)
    sync_folder(target.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file such that a kill or a loss of power leaves it with all of its bytes, or as it was before.

    Raises:
        OSError: The file cannot be written; the error has its name.
    """
    part = Part(path.with_name(f"{_hidden(path.name)}.tmp"))
    try:
        part.write(data)
        part.sync()
    finally:
        part.close()
    # The data may speak of other files in the folder, whose names have to be on disk before it.
    sync_folder(path.parent)
    rename(part.path, path)


def _hidden(name: str) -> str:
    """Return a name that begins with an underscore, so that readers of Parquet folders ignore the file."""
    return name if name.startswith("_") else f"_{name}"


def page_memory(size: int) -> NDArray[np.uint8]:
    """Return memory of so many bytes whose address is a multiple of `PAGE_BYTES`.

    Memory that the allocator has used before is used again, so it need not cost page faults.
    """
    memory = np.empty(size + PAGE_BYTES, np.uint8)
    first = -memory.ctypes.data % PAGE_BYTES
    return memory[first : first + size]


class Part:
    """A file that is being written by adding to its end.

    Args:
        path: The file, which is created if it does not exist.
        size: How many of its first bytes are kept; what follows them is removed.

    Attributes:
        path: The file.
        size: The size of the file.
        closed: Whether the file is closed.
        checksum: The checksum to which all written bytes are added; ``None`` for none.

    Raises:
        OSError: The file cannot be opened; the error has its name.
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
        """Write bytes at an offset of the file."""
        done = 0
        try:
            while done < len(view):
                done += os.pwrite(self._descriptor, view[done:], start + done)
        except OSError as error:
            raise self._named(error) from None
        if start + done - self._written_back >= WRITEBACK_BYTES and hasattr(os, "posix_fadvise"):
            # On Linux this begins to write these bytes to the disk, and does not wait for it.
            os.posix_fadvise(self._descriptor, self._written_back, WRITEBACK_BYTES, os.POSIX_FADV_DONTNEED)
            self._written_back += WRITEBACK_BYTES

    def overwrite(self, data: bytes) -> None:
        """Replace the first bytes of the file."""
        self._act(lambda: os.pwrite(self._descriptor, data, 0))

    def cut(self, size: int) -> None:
        """Truncate the file to a size."""
        self._act(lambda: os.ftruncate(self._descriptor, size))
        self.size = size

    def sync(self) -> None:
        """Wait until the whole file is on disk."""
        self._act(lambda: os.fsync(self._descriptor))

    def tell(self) -> int:
        """Return the position of the next byte, as file objects do."""
        return self.size

    def flush(self) -> None:
        """Do nothing, because there is no buffer."""

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
