"""The file ``NAME.part``, which gets its NAME when it is complete, and stays as it is if the command stops before."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from casdk.errors import ConfigError

if TYPE_CHECKING:
    from casdk.bulk.disk import Part

__all__ = ["PartFile"]

UNSUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL})


class PartFile:
    """A file that is being written. A part that an earlier command left is only replaced by the first write.

    Args:
        target: The name that it gets when it is complete.
        path: The name that it has until then.

    Attributes:
        path: The name that it has while it is written.
        closed: Whether it is closed.

    Raises:
        ConfigError: Another process is writing it.
        OSError: It cannot be written; the error has the file's name.
    """

    def __init__(self, target: Path, path: Path) -> None:
        from casdk.bulk.disk import open_locked  # which imports asyncio, so only commands that write files import it

        self.path = path
        self._target = target
        self._part: Part | None = None
        try:
            self._descriptor = open_locked(path, fcntl.LOCK_EX)
        except BlockingIOError:
            raise ConfigError(f"{path} is being written by another process") from None
        self.closed: bool = False

    @property
    def size(self) -> int:
        """Bytes written."""
        return 0 if self._part is None else self._part.size

    def _begun(self) -> Part:
        """Return the opened file; the first call empties it."""
        if self._part is None:
            from casdk.bulk.disk import Part

            self._part = Part(self.path)
        return self._part

    def write(self, data: bytes | memoryview) -> int:
        """Add bytes to the end, as `Part.write` does."""
        return self._begun().write(data)

    def reserve(self, size: int) -> None:
        """Reserve room for so many more bytes, if the file system can do that.

        Raises:
            OSError: There is no room; the error has the file's name.
        """
        try:
            os.posix_fallocate(self._descriptor, self.size, size)
        except AttributeError:  # macOS
            return
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                self.cut(self.size)
                raise OSError(error.errno, error.strerror, str(self.path)) from None

    def cut(self, size: int) -> None:
        """Remove everything behind the first ``size`` bytes."""
        self._begun().cut(size)

    def tell(self) -> int:
        """Return the position of the next byte, as file objects do."""
        return self.size

    def flush(self) -> None:
        """Do nothing, since this object has no buffer."""

    def finish(self) -> None:
        """Close the complete file and rename it to its target.

        Raises:
            OSError: It cannot be renamed; the error has the file's name.
        """
        self.cut(self.size)
        os.replace(self.path, self._target)
        self.close()

    def leave(self) -> None:
        """Close the file and leave it as it is; an empty file is removed."""
        if self._part is not None:
            self.cut(self.size)
        if os.fstat(self._descriptor).st_size == 0:
            with contextlib.suppress(OSError):
                self.path.unlink()
        self.close()

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self.closed = True
            if self._part is not None:
                self._part.close()
            os.close(self._descriptor)
