"""Reads the items that a command line names: files, directories, lines and sentences, each with a name for messages."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from glob import has_magic
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from casdk import Document, Image, Text
from casdk._content.inputs import as_document, read_chunk
from casdk._rust import IMAGE_EXTENSIONS, Kind, classify, kind_of_uri
from casdk.client import Item
from casdk.errors import InputValueError

__all__ = ["LINES", "RECORDS", "STDIN", "Content", "Entry", "read_document", "read_lines", "stored"]

STDIN: Final = "-"
LINES: Final = frozenset({".txt"})
RECORDS: Final = frozenset({".jsonl", ".ndjson"})
IMAGES: Final = frozenset(IMAGE_EXTENSIONS)
"""Suffixes of the files that are read from a directory; a file that is named itself may have any name."""
NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
ID_BYTES: Final = 16
URIS: Final = (Kind.WEB_URL, Kind.DATA_URI, Kind.FILE_URL)


class Entry(NamedTuple):
    """One item, the line or path that it came from, and the id in its ``.jsonl`` file, if any."""

    name: str
    item: Item | Document
    id: str = ""


Source: TypeAlias = "Path | Entry | None"
"""A file, a word that is an item itself, or ``None`` for standard input."""


class Record(msgspec.Struct, omit_defaults=True):
    """One line of a ``.jsonl`` file."""

    text: str = ""
    uri: str = ""
    id: str = ""
    tags: dict[str, Any] = {}


class Content:
    """The items that the words of a command line name; each is read when the iteration reaches it.

    Args:
        words: Image files; directories of images; ``.txt`` files with an item per line; ``.jsonl`` files with an object
            per line, which has ``text`` or ``uri``, and perhaps ``id`` and ``tags``; URLs of images; sentences, which
            contain white space and name no file; ``-`` for the lines of standard input. Without any word, standard
            input is read.
        sentences: Every line is a sentence, also one that looks like an image's path or URL.
        skip: Leave out directories that cannot be read, instead of refusing them.

    Attributes:
        total: Items in all, if that is known before they are read.
        holds: ``("image",)`` or ``("text",)`` if it is certain that all items are of this kind; else ``()``.
        unread: An error for each directory that was left out.

    Raises:
        InputValueError: A path does not exist, or a directory has no image or cannot be read.
    """

    def __init__(self, words: Sequence[str], *, sentences: bool = False, skip: bool = False) -> None:
        if not words and sys.stdin.isatty():
            raise InputValueError("nothing to read: name files, or pipe lines to standard input")
        self._sentences = sentences
        self.unread: list[InputValueError] = []
        self._sources: list[Source] = []
        for word in words or (STDIN,):
            self._sources += [None] if word == STDIN else self._expand(word)
        if self.unread and not skip:
            raise self.unread[0]
        streams = any(source is None or _suffix(source) in LINES | RECORDS for source in self._sources)
        self.total: int | None = None if streams else len(self._sources)

    @property
    def holds(self) -> tuple[Literal["image", "text"], ...]:
        """The kind of all items, if it is known before they are read."""
        kinds = {self._kind_of(source) for source in self._sources}
        return ("image",) if kinds == {"image"} else ("text",) if kinds == {"text"} else ()

    def _kind_of(self, source: Source) -> str:
        if isinstance(source, Entry):
            return "text" if isinstance(source.item, Text) else "image"
        suffix = "" if source is None else _suffix(source)
        if suffix in RECORDS:
            return "either"
        if source is None or suffix in LINES:
            return "text" if self._sentences else "either"
        return "image"

    def __iter__(self) -> Iterator[Entry]:
        for source in self._sources:
            if source is None:
                yield from self._lines(sys.stdin)
            elif isinstance(source, Entry):
                yield source
            elif _suffix(source) in LINES | RECORDS:
                with open(source, encoding="utf-8") as lines:
                    yield from self._lines(lines) if _suffix(source) in LINES else _records(lines, source)
            else:
                yield Entry(str(source), Image(source))

    def _lines(self, lines: Iterable[str]) -> Iterator[Entry]:
        for line in read_lines(lines):
            yield Entry(line, Text(line) if self._sentences else line)

    def _expand(self, word: str) -> list[Source]:
        """Return the sources that a word names."""
        if classify([word])[0] in URIS:
            return [Entry(word, word)]
        found = Path(os.path.expanduser(word))
        try:
            mode = os.stat(found).st_mode
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise InputValueError(f"{word}: {error.strerror}") from None
            return [_sentence(word, found)]
        if not stat.S_ISDIR(mode):
            return [found]
        left_out = len(self.unread)
        images: list[Source] = list(self._images_in(found))
        if not images and len(self.unread) == left_out:
            raise InputValueError(f"{word}: no image in this directory ({' '.join(sorted(IMAGES))})")
        return images

    def _images_in(self, folder: Path) -> Iterator[Path]:
        """Yield the images in a directory and those below it, in the order of their names.

        Links to directories are followed, except those that lead back to a directory that contains them.
        """
        above = [_identity_of(folder)]
        waiting = [iter(self._listed(folder))]
        while waiting:
            if (entry := next(waiting[-1], None)) is None:
                waiting.pop()
                above.pop()
                continue
            path = Path(entry.path)
            try:
                is_directory = entry.is_dir()
            except OSError:  # a link to a place that this user must not read
                is_directory = False
            if is_directory:
                if (identity := _identity_of(path)) not in above:
                    above.append(identity)
                    waiting.append(iter(self._listed(path)))
            elif path.suffix.lower() in IMAGES or _may_be_a_lost_directory(entry):
                yield path

    def _listed(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.unread.append(InputValueError(f"{folder}: this directory cannot be read: {error.strerror}"))
            return []


def _identity_of(folder: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(folder)
    except OSError:  # it was removed meanwhile, which the attempt to list it reports
        return None
    return found.st_dev, found.st_ino


def _may_be_a_lost_directory(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a broken link whose name could be a directory's.

    It then counts as an item, and fails as one. Otherwise the images of a lost directory would be missing without an
    error.
    """
    return "." not in entry.name and entry.is_symlink() and not os.path.exists(entry.path)


