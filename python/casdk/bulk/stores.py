"""Finds and reads objects in a store (S3, Google Cloud Storage, Azure) or on a web server, through obstore."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import lru_cache
from glob import has_magic
from itertools import chain
from typing import IO, Any, Final, NamedTuple
from urllib.parse import unquote

from casdk._columns import Unreadable
from casdk.errors import ConfigError, InputValueError
from casdk.models import Image

__all__ = [
    "BLOCK_BYTES",
    "Found",
    "StoredImage",
    "asking",
    "at_hand",
    "downloaded",
    "find_objects",
    "is_url",
    "open_object",
    "open_store",
]

URL: Final = re.compile(r"(s3|gs|az|https?)://([^/]+)(?:/+(.*))?", re.DOTALL)
WEB: Final = ("http", "https")
BLOCK_BYTES: Final = 8 << 20
"""Bytes that one request asks for, if an object is read from beginning to end."""
ENVIRONMENT: Final = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}
"""The prefix of each store's environment variables."""
CLIENT_OPTIONS: Final = (
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "timeout",
    "user_agent",
)
"""Options of requests that obstore also reads from the environment, for example from ``AWS_PROXY_URL``."""
AT_ONCE: Final = 64
"""Images that are downloaded at the same time; the next ones are downloaded while these are being encoded."""


class Found(NamedTuple):
    """An object or a file that matches a pattern.

    Attributes:
        path: Its URL, or its path.
        state: The object's version, if the listing of its store contains it; ``""`` if it has to be requested.
    """

    path: str
    state: str = ""


class Address(NamedTuple):
    """The parts of a URL.

    Attributes:
        scheme: ``s3``, ``gs``, ``az``, ``http`` or ``https``.
        root: The URL of the bucket or of the web server.
        key: The name of the object in it.
    """

    scheme: str
    root: str
    key: str


def is_url(path: object) -> bool:
    """Whether a path is a URL of a store or of a web server."""
    return isinstance(path, str) and URL.fullmatch(path) is not None


def open_store(url: str, request_seconds: int | None = None) -> tuple[Any, str]:
    """Return obstore's store for a URL and the key of the object in it; a process has one store per bucket.

    Args:
        url: The URL.
        request_seconds: The time limit of a request; ``None`` for obstore's default, 30 seconds.

    Raises:
        ConfigError: obstore is not installed, or cannot use the settings in the environment; or the URL contains
            credentials.
    """
    address = _address(url)
    if address.scheme not in WEB and "@" in address.root:
        raise ConfigError(
            f"{address.scheme}://: a URL names a bucket, and no credentials, which are for the environment to say"
        )
    # The URL of a web server contains escapes, which obstore adds itself. The key of an object in a store has none.
    return _store_of(address.root, request_seconds), unquote(address.key) if address.scheme in WEB else address.key


def _address(url: str) -> Address:
    found = URL.fullmatch(url)
    assert found is not None
    return Address(found[1], f"{found[1]}://{found[2]}", found[3] or "")


@lru_cache(maxsize=256)
def _store_of(root: str, request_seconds: int | None) -> Any:
    try:
        from obstore.exceptions import BaseError
        from obstore.store import HTTPStore, from_url
    except ImportError as error:
        raise ConfigError(f'{root} needs obstore: pip install "casdk[stores]"') from error
    try:
        if root.startswith(WEB):
            return HTTPStore.from_url(root, client_options={"allow_http": root.startswith("http:")})
        options: Any = None if request_seconds is None else _client_options(root, request_seconds)
        return from_url(root, client_options=options)
    except (BaseError, ValueError) as error:
        raise ConfigError(f"{root} cannot be used with what the environment says: {_first_line(error)}") from error


def _client_options(root: str, request_seconds: int) -> dict[str, Any]:
    """Return the time limit together with the options in the environment, which obstore ignores if any are passed."""
    prefix = ENVIRONMENT[root.partition(":")[0]]
    said = {name: os.environ.get(f"{prefix}_{name.upper()}") for name in CLIENT_OPTIONS}
    options: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    return {"timeout": f"{request_seconds} seconds", **options}


def _first_line(error: BaseException) -> str:
    """Return the first line of obstore's error; the lines below it describe the error as a value of Rust."""
    return str(error).strip().partition("\n")[0]


@contextmanager
def asking(url: str) -> Iterator[None]:
    """Convert the errors of obstore within a block to those of files; each has the object's URL.

    Raises:
        FileNotFoundError: There is no such object.
        PermissionError: The store does not allow the request.
        OSError: The store cannot be reached, or answers with another error.
    """
    from obstore import exceptions

    try:
        yield
    except (FileNotFoundError, exceptions.NotFoundError) as error:
        raise FileNotFoundError(errno.ENOENT, "there is no such object", url) from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise PermissionError(errno.EACCES, _first_line(error), url) from error
    except exceptions.PreconditionError as error:
        raise OSError(errno.ESTALE, "it was changed while it was read", url) from error
    except exceptions.BaseError as error:
        raise OSError(errno.EIO, _first_line(error), url) from error


# finding


