"""Files of many bytes: a thread writes them past the system's cache, while what comes next is received.

Through its cache, the system takes a new page of memory for each 4 KiB that a program writes, copies the bytes there
and writes them to the disk later. All of that is CPU time of the writing process. Past the cache, the disk reads the
bytes from the program's own memory, and the cache keeps what other programs read.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from casdk._rust import copy_and_sum
from casdk.bulk.disk import Part

__all__ = ["CHUNK_BYTES", "LargePart"]

CHUNK_BYTES: Final = 4 << 20
"""Bytes that are written at a time."""
MOST_WAITING: Final = 4
"""Chunks that may wait for the thread, so that a disk that is busy for a moment does not hold up the run."""
BLOCK_BYTES: Final = 4096
"""Without the cache, the system writes only if offset, size and address in memory are multiples of this."""


class _Chunk:
    """Memory for the next bytes of a file.

    Attributes:
        bytes: ``[CHUNK_BYTES]``; its address is a multiple of `BLOCK_BYTES`.
        start: Where its first byte belongs in the file, a multiple of `BLOCK_BYTES`.
        filled: How many bytes it has.
    """

    __slots__ = ("bytes", "filled", "start")

    def __init__(self) -> None:
        # Memory that the allocator has used before is used again, so the next file costs no page faults.
        memory = np.empty(CHUNK_BYTES + BLOCK_BYTES, np.uint8)
        first = -memory.ctypes.data % BLOCK_BYTES
        self.bytes: NDArray[np.uint8] = memory[first : first + CHUNK_BYTES]
        self.start = 0
        self.filled = 0

    def keep_last_block(self) -> None:
        """Keep only what was written of the last block, if that is not full: it is written again with what follows."""
        rest = self.filled % BLOCK_BYTES
        self.start += self.filled - rest
        self.bytes[:rest] = self.bytes[self.filled - rest : self.filled]
        self.filled = rest


class LargePart(Part):
    """A part that a thread writes in chunks, while the bytes of the next chunk are added.

    There are three sizes. A *piece* is what one call of `write` adds, of any size; it is copied at once, while the
    processor still has it in its cache. A *chunk* is the memory that pieces are copied to; the thread writes it when
    its 4 MiB are full, and it is filled again afterwards. A *block* is the unit of 4 KiB in which the system can write
    past its cache. Full chunks are whole blocks. What is left at the end is written by `sync`: its whole blocks past
    the cache, and the beginning of the last block through it.

    After `sync` all bytes are on disk. The checksum counts pieces when they are added. An error of the thread is raised
    by every later step that waits for it.

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
        self._writing: deque[tuple[Future[None], _Chunk]] = deque()
        self._written: list[_Chunk] = []
        self._chunk = _Chunk()
        self._begin_chunk()

    def _begin_chunk(self) -> None:
        """Begin a chunk at the end of the file, with what the last block has already."""
        chunk = self._chunk
        chunk.filled = self.size % BLOCK_BYTES
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

    def _hand_over_chunk(self) -> None:
        """Have the thread write the chunk, which is full, and go on with another one."""
        full = self._chunk
        self._wait(MOST_WAITING - 1)
        self._writing.append((self._thread.submit(self._put_full, full), full))
        self._chunk = self._written.pop() if self._written else _Chunk()
        self._chunk.start, self._chunk.filled = full.start + CHUNK_BYTES, 0

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
        self._put_chunk(self._chunk)
        self._chunk.keep_last_block()
        super().sync()

    def close(self) -> None:
        """Close the file; what was added since the last `sync` may be lost."""
        if not self.closed:
            self._thread.shutdown()
            if self._direct is not None:
                os.close(self._direct)
        super().close()

    def _wait(self, most: int = 0) -> None:
        """Wait until no more than so many chunks wait for the thread, and raise what it could not write."""
        while self._writing and (len(self._writing) > most or self._writing[0][0].done()):
            future, chunk = self._writing[0]
            future.result()
            self._writing.popleft()
            self._written.append(chunk)

    # what the thread does

    def _put_full(self, chunk: _Chunk) -> None:
        """Write a full chunk."""
        if self._direct is None and self._may_pass_by:
            self._open_direct()
        self._put_chunk(chunk)

    def _put_chunk(self, chunk: _Chunk) -> None:
        """Write what a chunk has been filled with."""
        view = chunk.bytes[: chunk.filled].data
        done = self._put_past_cache(view, chunk.start)
        self._put(view[done:], chunk.start + done)

    def _put_past_cache(self, view: memoryview, start: int) -> int:
        """Write the whole blocks of some bytes past the cache.

        Returns:
            How many bytes these have; 0 if the file system cannot do that.
        """
        done, end = 0, len(view) - len(view) % BLOCK_BYTES
        try:
            while self._direct is not None and done < end:
                done += os.pwrite(self._direct, view[done:end], start + done)
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
