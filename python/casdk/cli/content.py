"""What a command line names -> items to send, each with the name it is reported by."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from casdk import Document, Image, Text
from casdk._inputs import as_document
from casdk._rust import classify
from casdk.client import Item
from casdk.errors import InputValueError

__all__ = ["STDIN", "Content", "Entry", "read_document", "read_lines"]

STDIN: Final = "-"
LINES: Final = frozenset({".txt"})
RECORDS: Final = frozenset({".jsonl", ".ndjson"})
IMAGES: Final = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".webp", ".bmp"}
    | {".dib", ".tif", ".tiff", ".avif", ".heic", ".heif"}
)
"""What is taken of a directory; a file named itself is taken whatever it is called."""

Source: TypeAlias = "Path | str"
"""A file, or `STDIN`."""


class Entry(NamedTuple):
    """One item, and the line or path it came from."""

    name: str
    item: Item | Document


class Record(msgspec.Struct, omit_defaults=True):
    """One line of a ``.jsonl`` file."""

    text: str = ""
    uri: str = ""
    id: str = ""
    tags: dict[str, Any] = {}


class Content:
    """The items behind the paths of a command line, read as they are taken.

    Args:
        paths: Image files; directories, for the images in them; ``.txt`` files, an item per line; ``.jsonl`` files, an
            object with ``text`` or ``uri`` and perhaps ``id`` and ``tags`` per line; ``-`` for lines of standard
            input, which is also what no path at all means.
        sentences: Every line is a sentence, also one that looks like an image's path or URL.

    Attributes:
        total: Items in all, if that is known before they are read.

    Raises:
        InputValueError: A path leads nowhere, or to nothing.
    """

    def __init__(self, paths: Sequence[str], *, sentences: bool = False) -> None:
        if not paths and sys.stdin.isatty():
            raise InputValueError("nothing to read: name files, or pipe lines to standard input")
        self._sentences = sentences
        self._sources = [source for path in paths or (STDIN,) for source in _expand(path)]
        streams = any(source == STDIN or _suffix(source) in LINES | RECORDS for source in self._sources)
        self.total: int | None = None if streams else len(self._sources)

    def __iter__(self) -> Iterator[Entry]:
        for source in self._sources:
            if source == STDIN:
                yield from self._lines(sys.stdin)
            elif _suffix(source) in LINES | RECORDS:
                with open(source, encoding="utf-8") as lines:
                    yield from self._lines(lines) if _suffix(source) in LINES else _records(lines, source)
            else:
                yield Entry(str(source), Image(source))

    def _lines(self, lines: Iterator[str]) -> Iterator[Entry]:
        for line in read_lines(lines):
            yield Entry(line, Text(line) if self._sentences else line)


def read_lines(lines: Iterator[str]) -> Iterator[str]:
    """Yield the lines that are not blank, without their ends.

    Raises:
        InputValueError: They are no UTF-8.
    """
    try:
        yield from (line for raw in lines if (line := raw.strip()))
    except UnicodeDecodeError as error:
        raise InputValueError(f"the lines are no UTF-8 ({error.reason}): an image is named by its path") from None


def read_document(words: str) -> Document:
    """Return the Document of an image's path or URL, or of a sentence, as `Client.encode` reads a ``str``."""
    return as_document(words, chr(classify([words])[0]))


def _expand(path: str) -> Iterator[Source]:
    if path == STDIN:
        yield STDIN
        return
    found = Path(path).expanduser()
    if found.is_dir():
        images = sorted(file for file in found.rglob("*") if file.suffix.lower() in IMAGES and file.is_file())
        if not images:
            raise InputValueError(f"{path}: no image in this directory ({' '.join(sorted(IMAGES))})")
        yield from images
    elif not found.exists():
        raise InputValueError(f"{path}: no such file; a sentence goes to standard input, or into a .txt file")
    else:
        yield found


def _suffix(source: Source) -> str:
    return Path(source).suffix.lower()


def _records(lines: Iterator[str], source: Source) -> Iterator[Entry]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = msgspec.json.decode(line, type=Record)
        except msgspec.MsgspecError as error:
            raise InputValueError(f"{source}, line {number}: {error}") from None
        if bool(record.text) == bool(record.uri):
            raise InputValueError(f"{source}, line {number}: give either text or uri")
        document = Document(text=record.text, uri=record.uri, tags=record.tags)
        if record.id:
            document.id = record.id
        yield Entry(record.id or record.text or record.uri, document)
