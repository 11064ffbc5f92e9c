"""A file while it is being written, as ``NAME.part``: it becomes NAME when it is whole, and stays if the run stops."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Final

from casdk.errors import ConfigError

__all__ = ["PartFile"]

UNSUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL})


class PartFile:
    """A file under way. What an earlier run left under its name is kept until there is something to write.

    Args:
        target: The name it gets when it is whole.
        path: The name it has until then.

    Attributes:
        size: Bytes written.
        closed: Whether it is closed.

    Raises:
        ConfigError: Another process is writing it.
        OSError: It cannot be written, with its name.
    """

    def __init__(self, target: Path, path: Path) -> None:
        self.path = path
        self.size: int = 0
        self.closed: bool = False
        self._target = target
        self._begun = False
        while True:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(self._descriptor), os.stat(path)):
                    return
            except FileNotFoundError:
                pass
            except BlockingIOError:
                self.close()
                raise ConfigError(f"{path} is being written by another process") from None
            # Another process was done with it between the two steps: this file has its final name now.
            os.close(self._descriptor)

    def write(self, data: bytes | memoryview) -> int:
        """Add bytes to the end: all of them, or none.

        Returns:
            How many there were.

        Raises:
            OSError: There is no room for them; the error has the file's name.
        """
        view = memoryview(data).cast("B")
        written = 0
        try:
            if not self._begun:
                os.ftruncate(self._descriptor, 0)
                self._begun = True
            while written < len(view):
                written += os.pwrite(self._descriptor, view[written:], self.size + written)
        except OSError as error:
            self.cut(self.size)
            raise self._named(error) from None
        self.size += written
        return written

    def reserve(self, size: int) -> None:
        """Make sure of room for so many more bytes, where the file system can promise that.

        Raises:
            OSError: There is none; the error has the file's name.
        """
        try:
            os.posix_fallocate(self._descriptor, self.size, size)
        except AttributeError:  # macOS
            return
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                self.cut(self.size)
                raise self._named(error) from None

    def cut(self, size: int) -> None:
        """Drop what comes after so many bytes."""
        os.ftruncate(self._descriptor, size)
        self.size = size

    def tell(self) -> int:
        """Return where the next byte goes, as file objects do."""
        return self.size

    def flush(self) -> None:
        """Do nothing: no byte waits in here."""

    def finish(self) -> None:
        """Let it take its name: it is whole.

        Raises:
            OSError: It cannot; the error has the file's name.
        """
        if not self._begun:
            self.write(b"")
        os.ftruncate(self._descriptor, self.size)
        os.replace(self.path, self._target)
        self.close()

    def leave(self) -> None:
        """Let it stay as it is, if there is something in it."""
        if self._begun:
            os.ftruncate(self._descriptor, self.size)
        if os.fstat(self._descriptor).st_size == 0:
            with contextlib.suppress(OSError):
                self.path.unlink()
        self.close()

    def close(self) -> None:
        """Let go of it."""
        if not self.closed:
            self.closed = True
            os.close(self._descriptor)

    def _named(self, error: OSError) -> OSError:
        return OSError(error.errno, error.strerror, str(self.path))
