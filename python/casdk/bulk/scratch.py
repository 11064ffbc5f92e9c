"""Folders on this machine for files on their way into a store, and what tells that whoever had one has ended."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from casdk.bulk.disk import Lock
from casdk.errors import BulkError

__all__ = ["Scratch", "tokens_left"]

TOKENS: Final = "_tokens"
LOCK: Final = "_lock"
ENDPOINTS: Final = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AZURE_STORAGE_ACCOUNT_NAME")
"""Variables of the environment that make the same URL another place."""
ATTEMPTS: Final = 3
"""To make a folder that the process which had it is about to remove."""


class Scratch:
    """A folder of one lock in a store, held by one process of this machine; the system takes it back from a dead one.

    The tokens of the lock are noted in it before they are in the store. So if the lock there has one that is noted
    here, and nobody holds the folder, the process that had both has ended, and nobody has to wait for that to show.

    Args:
        url: Of the target.
        lock: The name of the lock in it.

    Attributes:
        path: The folder.
        tokens: What processes have noted that were killed.

    Raises:
        BulkError: Another process holds it; or it is somebody else's.
        OSError: It cannot be made.
    """

    def __init__(self, url: str, lock: str) -> None:
        self.path: Path = _path_of(url, lock)
        self._lock = _hold(self.path, url)
        self.tokens: frozenset[str] = _read_tokens(self.path)
        for path in self.path.iterdir():
            if path.name not in (LOCK, TOKENS):
                path.unlink()

    def note(self, token: str) -> None:
        """Note a token, beside those that there are."""
        with open(self.path / TOKENS, "a") as file:
            file.write(f"{token}\n")

    def release(self, *, forget: bool) -> None:
        """Give it back.

        Args:
            forget: Whether no lock in the store has one of the tokens any more.
        """
        for path in self.path.iterdir():
            if path.name != LOCK and (forget or path.name != TOKENS):
                path.unlink()
        self._lock.release()
        with contextlib.suppress(OSError):  # the tokens are still in it, or the next process has it
            self.path.rmdir()


def tokens_left(url: str, lock: str) -> frozenset[str]:
    """Return what processes of this machine have noted that were killed with a lock.

    Raises:
        BulkError: One of them is still there.
    """
    path = _path_of(url, lock)
    if not path.is_dir():
        return frozenset()
    held = _hold(path, url)
    tokens = _read_tokens(path)
    held.release()
    return tokens


def _path_of(url: str, lock: str) -> Path:
    place = "\n".join([url, lock, *(os.environ.get(name, "") for name in ENDPOINTS)])
    digest = hashlib.blake2b(place.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"casdk-{os.getuid()}-{digest}"


def _hold(path: Path, url: str) -> Lock:
    """Make a folder that only this user may look into, and lock it.

    Raises:
        BulkError: Another process holds it; or it is somebody else's.
    """
    for attempt in range(ATTEMPTS):
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise BulkError(
                f"{path}, for files on their way to {url}, is somebody else's: set TMPDIR to another folder"
            )
        try:
            return Lock(path / LOCK, url)
        except FileNotFoundError:  # who had it has removed it between the two steps
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _read_tokens(path: Path) -> frozenset[str]:
    try:
        return frozenset((path / TOKENS).read_text().split())
    except FileNotFoundError:
        return frozenset()
