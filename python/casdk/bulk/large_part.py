"""Files of many bytes: a thread writes them past the system's cache, while what comes next is received.

Through its cache, the system takes a new page of memory for each 4 KiB that a program writes, copies the bytes there
and writes them to the disk later. All of that is CPU time of the writing process. Past the cache, the disk reads the
bytes from the program's own memory, and the cache keeps what other programs read.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from casdk._rust import copy_and_sum, sum_words
from casdk.bulk.disk import PAGE_BYTES, Checksum, Part, page_memory
from casdk.bulk.row_blocks import RowBlock

__all__ = ["CHUNK_BYTES", "LargePart"]

CHUNK_BYTES: Final = 4 << 20
"""Bytes that are written at a time."""
WAITING_BYTES: Final = 16 << 20
"""Bytes that may wait for the thread, so that a disk that is busy for a moment does not hold up the run."""


class _Chunk:
    """Memory for the next bytes of a file.

    Attributes:
        bytes: ``[CHUNK_BYTES]``; its address is a multiple of `PAGE_BYTES`.
        start: Where its first byte belongs in the file, a multiple of `PAGE_BYTES`.
        filled: How many bytes it has.
    """

    __slots__ = ("bytes", "filled", "start")

    def __init__(self) -> None:
        self.bytes: NDArray[np.uint8] = page_memory(CHUNK_BYTES)
        self.start = 0
        self.filled = 0

    def begin_with(self, start: int, data: NDArray[np.uint8]) -> None:
        """Have nothing but these bytes, the first of which is at the beginning of a page of the file."""
        self.start, self.filled = start, len(data)
        self.bytes[: len(data)] = data


class _Task(NamedTuple):
    """Bytes that the thread was given to write.

    Attributes:
        done: Done when they are written; its result is the sum of those that the checksum does not have yet.
        size: How many bytes there are.
        checksum: The checksum that the sum is added to.
        release: Called afterwards, when their memory may be used again.
    """

    done: Future[int]
    size: int
    checksum: Checksum | None
    release: Callable[[], object]


class LargePart(Part):
    """A part that a thread writes in large steps, while more bytes are added.

    What `write` adds is copied at once into a *chunk*, memory of 4 MiB; the thread writes a chunk when it is full, and
    it is filled again afterwards. Rows are not copied: `write_rows` has the thread write the memory that they lie in.
    Past its cache, the system writes only whole *pages* of 4 KiB, so a chunk or the rows are written up to their last
    whole page. The bytes that are left come first in the next chunk or block of rows, or are written by `sync`, through
    the cache.

    After `sync` all bytes are on disk, and the checksum has all of them: those of `write` at once, and those of rows as
    soon as they are written. An error of the thread is raised by every later step that waits for it.

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
        self._writing: deque[_Task] = deque()
        self._unused: list[_Chunk] = []
        self._chunk = _Chunk()
        self._begin_chunk()

    def _begin_chunk(self) -> None:
        """Begin a chunk at the end of the file, with what the last page has already."""
        chunk = self._chunk
        chunk.filled = self.size % PAGE_BYTES
        chunk.start = self.size - chunk.filled
        if chunk.filled:
            there = os.pread(self._descriptor, chunk.filled, chunk.start)
            chunk.bytes[: chunk.filled] = np.frombuffer(there, np.uint8)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Add bytes to the end.

        Returns:
            How many there were.

        Raises:
            OSError: There is no room for what was added before; the error has the file's name.
        """
        piece, done = np.frombuffer(data, np.uint8), 0
        while done < len(piece):
            chunk, checksum = self._chunk, self.checksum
            part = piece[done : done + CHUNK_BYTES - chunk.filled]
            total = copy_and_sum(chunk.bytes, chunk.filled, part, 0 if checksum is None else checksum.count)
            if checksum is not None:
                checksum.note(total, len(part))
            chunk.filled += len(part)
            done += len(part)
            if chunk.filled == CHUNK_BYTES:
                self._hand_over_chunk()
        self.size += len(piece)
        return len(piece)

    def write_rows(self, block: RowBlock) -> None:
        """Add the rows of a block to the end; its memory is used for other rows once they are written."""
        self._hand_over_chunk()
        chunk, data, checksum = self._chunk, block.bytes, self.checksum
        assert chunk.filled == block.lead
        data[: block.lead] = chunk.bytes[: chunk.filled]
        whole, size = len(data) - len(data) % PAGE_BYTES, len(data) - block.lead
        before = 0 if checksum is None else checksum.count
        write = partial(self._put_rows, data, whole, chunk.start, block.lead, before)
        self._hand_over(write, len(data), block.release)
        if checksum is not None:
            checksum.note(0, size)
        chunk.begin_with(chunk.start + whole, data[whole:])
        self.size += size

    def _hand_over_chunk(self) -> None:
        """Have the thread write the whole pages of the chunk, and go on with another one."""
        chunk = self._chunk
        rest = chunk.bytes[chunk.filled - chunk.filled % PAGE_BYTES : chunk.filled]
        chunk.filled -= len(rest)
        if chunk.filled:
            self._hand_over(partial(self._put_full, chunk), chunk.filled, partial(self._unused.append, chunk))
            self._chunk = self._unused.pop() if self._unused else _Chunk()
        self._chunk.begin_with(chunk.start + chunk.filled, rest)

    def _hand_over(self, write: Callable[[], int], size: int, release: Callable[[], object]) -> None:
        """Have the thread write some bytes, when not too many wait for it."""
        self._wait(WAITING_BYTES - size)
        self._writing.append(_Task(self._thread.submit(write), size, self.checksum, release))

    def overwrite(self, data: bytes) -> None:
        """Put bytes in place of the first ones; they are on disk after the next `sync`."""
        if self._chunk.start:
            self._wait()
            super().overwrite(data)
        else:
            self._chunk.bytes[: len(data)] = np.frombuffer(data, np.uint8)

    def cut(self, size: int) -> None:
        """Drop what comes after so many bytes."""
        self.sync()
        super().cut(size)
        self._begin_chunk()

    def sync(self) -> None:
        """Have all of it on disk."""
        self._wait()
        chunk = self._chunk
        self._put_chunk(chunk)
        whole = chunk.filled - chunk.filled % PAGE_BYTES
        chunk.begin_with(chunk.start + whole, chunk.bytes[whole : chunk.filled])
        super().sync()

    def close(self) -> None:
        """Close the file; what was added since the last `sync` may be lost."""
        if not self.closed:
            self._thread.shutdown()
            if self._direct is not None:
                os.close(self._direct)
        super().close()

    def _wait(self, most: int = 0) -> None:
        """Wait until no more than so many bytes wait for the thread, and raise what it could not write."""
        waiting = sum(task.size for task in self._writing)
        while self._writing and (waiting > most or self._writing[0].done.done()):
            task = self._writing[0]
            total = task.done.result()
            if task.checksum is not None:
                task.checksum.note(total, 0)
            task.release()
            waiting -= task.size
            self._writing.popleft()

    # what the thread does

    def _put_full(self, chunk: _Chunk) -> int:
        """Write a full chunk, whose sum was counted when it was filled."""
        self._open_direct()
        self._put_chunk(chunk)
        return 0

    def _put_rows(self, data: NDArray[np.uint8], whole: int, start: int, lead: int, before: int) -> int:
        """Write the whole pages of a block of rows; returns the sum of all its rows."""
        self._open_direct()
        view = data[:whole].data
        done = self._put_past_cache(view, start)
        self._put(view[done:], start + done)
        return sum_words(data[lead:], before)

    def _put_chunk(self, chunk: _Chunk) -> None:
        """Write what a chunk has been filled with."""
        view = chunk.bytes[: chunk.filled].data
        done = self._put_past_cache(view, chunk.start)
        self._put(view[done:], chunk.start + done)

    def _put_past_cache(self, view: memoryview, start: int) -> int:
        """Write the whole pages of some bytes past the cache.

        Returns:
            How many bytes these have; 0 if the file system cannot do that.
        """
        done, end = 0, len(view) - len(view) % PAGE_BYTES
        try:
            while self._direct is not None and done < end:
                done += os.pwrite(self._direct, view[done:end], start + done)
        except OSError as error:
            if error.errno != errno.EINVAL:  # the error of a disk whose blocks are larger than a page
                raise self._named(error) from None
        return done - done % PAGE_BYTES

    def _open_direct(self) -> None:
        """Open the file to be written past the cache, if its file system can do that and it is not open."""
        if self._direct is not None or not self._may_pass_by:
            return
        try:
            self._direct = os.open(self.path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._may_pass_by = False
