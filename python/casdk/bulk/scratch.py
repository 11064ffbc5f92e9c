"""The local folder of a lock in a store: for files before they are uploaded, and for the tokens of the lock.

`ObjectStorage` makes a `Scratch` with each lock. The folder is locked by ``flock``, so it shows at once whether the
process that had a lock in the store, on this machine, has ended.
"""

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
"""Variables of the environment that decide which store a URL refers to."""
MOST_ATTEMPTS: Final = 3
"""Attempts to lock a folder that its former holder may be removing."""


class Scratch:
    """The local folder that belongs to one lock in a store; one process of this machine holds it at a time.

    A process notes the token of its lock here before it writes the token to the store. So if the lock in the store has
    a token that is noted here and no process holds the folder, the process has ended, and its lock can be taken at
    once.

    Args:
        url: URL of the target.
        lock: The name of the lock in it.

    Attributes:
        path: The folder.
        tokens: Tokens that were noted by processes that were killed.

    Raises:
        BulkError: Another process holds the folder, or it belongs to another user.
        OSError: The folder cannot be made.
    """

    def __init__(self, url: str, lock: str) -> None:
        self.path: Path = _path_of(url, lock)
        self._lock = _hold(self.path, url)
        self.tokens: frozenset[str] = _read_tokens(self.path)
        for path in self.path.iterdir():
            if path.name not in (LOCK, TOKENS):
                path.unlink()

    def note(self, token: str) -> None:
        """Add a token to those in the folder."""
        with open(self.path / TOKENS, "a") as file:
            file.write(f"{token}\n")

    def release(self, *, forget: bool) -> None:
        """Release the folder, and remove its files.

        Args:
            forget: Whether to remove the tokens, too, because no lock in the store has one of them any more.
        """
        for path in self.path.iterdir():
            if path.name != LOCK and (forget or path.name != TOKENS):
                path.unlink()
        self._lock.release()
        with contextlib.suppress(OSError):  # the tokens are still in it, or the next process has it
            self.path.rmdir()


def tokens_left(url: str, lock: str) -> frozenset[str]:
    """Return the tokens of a lock whose processes on this machine were killed.

    Raises:
        BulkError: A process on this machine still holds the lock.
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
    """Make a folder that only this user can access, and lock it.

    Raises:
        BulkError: Another process holds it, or it belongs to another user.
    """
    for attempt in range(MOST_ATTEMPTS):
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise BulkError(
                f"{path}, for files on their way to {url}, is somebody else's: set TMPDIR to another folder"
            )
        try:
            return Lock(path / LOCK, url)
        except FileNotFoundError:  # its former holder has removed it between the two steps
            if attempt == MOST_ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _read_tokens(path: Path) -> frozenset[str]:
    try:
        return frozenset((path / TOKENS).read_text().split())
    except FileNotFoundError:
        return frozenset()
