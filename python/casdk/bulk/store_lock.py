"""The lock of a target in a store: an object that its holder renews, and that counts no more once nobody does."""

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
"""Between two times that the holder renews its lock."""
SILENT_SECONDS: Final = 30.0
"""A lock that was not renewed for so long, on the clock of who waits, is one of a process that has ended."""
LOOK_SECONDS: Final = 0.5
"""Between two looks at a lock that somebody waits for."""


class Holder(msgspec.Struct, frozen=True):
    """What is in the object: nothing that tells where the process runs, or what it may do.

    Attributes:
        token: Of the process.
        renewed: How often it has renewed the lock, so that each time is another version of the object.
    """

    token: str
    renewed: int = 0


class StoreLock:
    """Held by the one process that writes a target; of one that was killed, nobody renews it.

    Nobody can be kept from writing by an object, also not a process that was suspended for longer than it may be
    silent. So whoever takes over sees to it that such a one finds another version of the manifest than it knows.

    Args:
        objects: Of the target.
        name: The lock's.
        scratch: Its folder on this machine.

    Attributes:
        took_over: Whether a process had it that was killed.

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
        """Renew it now and then, until it is given back or somebody else has it."""
        while not self._ended.wait(RENEWED_SECONDS):
            self._holder = msgspec.structs.replace(self._holder, renewed=self._holder.renewed + 1)
            with contextlib.suppress(OSError):  # a store that is away stops the run as soon as that writes
                version = self._put(self._version)
                if version is None:
                    found = self._objects.find(self._name)
                    if found is None or _token_in(found.data) != self._holder.token:
                        self._is_lost = True
                        return
                    version = found.version
                self._version = version

    def check(self) -> None:
        """Check that no other process has taken it over.

        Raises:
            BulkError: One has.
        """
        if self._is_lost:
            raise taken_over(self._objects.url)

    def release(self) -> bool:
        """Give it back; returns whether it is gone from the store."""
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
    """Return the error of a process that had the lock of a target and has it no more."""
    return BulkError(
        f"{target} is being written by another process, which has taken it over: this one was not heard of for "
        f"{SILENT_SECONDS:.0f} seconds, as if it had been killed"
    )


def check_silent(objects: Objects, names: list[str]) -> list[str]:
    """Check that no process holds one of several locks.

    Args:
        objects: Of the target.
        names: The locks'.

    Returns:
        Those that are there, and that processes have left which were killed.

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
    """Wait until it is known that nobody renews certain locks.

    Raises:
        BulkError: Somebody does.
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
    """Return whose lock it is; ``""`` if it is none."""
    try:
        return msgspec.json.decode(data, type=Holder).token
    except msgspec.MsgspecError:
        return ""
