"""Objects of a store (S3, Google Cloud Storage, Azure) or of a web server, to be read as files are: through obstore."""

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
"""Bytes that are asked for at a time of an object that is read from its beginning to its end."""
ENVIRONMENT: Final = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}
"""What the names of a store's variables in the environment begin with."""
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
"""Options of requests that obstore also finds in the environment, as ``AWS_PROXY_URL``."""
AT_ONCE: Final = 64
"""Images that are downloaded at once, the next ones while the first are being encoded."""


class Found(NamedTuple):
    """An object, or a file.

    Attributes:
        path: Its URL, or its path.
        state: The object's version, if the listing of its store contains it; ``""`` if it has to be requested.
    """

    path: str
    state: str = ""


class Address(NamedTuple):
    """A URL in two parts.

    Attributes:
        scheme: ``s3``, ``gs``, ``az``, ``http`` or ``https``.
        root: The bucket, or the web server, as a URL.
        key: What it is called there.
    """

    scheme: str
    root: str
    key: str


def is_url(path: object) -> bool:
    """Whether a path is a URL that this file is for."""
    return isinstance(path, str) and URL.fullmatch(path) is not None


def open_store(url: str, request_seconds: int | None = None) -> tuple[Any, str]:
    """Return obstore's store of a URL, which the process has once for each bucket, and the key of the object in it.

    Args:
        url: The URL.
        request_seconds: What one request may take; by default what obstore gives it, 30 seconds.

    Raises:
        ConfigError: obstore is not installed, or what it finds in the environment does not fit together; or the URL has
            credentials in it.
    """
    address = _address(url)
    if address.scheme not in WEB and "@" in address.root:
        raise ConfigError(
            f"{address.scheme}://: a URL names a bucket, and no credentials, which are for the environment to say"
        )
    # A web server's path is written with escapes, which obstore adds itself; a key is what it is.
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
    """Return options of requests with those of the environment, which obstore ignores once any option is passed."""
    prefix = ENVIRONMENT[root.partition(":")[0]]
    said = {name: os.environ.get(f"{prefix}_{name.upper()}") for name in CLIENT_OPTIONS}
    options: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    return {"timeout": f"{request_seconds} seconds", **options}


def _first_line(error: BaseException) -> str:
    """Return what an error of obstore's says; how it came about in Rust stands on the lines below."""
    return str(error).strip().partition("\n")[0]


@contextmanager
def asking(url: str) -> Iterator[None]:
    """Have the errors of a store raised as those of files, with the object's URL.

    Raises:
        FileNotFoundError: There is no such object.
        PermissionError: It must not be read.
        OSError: The store cannot be reached, or refuses.
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
    """Return the objects that a URL stands for, in the order of their names.

    ``*`` and ``?`` stand for what is between two slashes, ``**`` for any number of parts.

    Raises:
        InputValueError: It is a pattern, and web servers have no list of what is there; or it has a query.
        OSError: The store cannot be reached, or refuses.
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
    """Whether the parts of a key are what the parts of a pattern stand for."""
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(_fits(names[start:], patterns[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], patterns[0]) and _fits(names[1:], patterns[1:])


def _state_of(url: str, store: Any, key: str) -> str | None:
    """Return the version of an object, by which a change is noticed; ``None`` if there is no such object."""
    try:
        with asking(url):
            return _state(store.head(key))
    except FileNotFoundError:
        return None


def _state(meta: Any) -> str:
    return f"{meta['size']} {meta['e_tag'] or meta['last_modified'].isoformat()}"


# reading


def open_object(url: str, block_bytes: int | None = None) -> IO[bytes]:
    """Return an object as a file to be read.

    Args:
        url: Its URL.
        block_bytes: Bytes that are asked for at a time; by default as many as each read wants.

    Raises:
        OSError: It is not there, or cannot be read.
    """
    opened: Any = ObjectFile(url)
    return opened if block_bytes is None else io.BufferedReader(opened, block_bytes)


class ObjectFile(io.RawIOBase):
    """An object that is read in pieces, all of which are of the same version of it.

    Args:
        url: Its URL.

    Raises:
        OSError: It is not there, or cannot be read.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self.name = url
        self._store, self._key = open_store(url)
        with asking(url):
            meta = self._store.head(self._key)
        self._size: int = meta["size"]
        tag = meta["e_tag"]
        # A weak tag may stand for other bytes, and servers refuse it in a condition.
        self._version = {} if tag is None or tag.startswith("W/") else {"if_match": tag}
        self._place = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return where the next byte comes from."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, and return it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = start + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read as many bytes as there is room for, and return how many there were."""
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
        url: Its URL.
    """

    def __init__(self, url: str) -> None:
        self.url: Final = url

    def read(self) -> Any:
        """Download it.

        Returns:
            It, or why it cannot be had, if that is about this one image.

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
    """Return the items of lists in their order, with the bytes of an image in place of where it is stored.

    Raises:
        OSError: A store cannot be reached.
    """
    return chain.from_iterable(_downloaded(blocks))


async def at_hand(items: list[Any]) -> list[Any]:
    """Return items as `downloaded` does, and let the loop go on meanwhile."""
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
