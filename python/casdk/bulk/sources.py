"""The sources of a bulk run, which yield items with their names and fingerprints.

A name identifies the item in every run. A fingerprint is a short text that changes when the content behind the name
changes: the size and time of a file, or a digest of the bytes. It is empty if the name says everything about the item.
"""

from __future__ import annotations

import glob
import hashlib
import io
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec
import numpy as np

from casdk._columns import Unreadable, column_of
from casdk._rust import are_strings
from casdk.bulk.stores import BLOCK_BYTES, Found, StoredImage, find_objects, is_url, open_object
from casdk.documents import Document
from casdk.errors import BulkError, InputTypeError, InputValueError
from casdk.models import Image, Text

if TYPE_CHECKING:
    from casdk.client import Item

__all__ = [
    "AsyncSource",
    "Block",
    "Holds",
    "Named",
    "Source",
    "digest_of",
    "file_state",
    "files",
    "find_files",
    "lines",
    "open_file",
    "open_source",
    "to_lines",
]

Holds: TypeAlias = "tuple[Literal['image', 'text'], ...]"
"""What each row of a source holds: an image, a text, or an image and its caption; ``()`` if that is not known."""
CONTENT_BYTES: Final = 16
"""Length of the digest of an item's bytes or pixels."""
LISTED_AT_ONCE: Final = 16
"""Patterns that are searched at the same time, because each may need requests to a store."""
LINE_SUFFIXES: Final = frozenset({".txt"})
RECORD_SUFFIXES: Final = frozenset({".jsonl", ".ndjson"})


class Block(msgspec.Struct, frozen=True):
    """Consecutive rows of a source.

    Attributes:
        items: The item of each row; or two items for each row, its image and then its caption.
        names: The name of each row.
        contents: The fingerprints that are not empty, by position of the row.
        captions: The text of each row, if the target stores captions.
    """

    items: list[Any]
    names: list[str]
    contents: dict[int, str] = {}
    captions: list[str] = []

    def __len__(self) -> int:
        return len(self.names)


class Source:
    """Rows that can be taken once, block by block.

    Args:
        blocks: Takes up to a given number of rows; an empty block means that none are left.
        total: The number of all rows, if it is known.
        holds: What each row holds.
        held: Takes rows as well, between two given numbers of them, if they are in memory already and cost nothing to
            take; otherwise it takes none and returns ``None``.
    """

    def __init__(
        self,
        blocks: Callable[[int], Block],
        total: int | None = None,
        holds: Holds = (),
        held: Callable[[int, int], Block | None] = lambda fewest, most: None,
    ) -> None:
        self.take: Final = blocks
        self.take_held: Final = held
        self.total: Final = total
        self.holds: Final = holds


class AsyncSource:
    """A `Source` over an async iterable.

    Args:
        items: Items, or pairs of a name and an item.
    """

    total: Final = None
    holds: Final[Holds] = ()

    def __init__(self, items: AsyncIterable[Any]) -> None:
        self._items: AsyncIterator[Any] = aiter(items)
        self._start = 0

    async def take(self, most: int) -> Block:
        """Take up to ``most`` items."""
        taken: list[Any] = []
        while len(taken) < most:
            try:
                taken.append(await anext(self._items))
            except StopAsyncIteration:
                break
        block = read_block(taken, self._start)
        self._start += len(taken)
        return block


class Named:
    """An iterable of pairs of a name and an item that can be read again: what `files`, `lines` and others return.

    Args:
        read: Returns an iterator over names, items and fingerprints, from the first item.
        total: The number of all items, if it is known.
        holds: What the items are: ``("image",)`` or ``("text",)`` if all are of this kind, and ``("image", "text")`` if
            each is a tuple of an image and its caption.
    """

    def __init__(
        self, read: Callable[[], Iterator[tuple[str, Any, str]]], total: int | None = None, holds: Holds = ()
    ) -> None:
        self._read = read
        self.total: Final = total
        self.holds: Final = holds

    def __iter__(self) -> Iterator[tuple[str, Item | Document]]:
        for name, item, _ in self._read():
            yield name, item.read() if isinstance(item, StoredImage) else item

    def entries(self) -> Iterator[tuple[str, Item | Document, str]]:
        """Yield names, items and fingerprints."""
        return self._read()

    def open(self, *, captions: bool = False) -> Source:
        """Return its items as a source, from the first one.

        Args:
            captions: Whether the blocks contain the captions.
        """
        entries, pairs = self._read(), len(self.holds) == 2

        def take(most: int) -> Block:
            taken = list(islice(entries, most))
            contents = {place: content for place, (_, _, content) in enumerate(taken) if content}
            items = [item for _, item, _ in taken]
            if pairs:
                items = [part for pair in items for part in pair]
            said = _captions_of(items, self.holds) if captions else []
            return Block(items, [_as_utf8(name) for name, _, _ in taken], contents, said)

        return Source(take, self.total, self.holds)


