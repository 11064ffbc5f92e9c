"""The lock of a target in a store: an object that its holder renews, and that is void when it is no longer renewed.

`ObjectStorage` takes one for each process that writes. A thread of the lock renews it.
"""

from __future__ import annotations

import contextlib
import secrets
from threading import Event, Thread
from time import monotonic, sleep
from typing import Final

import msgspec

from casdk.bulk.objects import Objects, Version, is_same
from casdk.bulk.scratch import Scratch, tokens_left
from casdk.errors import BulkError

__all__ = ["StoreLock", "check_silent", "taken_over"]

RENEWED_SECONDS: Final = 5.0
"""Time between two renewals by the holder."""
SILENT_SECONDS: Final = 30.0
"""A lock that was not renewed for so long, by the clock of the waiting process, belongs to a process that has ended."""
LOOK_SECONDS: Final = 0.5
"""Time between two looks at a lock, while a process waits for it."""


class Holder(msgspec.Struct, frozen=True):
    """The content of the object. It identifies the process by a random token, without names and credentials.

    Attributes:
        token: The token of the process.
        renewed: How often the lock was renewed, so that each renewal is another version of the object.
    """

    token: str
    renewed: int = 0


class StoreLock:
    """The lock of the one process that writes a target.

    A lock object cannot stop a process that was suspended for longer than `SILENT_SECONDS` from writing afterwards. So
    a process that takes over a lock also rewrites the manifest: the suspended process then finds another version than
    it knows, and its writes are refused.

    Args:
        objects: The objects of the target.
        name: The name of the lock.
        scratch: The lock's folder on this machine, which has the tokens of processes that were killed here.

    Attributes:
        took_over: Whether the lock was taken over from a process that was killed.

    Raises:
        BulkError: Another process holds it.
        OSError: The store cannot be reached, or refuses.
    """

    def __init__(self, objects: Objects, name: str, scratch: Scratch) -> None:
        self.took_over: bool = False
        self._objects = objects
        self._name = name
        self._holder = Holder(secrets.token_hex(16))
        self._is_lost = False
        scratch.note(self._holder.token)
        self._version = self._acquire(scratch)
        self._ended = Event()
        self._thread = Thread(target=self._renew, name="casdk-lock", daemon=True)
        self._thread.start()

    def _acquire(self, scratch: Scratch) -> Version:
        replaced: Version | None = None
        while (version := self._put(replaced)) is None:
            found = self._objects.find(self._name)
            if found is None:
                replaced = None
                continue
            token = _token_in(found.data)
            if token == self._holder.token:  # the answer to the request was lost, and it was repeated
                return found.version
            if token not in scratch.tokens:
                _wait_until_silent(self._objects, {self._name: found.version})
            replaced, self.took_over = found.version, True
        return version

    def _put(self, replaced: Version | None) -> Version | None:
        return self._objects.put(self._name, msgspec.json.encode(self._holder), replaced)

    def _renew(self) -> None:
        """Renew the lock regularly, until it is released or another process has taken it over."""
        while not self._ended.wait(RENEWED_SECONDS):
            self._holder = msgspec.structs.replace(self._holder, renewed=self._holder.renewed + 1)
            with contextlib.suppress(OSError):  # if the store cannot be reached, the run fails when it writes next
                version = self._put(self._version)
                if version is None:
                    found = self._objects.find(self._name)
                    if found is None or _token_in(found.data) != self._holder.token:
                        self._is_lost = True
                        return
                    version = found.version
                self._version = version

    def check(self) -> None:
        """Check that no other process has taken the lock over.

        Raises:
            BulkError: Another process has taken it over.
        """
        if self._is_lost:
            raise taken_over(self._objects.url)

    def release(self) -> bool:
        """Release the lock, and return whether it was removed from the store."""
        self._ended.set()
        self._thread.join()
        try:
            found = self._objects.find(self._name)
            if found is not None and _token_in(found.data) == self._holder.token:
                self._objects.delete(self._name)
        except OSError:
            return False
        return True


def taken_over(target: str) -> BulkError:
    """Return the error for a process that has lost the lock of a target."""
    return BulkError(
        f"{target} is being written by another process, which has taken it over: this one was not heard of for "
        f"{SILENT_SECONDS:.0f} seconds, as if it had been killed"
    )


def check_silent(objects: Objects, names: list[str]) -> list[str]:
    """Check that no process holds one of several locks.

    Args:
        objects: The objects of the target.
        names: The names of the locks.

    Returns:
        The names of the locks that exist, all left by killed processes.

    Raises:
        BulkError: A process holds one of them.
    """
    there: list[str] = []
    waiting: dict[str, Version] = {}
    for name in names:
        left = tokens_left(objects.url, name)
        if (found := objects.find(name)) is not None:
            there.append(name)
            if _token_in(found.data) not in left:
                waiting[name] = found.version
    if waiting:
        _wait_until_silent(objects, waiting)
    return there


def _wait_until_silent(objects: Objects, versions: dict[str, Version]) -> None:
    """Wait until it is certain that no process renews these locks.

    Raises:
        BulkError: A process renews one.
    """
    until = monotonic() + SILENT_SECONDS
    while True:
        is_over = monotonic() >= until
        for name, version in versions.items():
            now = objects.head(name)
            if now is not None and not is_same(now[1], version):
                raise BulkError(f"{objects.url} is being written by another process, or by another call of this one")
        if is_over:
            return
        sleep(LOOK_SECONDS)


def _token_in(data: bytes) -> str:
    """Return the token in the content of a lock; ``""`` if it is no lock."""
    try:
        return msgspec.json.decode(data, type=Holder).token
    except msgspec.MsgspecError:
        return ""