def find_objects(pattern: str) -> list[Found]:
    """Return the objects that match a URL, sorted by name.

    ``*`` and ``?`` match within one part of a name, between two slashes, and ``**`` matches any number of parts.

    Raises:
        InputValueError: It is the URL of a web server with a pattern or a query; web servers have no list of files.
        OSError: The store cannot be reached, or answers with an error.
    """
    address = _address(pattern)
    store, key = open_store(pattern)
    if address.scheme in WEB and has_magic(address.key):
        raise InputValueError(f"{pattern}: a web server has no list of its files, and a query is not for files")
    if address.scheme in WEB or not has_magic(key):
        return [Found(pattern, state)] if (state := _state_of(pattern, store, key)) is not None else []
    parts = key.split("/")
    fixed = next(place for place, part in enumerate(parts) if has_magic(part))
    with asking(pattern):
        listed = store.list("/".join(parts[:fixed]) or None, chunk_size=1000)
        fitting = (each for some in listed for each in some if _fits(each["path"].split("/"), parts))
        return sorted(Found(f"{address.root}/{each['path']}", _state(each)) for each in fitting)


def _fits(names: list[str], patterns: list[str]) -> bool:
    """Whether the parts of a key match those of a pattern."""
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(_fits(names[start:], patterns[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], patterns[0]) and _fits(names[1:], patterns[1:])


def _state_of(url: str, store: Any, key: str) -> str | None:
    """Return the fingerprint of an object; ``None`` if there is no such object."""
    try:
        with asking(url):
            return _state(store.head(key))
    except FileNotFoundError:
        return None


def _state(meta: Any) -> str:
    return f"{meta['size']} {meta['e_tag'] or meta['last_modified'].isoformat()}"


# reading


def open_object(url: str, block_bytes: int | None = None) -> IO[bytes]:
    """Return a file object that reads an object of a store.

    Args:
        url: The URL of the object.
        block_bytes: Bytes that one request asks for; ``None`` to request as many as each call of ``read`` does.

    Raises:
        OSError: The object does not exist, or cannot be read.
    """
    opened: Any = ObjectFile(url)
    return opened if block_bytes is None else io.BufferedReader(opened, block_bytes)


class ObjectFile(io.RawIOBase):
    """A file object that reads ranges of an object, all from the version that was there when it was opened.

    Args:
        url: The URL of the object.

    Raises:
        OSError: The object does not exist, or cannot be read.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self.name = url
        self._store, self._key = open_store(url)
        with asking(url):
            meta = self._store.head(self._key)
        self._size: int = meta["size"]
        tag = meta["e_tag"]
        # Two versions with different bytes may have the same weak ETag, so servers refuse it in a condition.
        self._version = {} if tag is None or tag.startswith("W/") else {"if_match": tag}
        self._place = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position of the next byte, and return it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = start + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, or read up to the end of the object, and return the number of bytes."""
        view = memoryview(buffer).cast("B")
        stop = min(self._place + len(view), self._size)
        if stop <= self._place:
            return 0
        with asking(self.name):
            options = {"range": (self._place, stop), **self._version}
            data = memoryview(self._store.get(self._key, options=options).bytes())
        view[: len(data)] = data
        self._place += len(data)
        return len(data)


class StoredImage:
    """An image in a store, which is downloaded when it is about to be encoded and not when it is compared.

    Args:
        url: The URL of the image.
    """

    def __init__(self, url: str) -> None:
        self.url: Final = url

    def read(self) -> Any:
        """Download the image.

        Returns:
            An `Image`; or an ``Unreadable`` if the image does not exist or must not be read.

        Raises:
            OSError: The store cannot be reached.
        """
        store, key = open_store(self.url)
        try:
            with asking(self.url):
                return Image(bytes(store.get(key).bytes()))
        except (FileNotFoundError, PermissionError) as error:
            return Unreadable(error)


def downloaded(blocks: Iterable[list[Any]]) -> Iterator[Any]:
    """Yield the items of lists in order, with each `StoredImage` replaced by the image, which is downloaded.

    Raises:
        OSError: A store cannot be reached.
    """
    return chain.from_iterable(_downloaded(blocks))


async def at_hand(items: list[Any]) -> list[Any]:
    """Return items as `downloaded` does, without blocking the event loop."""
    if StoredImage not in set(map(type, items)):
        return items
    return await asyncio.to_thread(list, downloaded([items]))


def _downloaded(blocks: Iterable[list[Any]]) -> Iterator[list[Any]]:
    waiting: deque[Any] = deque()
    threads: ThreadPoolExecutor | None = None
    try:
        for items in blocks:
            if not waiting and StoredImage not in set(map(type, items)):
                yield items
                continue
            threads = threads or ThreadPoolExecutor(AT_ONCE, "casdk-store")
            for item in items:
                waiting.append(threads.submit(item.read) if isinstance(item, StoredImage) else item)
                if len(waiting) == AT_ONCE:
                    yield [_arrived(waiting.popleft())]
        yield list(map(_arrived, waiting))
    finally:
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)


def _arrived(item: Any) -> Any:
    return item.result() if isinstance(item, Future) else item