def _captions_of(items: list[Any], holds: Holds) -> list[str]:
    """Return the text of each row, ``""`` for one that cannot be read; an empty list if the rows have no texts."""
    if "text" not in holds:
        return []
    return [_as_utf8(item.text) if isinstance(item, Text) else "" for item in items[len(holds) - 1 :: len(holds)]]


def open_source(content: Any, *, holds: Holds = (), captions: bool = False) -> Source | AsyncSource:
    """Return a caller's content as a source.

    Args:
        content: An iterable of items, or of pairs of a name and an item.
        holds: What the items are, if the content does not say so itself.
        captions: Whether the blocks contain the captions.

    Raises:
        InputTypeError: The content is a single item, or is not iterable.
    """
    if isinstance(content, Named):
        return content.open(captions=captions)
    if isinstance(content, AsyncIterable):
        return AsyncSource(content)
    content = column_of(content) or content
    if isinstance(content, str | bytes | bytearray | os.PathLike | Text | Image | np.ndarray | Document):
        raise InputTypeError(f"content must be an iterable of items, not one {type(content).__name__}: write [content]")
    try:
        items = iter(content)
    except TypeError:
        raise InputTypeError(f"content must be an iterable of items, not {type(content).__name__}") from None
    start = 0

    def captioned(block: Block) -> Block:
        return msgspec.structs.replace(block, captions=_captions_of(block.items, holds)) if captions else block

    def take(most: int) -> Block:
        nonlocal start
        taken = content[start : start + most] if type(content) is list else list(islice(items, most))
        block = read_block(taken, start)
        start += len(taken)
        return captioned(block)

    def take_held(fewest: int, most: int) -> Block | None:
        nonlocal start
        taken = content[start : start + most] if type(content) is list else []
        # Only strings cost nothing: for a path the file's size and time are requested, and bytes are hashed.
        if len(taken) < max(fewest, 1) or not are_strings(taken):
            return None
        start += len(taken)
        return captioned(Block(taken, taken))

    return Source(take, len(content) if hasattr(content, "__len__") else None, holds, take_held)


def read_block(taken: list[Any], start: int) -> Block:
    """Return a caller's items as a block.

    The name of an item is the one in its pair, or else its text or path, or else its position in the input.

    Args:
        taken: Items, or pairs of a name and an item.
        start: The position of the first one in the input.
    """
    if are_strings(taken):
        return Block(taken, taken)
    items, names, contents = [], [], {}
    for place, item in enumerate(taken):
        name = None
        if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str):
            name, item = item
        own_name, content = _known_of(item)
        if name is not None and own_name is not None:
            content = f"{own_name} {content}"
        if content:
            contents[place] = content
        items.append(item)
        names.append(_as_utf8(name if name is not None else own_name if own_name is not None else str(start + place)))
    return Block(items, names, contents)


def _known_of(item: Any) -> tuple[str | None, str]:
    """Return the name that an item itself gives, if it gives one, and its fingerprint."""
    if isinstance(item, Text):
        return item.text, ""
    if isinstance(item, Document):
        known = f"{item.text}\n{item.uri}"
        return item.text or item.uri or None, digest_of(item.blob) if item.blob else known
    if isinstance(item, Image):
        source: Any = item.source
        return _known_of(Path(source) if isinstance(source, str) and "://" not in source[:10] else source)
    if isinstance(item, str):
        return str.__str__(item), ""
    if isinstance(item, os.PathLike):
        return os.fsdecode(item), file_state(os.fspath(item))
    if isinstance(item, bytes | bytearray | memoryview):
        return None, digest_of(item)
    if isinstance(item, np.ndarray):
        return None, f"{item.dtype} {list(item.shape)} {digest_of(np.ascontiguousarray(item).data)}"
    if hasattr(item, "tobytes") and hasattr(item, "size"):  # a PIL.Image
        return None, f"{item.size} {digest_of(item.tobytes())}"
    return None, ""


def digest_of(data: Any) -> str:
    """Return the digest by which bytes are compared, in hexadecimal."""
    return hashlib.blake2b(data, digest_size=CONTENT_BYTES).hexdigest()


def file_state(path: str | bytes) -> str:
    """Return the size and time of a file, or the kind of error if it cannot be read, for comparison in a later run."""
    try:
        found = os.stat(path)
    except OSError as error:
        return type(error).__name__
    except ValueError:  # a null in the name
        return "no file"
    return f"{found.st_size} {found.st_mtime_ns}"


