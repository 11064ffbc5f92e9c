"""Reads and writes the objects of an `ObjectStorage` below a URL, each write under a condition (obstore)."""

from __future__ import annotations

import contextlib
from typing import Any, Final, NamedTuple, TypeAlias

from casdk.bulk.stores import asking, open_store

__all__ = ["Objects", "Read", "Version", "is_same"]

PUT_SECONDS: Final = 600
"""Time limit of a request that uploads a file of a shard, which may have hundreds of MB."""

Version: TypeAlias = "dict[str, str]"
"""What identifies a version of an object: an ETag, a number or both, depending on the store."""


class Read(NamedTuple):
    """The bytes of an object, and the version that was read."""

    data: bytes
    version: Version


class Objects:
    """Objects of a store, each by its name below a URL.

    All methods raise an ``OSError`` with the object's URL if the store cannot be reached, or refuses.

    Args:
        url: What all of their URLs begin with; no slash is at its end.

    Raises:
        ConfigError: obstore is not installed, or what it finds in the environment does not fit together.
    """

    def __init__(self, url: str) -> None:
        self.url: str = url
        self._store, self._prefix = open_store(url, PUT_SECONDS)

    def where(self, name: str) -> str:
        """Return the URL of an object."""
        return f"{self.url}/{name}"

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def sizes(self) -> dict[str, int]:
        """Return the names of all objects in order, and the bytes of each."""
        prefix = self._key("")
        with asking(self.url):
            listed = [each for some in self._store.list(self._prefix or None, chunk_size=1000) for each in some]
        # An object that is called as the prefix, which consoles make of a folder, is none of them.
        found = {each["path"].removeprefix(prefix): each["size"] for each in listed if each["path"].startswith(prefix)}
        return dict(sorted(found.items()))

    def find(self, name: str) -> Read | None:
        """Return an object; ``None`` if there is none."""
        try:
            with asking(self.where(name)):
                found = self._store.get(self._key(name))
                return Read(bytes(found.bytes()), _version_of(found.meta))
        except FileNotFoundError:
            return None

    def head(self, name: str) -> tuple[int, Version] | None:
        """Return the bytes and the version of an object; ``None`` if there is none."""
        try:
            with asking(self.where(name)):
                found = self._store.head(self._key(name))
        except FileNotFoundError:
            return None
        return found["size"], _version_of(found)

    def put(self, name: str, data: Any, replaced: Version | None) -> Version | None:
        """Write an object by one request, if a condition holds.

        Args:
            name: Its name.
            data: Its bytes, as an object with a buffer.
            replaced: The version that it must replace; ``None`` if there must be no object of this name.

        Returns:
            The new version; ``None`` if the condition did not hold and nothing was written. If the answer to a
            successful request is lost, obstore repeats the request, which then also returns ``None``.
        """
        from obstore.exceptions import AlreadyExistsError, NotFoundError, PreconditionError

        mode: Any = "create" if replaced is None else replaced
        with asking(self.where(name)):
            try:
                return _version_of(self._store.put(self._key(name), data, mode=mode, use_multipart=False))
            except (AlreadyExistsError, PreconditionError):
                return None
            except (FileNotFoundError, NotFoundError):
                if replaced is None:  # it is the bucket that is not there
                    raise
                return None

    def copy(self, old: str, new: str) -> None:
        """Copy an object to another name."""
        with asking(self.where(old)):
            self._store.copy(self._key(old), self._key(new))

    def delete(self, *names: str) -> None:
        """Delete the objects that exist."""
        for name in names:
            with contextlib.suppress(FileNotFoundError), asking(self.where(name)):
                self._store.delete(self._key(name))


def is_same(one: Version, other: Version) -> bool:
    """Whether two answers of a store are about the same version: by its number, if it has one, and else by the ETag."""
    known_by = next((name for name in ("version", "e_tag") if name in one and name in other), None)
    return known_by is not None and one[known_by] == other[known_by]


def _version_of(said: Any) -> Version:
    return {name: said[name] for name in ("e_tag", "version") if said[name] is not None}
