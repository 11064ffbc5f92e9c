"""Files of many bytes: a thread writes them past the system's cache, while what comes next is received.

The system's cache takes a page for each 4 KiB, which is filled, noted as dirty, found again and written later, all in
the time of this process. Copied into memory of our own and written from there, rows take a third of that, and the cache
is left to those who read.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from casdk._rust import gather
from casdk.bulk.disk import Checksum, Part

__all__ = ["CHUNK_BYTES", "LargePart"]

CHUNK_BYTES: Final = 4 << 20
"""Bytes that are written at a time."""
MOST_WAITING: Final = 4
"""Chunks that may wait for the thread: a disk that is busy for a moment holds nothing up."""
BLOCK_BYTES: Final = 4096
"""Without the cache, the system writes only if offset, size and address in memory are multiples of this."""

Pieces: TypeAlias = deque[NDArray[np.uint8]]


class LargePart(Part):
    """A part of which a thread writes chunks while the bytes of the next ones are added, which are kept until then.

    On disk is what was there at the last `sync`, and the checksum is that of these bytes. What the thread could not
    write is raised by whatever is done next.

    Args:
        path: Its name.
        size: Bytes of it that are kept, if it is there.

    Raises:
        OSError: It cannot be opened, with its name.
    """

    size: int

    def __init__(self, path: Path, size: int = 0) -> None:
        super().__init__(path, size)
        self._direct: int | None = None
        self._may_pass_by = hasattr(os, "O_DIRECT")
        self._thread = ThreadPoolExecutor(1, "casdk-disk")
        self._writing: deque[Future[None]] = deque()
        self._added: Pieces = deque()
        self._added_bytes = self._uncounted = 0
        self._memory = mmap.mmap(-1, CHUNK_BYTES)  # it begins at a page
        self._chunk = np.frombuffer(self._memory, np.uint8)
        self._begin_chunk()

    def _begin_chunk(self) -> None:
        """Begin a chunk at the end of the file, with what the last block has already."""
        self._filled = self.size % BLOCK_BYTES
        self._start = self.size - self._filled
        if self._filled:
            self._memory[: self._filled] = os.pread(self._descriptor, self._filled, self._start)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Add bytes to the end, which nobody may change any more.

        Returns:
            How many there were.

        Raises:
            OSError: There is no room for what was added before; the error has the file's name.
        """
        piece = np.frombuffer(data, np.uint8)
        self._added.append(piece)
        self._added_bytes += len(piece)
        if self.checksum is None:
            self._uncounted = self._added_bytes
        if self._added_bytes >= CHUNK_BYTES:
            self._wait(MOST_WAITING - 1)
            self._writing.append(self._thread.submit(self._put_added, *self._take_added()))
        self.size += len(piece)
        return len(piece)

    def overwrite(self, data: bytes) -> None:
        """Put bytes in place of the first ones; they are on disk after the next `sync`."""
        self._wait()
        self._put_added(*self._take_added())
        if self._start:
            super().overwrite(data)
        else:
            self._memory[: len(data)] = data

    def cut(self, size: int) -> None:
        """Drop what comes after so many bytes."""
        self.sync()
        super().cut(size)
        self._begin_chunk()

    def sync(self) -> None:
        """Have all of it on disk."""
        self._wait()
        self._put_added(*self._take_added())
        self._put_chunk()
        super().sync()

    def close(self) -> None:
        """Let go of it."""
        if not self.closed:
            self._thread.shutdown()
            if self._direct is not None:
                os.close(self._direct)
        super().close()

    def _wait(self, most: int = 0) -> None:
        """Wait until no more than so many chunks wait for the thread, and raise what it could not write."""
        while self._writing and (len(self._writing) > most or self._writing[0].done()):
            self._writing[0].result()
            self._writing.popleft()

    def _take_added(self) -> tuple[Pieces, int, Checksum | None]:
        """Return what was added, how much of it does not count into the checksum, and that."""
        added, uncounted = self._added, self._uncounted
        self._added, self._added_bytes, self._uncounted = deque(), 0, 0
        return added, uncounted, self.checksum

    # what the thread does

    def _put_added(self, added: Pieces, uncounted: int, checksum: Checksum | None) -> None:
        """Put what was added into chunks, and write those that are full."""
        while added:
            most = CHUNK_BYTES - self._filled
            pieces, count = _taken(added, min(most, uncounted) or most)
            total = gather(self._chunk, self._filled, pieces, 0 if checksum is None else checksum.count)
            if uncounted:
                uncounted -= count
            elif checksum is not None:
                checksum.note(total, count)
            self._filled += count
            if self._filled == CHUNK_BYTES:
                if self._direct is None and self._may_pass_by:
                    self._open_direct()
                self._put_chunk()

    def _put_chunk(self) -> None:
        """Write what the chunk has been filled with; its last block stays, if that is not full."""
        filled = self._filled
        with memoryview(self._memory) as whole, whole[:filled] as view:
            done = self._put_past_cache(view)
            self._put(view[done:], self._start + done)
        self._filled = rest = filled % BLOCK_BYTES
        self._memory[:rest] = self._memory[filled - rest : filled]
        self._start += filled - rest

    def _put_past_cache(self, view: memoryview) -> int:
        """Write whole blocks past the cache.

        Returns:
            How many bytes these had: none, if that cannot be done here.
        """
        done, end = 0, len(view) - len(view) % BLOCK_BYTES
        try:
            while self._direct is not None and done < end:
                done += os.pwrite(self._direct, view[done:end], self._start + done)
        except OSError as error:
            if error.errno != errno.EINVAL:  # the error of a disk whose blocks are larger than ours
                raise self._named(error) from None
        return done - done % BLOCK_BYTES

    def _open_direct(self) -> None:
        """Open the file to be written past the cache, if its file system can do that."""
        try:
            self._direct = os.open(self.path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._may_pass_by = False


def _taken(added: Pieces, most: int) -> tuple[list[NDArray[np.uint8]], int]:
    """Take bytes out of what was added, up to so many, and return how many they are."""
    pieces, count = [], 0
    while added and count < most:
        piece = added.popleft()
        if len(piece) > most - count:
            added.appendleft(piece[most - count :])
            piece = piece[: most - count]
        pieces.append(piece)
        count += len(piece)
    return pieces, count