def _as_utf8(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


_encoder: Final = msgspec.json.Encoder()


def to_lines(values: Sequence[Any]) -> bytes:
    """Return values as lines of JSON."""
    return _encoder.encode_lines(values)


def files(pattern: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Named:
    """Return image files as items, sorted by path.

    A file that cannot be read, or a link that leads nowhere, is an item that fails. When a run continues, it compares
    files by name, size and time.

    Args:
        pattern: A pattern such as ``"photos/**/*.jpg"`` (``**`` stands for any number of folders), several patterns, or
            paths. It may be in a store, such as ``"s3://bucket/photos/*.jpg"``, with ``casdk[stores]``. The URL of a
            web server must not be a pattern, and its images are compared by URL alone.

    Returns:
        Pairs of a path and an `Image`.

    Raises:
        InputValueError: No file matches a pattern.

    Examples:
        >>> from casdk import bulk
        >>> bulk.files("photos/**/*.jpg")  # doctest: +SKIP
    """
    patterns = _listed(pattern)
    on_the_web = {one for one in patterns if one.startswith(("http://", "https://"))}
    found = sorted([*map(Found, on_the_web), *_found([one for one in patterns if one not in on_the_web])])

    def read() -> Iterator[tuple[str, Any, str]]:
        for path, state in found:
            if state:
                yield path, StoredImage(path), state
            else:
                yield path, Image(path), "" if is_url(path) else file_state(path)

    return Named(read, len(found), ("image",))


def find_files(pattern: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return the paths that match a pattern, or any of several, sorted.

    Raises:
        InputValueError: No file matches one of the patterns.
    """
    return [path for path, _ in _found(_listed(pattern))]


def _listed(pattern: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    patterns = [pattern] if isinstance(pattern, str | os.PathLike) else pattern
    return [os.fspath(one) for one in patterns]


def _found(patterns: list[str]) -> list[Found]:
    """Return the files and objects that match patterns, sorted by path.

    Raises:
        InputValueError: No file matches one of the patterns.
    """
    found: set[Found] = set()
    with ThreadPoolExecutor(LISTED_AT_ONCE, "casdk-store") as threads:
        for pattern, matches in zip(patterns, threads.map(_matches, patterns), strict=True):
            if not matches:
                raise InputValueError(f"no file is called {pattern}")
            found.update(matches)
    return sorted(found)


def _matches(pattern: str) -> list[Found]:
    """Return all files and objects that match a pattern, including links that lead nowhere, but no folders."""
    if is_url(pattern):
        try:
            return find_objects(pattern)
        except OSError as error:
            raise BulkError(f"{pattern} cannot be looked for: {error.strerror}") from error
    pattern = os.path.expanduser(pattern)
    if not glob.has_magic(pattern):
        return [Found(pattern)] if os.path.lexists(pattern) else []
    return [Found(path) for path in glob.iglob(pattern, recursive=True) if not os.path.isdir(path)]


class Record(msgspec.Struct):
    """One line of a ``.jsonl`` file."""

    text: str = ""
    uri: str = ""
    id: str = ""


def lines(path: str | os.PathLike[str], *, text: bool = False) -> Named:
    """Return the lines of a file as items, without blank lines.

    Args:
        path: A ``.txt`` file, whose lines are read as `Client.encode` reads a ``str``; or a ``.jsonl`` file with one
            object per line, which has ``text`` or ``uri`` and may have an ``id``. The name of an item is its ``id``, or
            else its text or uri. A line that is no such object is an item that fails. The path may be a URL
            (``casdk[stores]``).
        text: Whether every line of a ``.txt`` file is a sentence, even if it looks like the path or URL of an image.

    Returns:
        Pairs of a name and an item.

    Raises:
        InputValueError: The path does not end in ``.txt`` or ``.jsonl``, or the file does not exist.
    """
    file = os.path.expanduser(os.fspath(path))
    kind = os.path.splitext(file)[1].lower()
    if kind not in LINE_SUFFIXES | RECORD_SUFFIXES:
        raise InputValueError(f"{file}: bulk.lines reads .txt and .jsonl files")
    if not _matches(file) if is_url(file) else not os.path.isfile(file):
        raise InputValueError(f"{file}: there is no such file")
    parse = _record if kind in RECORD_SUFFIXES else _sentence if text else _line
    holds: Holds = ("text",) if parse is _sentence else ()

    def read() -> Iterator[tuple[str, Any, str]]:
        try:
            with io.TextIOWrapper(open_file(file), encoding="utf-8") as opened:
                for number, raw in enumerate(opened, 1):
                    if line := raw.strip():
                        yield parse(line, f"line {number}")
        except UnicodeDecodeError as error:
            raise BulkError(f"{file} is no UTF-8 ({error.reason})") from None

    return Named(read, holds=holds)


def open_file(path: str) -> IO[bytes]:
    """Open a file, or an object in a store, to read it from beginning to end.

    Raises:
        OSError: It cannot be read; the error has its name.
    """
    return open_object(path, BLOCK_BYTES) if is_url(path) else open(path, "rb")


def _line(line: str, place: str) -> tuple[str, Any, str]:
    return line, line, ""


def _sentence(line: str, place: str) -> tuple[str, Any, str]:
    return line, Text(line), ""


def _record(line: str, place: str) -> tuple[str, Any, str]:
    try:
        record = msgspec.json.decode(line, type=Record)
        if bool(record.text) == bool(record.uri):
            raise InputValueError("give either text or uri")
    except (msgspec.MsgspecError, InputValueError) as error:
        return place, Unreadable(error), line
    item = Text(record.text) if record.text else Image(record.uri)
    return record.id or record.text or record.uri, item, line if record.id else ""