def _sentence(word: str, path: Path) -> Entry:
    """Return the item of a word that names no file: a sentence.

    Raises:
        InputValueError: The word looks like the path of a file that does not exist.
    """
    if os.path.islink(path):
        raise InputValueError(f"{word}: a link to {os.readlink(path)}, which does not exist")
    is_path = word.startswith(("/", "./", "../", "~")) or word.endswith("/")
    if has_magic(word) and len(word.split()) < 2:
        hint = "the shell replaces a pattern by the files that it matches if it stands without quotes"
    elif is_path or path.suffix.lower() in IMAGES | LINES | RECORDS:
        hint = "if it is a sentence, it goes to standard input with --text"
    elif len(word.split()) < 2:
        hint = "a sentence of one word goes to standard input, or into a .txt file"
    else:
        return Entry(word, Text(word))
    raise InputValueError(f"{word}: no such file; {hint}")


def read_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines that are not blank, without white space at both ends.

    Raises:
        InputValueError: The lines are not UTF-8.
    """
    try:
        yield from (line for raw in lines if (line := raw.strip()))
    except UnicodeDecodeError as error:
        raise InputValueError(f"the lines are no UTF-8 ({error.reason}): an image is named by its path") from None


def read_document(words: str) -> Document:
    """Return a Document of an image's path or URL, or of a sentence, as `Client.encode` reads a ``str``."""
    chunk = read_chunk([words], [0])
    if chunk.errors:
        raise chunk.errors[0]
    return as_document(words, chunk.kinds[0])


def stored(entry: Entry) -> Document:
    """Return the Document that ``casdk index`` stores for an item.

    Its id is the one in the ``.jsonl`` file, or the absolute path or URL of an image, or else a hash of the content. So
    the id is the same each time, and indexing an item again replaces it.
    """
    item = entry.item
    if isinstance(item, Document):
        document = item
    elif isinstance(item, Text):
        document = Document(text=item.text)
    elif isinstance(item, Image):
        document = Document(uri=str(item.source))
    else:
        document = read_document(str(item))
    document.id = entry.id or _id_of(document)
    return document


def _id_of(document: Document) -> str:
    content = document.text or document.uri
    kind = Kind.TEXT if document.text else kind_of_uri(content)
    if kind in (Kind.WEB_URL, Kind.FILE_URL):
        return content
    if kind in (Kind.DATA_URI, Kind.TEXT):
        return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=ID_BYTES).hexdigest()
    # A file name that is not UTF-8 cannot be sent, so its other bytes are escaped.
    return os.fsencode(os.path.abspath(os.path.expanduser(content))).decode("utf-8", "backslashreplace")


def _suffix(source: Path | Entry) -> str:
    return source.suffix.lower() if isinstance(source, Path) else ""


def _records(lines: Iterable[str], source: Path) -> Iterator[Entry]:
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
        yield Entry(record.id or record.text or record.uri, document, record.id)
