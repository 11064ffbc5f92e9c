r"""The caller's content -> items, each with its kind; the verbs check the content here, and `Reading` its items.

How a ``str`` is read (the one table; the rule itself runs in Rust, ``rust/core/src/classify.rs``):

===========================================================  =========================================
a string                                                     is
===========================================================  =========================================
``data:...,...`` (RFC 2397)                                  an image: data URI
``http://`` ``https://`` ``file://``, no white space         an image: URL
one of these with white space and an image extension         an error: percent-encode it
a separator, no white space, and names a directory           an error: list what is in it
begins with ``/`` ``./`` ``../`` ``~/`` or a drive ``C:\``     an image: path, if it has no white space
                                                             or a file of that name exists
ends in ``.png .jpg .jpeg .jpe .jfif .gif .webp .bmp .dib    an image: path, under the same condition, or
.tif .tiff .avif .heic .heif``                               with a separator before its first white space
anything else, and any one word                              a sentence, whatever files lie around
===========================================================  =========================================

``Text(...)`` and ``Image(...)`` override it; ``os.PathLike`` and ``bytes`` are always images.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final

import msgspec
import numpy as np

from casdk._columns import Unreadable, column_of
from casdk._rust import Kind, classify, kind_of_uri
from casdk._wording import class_name, message_of, shown
from casdk.documents import Document, DocumentArray, NamedScore
from casdk.documents.docarray import to_document
from casdk.documents.recognise import origins, recognise
from casdk.errors import (
    ConfigError,
    EmptyItemError,
    FileMissingError,
    FileUnreadableError,
    InputTypeError,
    ItemError,
    ItemTooLargeError,
    ItemTypeError,
    NotAnImageError,
)
from casdk.models import Image, Text

__all__ = [
    "EVERYTHING",
    "Chunk",
    "Sources",
    "advise",
    "are_plain",
    "are_texts",
    "as_document",
    "check_content",
    "read_chunk",
    "unread",
    "urls_of",
]

SINGLE: Final = (str, bytes, bytearray, memoryview, os.PathLike, Text, Image, Document)
"""Types of single items, which are not accepted as content."""
SENTENCE: Final = bytes([Kind.TEXT])
SHOWN_CHARACTERS: Final = 60
"""Characters of an item that an error shows."""
PLAIN: Final = frozenset({str, bytes, bytearray, int, float, bool, type(None), np.ndarray})
"""Types whose values run none of the caller's code when they are read."""
MOST_VALUES: Final = 10_000
"""The most values of Documents that `are_plain` checks on the engine, which takes some tenths of a millisecond."""
CONTENTS: Final[dict[int, str]] = {Kind.TEXT: "text", Kind.BLOB: "blob", Kind.TENSOR: "tensor"}
"""The field of a Document that an item of each kind goes to; one of any other kind is its uri."""
CHANNELS: Final = (1, 3, 4)
"""Grey, RGB and RGBA: what image servers accept in ``[H, W, C]``."""


class Sources(msgspec.Struct, frozen=True):
    """Where a client may read images from, beside the items themselves.

    Attributes:
        local_files: Whether files are opened, and strings are looked up on disk.
        fetch_urls: Whether ``http(s)://`` URLs are fetched.
    """

    local_files: bool = True
    fetch_urls: bool = True


EVERYTHING: Final = Sources()
BUILTIN_CONTENTS: Final = frozenset(
    {str, bytes, tuple, set, frozenset, dict, range, map, filter, zip, enumerate, GeneratorType, AsyncGeneratorType}
    | {type(iter(kind())) for kind in (list, tuple, set, dict)}
)
"""Types of content that can be checked without running the caller's code: an error during the check then comes from a
signal's handler, and is raised as it is."""


class Chunk(msgspec.Struct, eq=False):
    """Items of one batch, ready to pack.

    Attributes:
        items: The items, of types that `casdk._rust.Packer` takes.
        kinds: The `Kind` of each item, one byte per item.
        errors: The errors of items that cannot be sent, by position. In ``items``, each of them is replaced by ``""``.
    """

    items: list[Any]
    kinds: bytes
    errors: dict[int, ItemError] | None = None

    def of(self, positions: Sequence[int]) -> Chunk:
        """Return a chunk of some of the items, none of which has an error."""
        return Chunk([self.items[at] for at in positions], bytes([self.kinds[at] for at in positions]))


def check_content(content: Any, sources: Sources = EVERYTHING) -> Any:
    """Refuse a single item where an iterable of items is needed; return the object that items are read from.

    Args:
        content: The content, as the caller passed it.
        sources: Where the client may read images from.

    Returns:
        The content itself; or a `Column`, for a column of pandas, polars or Arrow.

    Raises:
        InputTypeError: The content is not an iterable of items, or checking it raised an error.
        ConfigError: The content can only be read with a library that is not installed.
    """
    if type(content) is list:
        return content
    try:
        return _readable(content, sources)
    except (InputTypeError, ConfigError):
        raise
    except Exception as error:  # raised by a class of the caller's own
        if type(content) in BUILTIN_CONTENTS:
            raise
        raise InputTypeError(f"content cannot be read: {class_name(error)}: {message_of(error)}") from error


def _readable(content: Any, sources: Sources) -> Any:
    if (
        type(content) is str
        and sources.local_files
        and classify([content])[0] == Kind.UNCLEAR
        and kind_of_uri(content) == Kind.PATH
    ):
        raise InputTypeError(f"content is the name of a directory: write {_listing(content)} for what is in it")
    if isinstance(content, SINGLE) or _is_picture(content) or recognise(content):
        raise InputTypeError(f"content must be an iterable of items, not one item: write [{shown(content)}]")
    if isinstance(content, Mapping):
        raise InputTypeError("content must be an iterable of items, not a mapping: choose .keys() or .values()")
    dimensions = getattr(content, "ndim", None)
    if dimensions == 0:
        raise InputTypeError("content must be an iterable of items, not an array without dimensions")
    if dimensions == 3 and str(content.dtype).endswith("uint8"):  # NumPy's, or torch's
        raise InputTypeError("content looks like one image [H, W, C]: write [image]")
    if (column := column_of(content)) is not None:
        return column
    its_class = type(content)  # `iter` looks up methods only in the class
    if not any(hasattr(its_class, name) for name in ("__iter__", "__aiter__")):
        raise InputTypeError(f"content must be an iterable of items, not {class_name(content)}")
    return content


def _listing(directory: str) -> str:
    return f"sorted(Path({directory!r}).iterdir())"


def _is_picture(item: object) -> bool:
    """Whether this is an image of Pillow's, by the modules of its classes."""
    return any(module.startswith("PIL.") for module, _ in origins(type(item)))


def are_texts(items: list[Any], sources: Sources) -> bool:
    """Whether all of these are plain sentences."""
    return not classify(items, look=sources.local_files).strip(SENTENCE)


def read_chunk(
    items: list[Any],
    indices: Sequence[int],
    *,
    candidates: str | None = None,
    whole: bool = False,
    max_item_bytes: int | None = None,
    sources: Sources = EVERYTHING,
    is_over: Callable[[], bool] = bool,
) -> Chunk:
    """Find out the kind of each item. This may run the caller's code, whose error becomes the item's error.

    Args:
        items: The items, as the caller passed them.
        indices: The index of each item, for errors.
        candidates: Attribute of docarray's documents whose nested documents are sent, too.
        whole: Whether docarray's documents are read whole, with their tags, and not only their content.
        max_item_bytes: The most bytes of an image, checked before it is copied.
        sources: Where the client may read images from; the packer refuses items from elsewhere.
        is_over: Whether the call is over; then the remaining items stay unread.
    """
    kinds = classify(items, look=sources.local_files)
    if Kind.UNCLEAR not in kinds:
        return Chunk(items, kinds)
    read, errors = list(items), {}
    read_kinds = bytearray(kinds)
    look = _Look(candidates, whole, max_item_bytes, sources)
    for position, kind in enumerate(kinds):
        if kind != Kind.UNCLEAR:
            continue
        if is_over():
            break
        try:
            read_kinds[position], read[position] = look.at(items[position])
        except Exception as error:
            unfit = error if isinstance(error, _UnfitError) else _unread(items[position], error)
            errors[position] = unfit.error_class(indices[position], items[position], str(unfit), unfit.__cause__)
            read[position], read_kinds[position] = "", Kind.TEXT
    return Chunk(read, bytes(read_kinds), errors)


def unread(items: list[Any]) -> Chunk:
    """Return a chunk of items that will not be sent, with an empty Document for each of docarray's."""
    read, kinds = list(items), bytearray(classify(items))
    for position, kind in enumerate(kinds):
        if kind != Kind.DOCUMENT:
            is_theirs = recognise(items[position])
            read[position], kinds[position] = (Document(), Kind.DOCUMENT) if is_theirs else ("", Kind.TEXT)
    return Chunk(read, bytes(kinds))


class _UnfitError(Exception):
    """Why an item cannot be sent; `read_chunk` makes the item's error of it."""

    def __init__(self, reason: str, error_class: type[ItemError] = ItemTypeError) -> None:
        super().__init__(reason)
        self.error_class = error_class


def _unread(item: object, error: Exception) -> _UnfitError:
    unfit = _UnfitError(f"reading the {class_name(item)} raised {class_name(error)}: {message_of(error)}")
    unfit.__cause__ = error
    return unfit


class _Look:
    """Reads items of other types than builtin ones; `read_chunk` makes one for a chunk."""

    def __init__(self, candidates: str | None, whole: bool, most: int | None, sources: Sources) -> None:
        self._candidates = candidates
        self._whole = whole
        self._most = sys.maxsize if most is None else most
        self._files = sources.local_files

    def at(self, item: object) -> tuple[int, object]:
        """Return the kind of an item, and the object that is packed for it, of a type of Python, NumPy or casdk."""
        if recognise(item):
            return Kind.DOCUMENT, self._as_ours(item)
        if isinstance(item, Text):
            return Kind.TEXT, str.__str__(item.text)
        if isinstance(item, Image):
            return self._at_image(item.source)
        if isinstance(item, str):
            plain = str.__str__(item)  # `str` of an Enum would be its name
            return self._clear(plain), plain
        if type(item) is Unreadable:
            reason = f"the row cannot be read: {class_name(item.cause)}: {message_of(item.cause)}"
            raise _UnfitError(reason) from item.cause
        if item is None:
            reason = "is None (null): fill it, leave it out, or give errors='skip' or 'return'"
            raise _UnfitError(reason, EmptyItemError)
        return self._at_image(item)

    def _clear(self, text: str) -> int:
        """Return the kind of a string; raise an error if it is neither a sentence nor an image."""
        kind = classify([text], look=self._files)[0]
        if kind != Kind.UNCLEAR:
            return kind
        if kind_of_uri(text) != Kind.PATH:
            raise _UnfitError(f"a URL has no white space: percent-encode it (%20); a sentence is Text({shown(text)})")
        raise _UnfitError(
            f"is the name of a directory: write {_listing(text)} for what is in it; a sentence is Text({shown(text)})",
            FileUnreadableError,
        )

    def _as_ours(self, item: object) -> Document:
        try:
            return to_document(Document, item, candidates=self._candidates, whole=self._whole)
        except InputTypeError as error:
            raise _UnfitError(str(error)) from error

    def _at_image(self, source: object) -> tuple[int, object]:
        if isinstance(source, str):
            plain = str.__str__(source)
            kind = self._clear(plain)
            return (Kind.PATH if kind == Kind.TEXT else kind), plain
        if isinstance(source, os.PathLike):
            return Kind.PATH, str.__str__(os.fsdecode(source))
        if isinstance(source, bytes | bytearray | memoryview):
            with memoryview(source) as view:
                self._check_size("the image", view.nbytes)
                return Kind.BLOB, view.tobytes()
        if _is_picture(source):
            return Kind.BLOB, self._png(source)
        if hasattr(source, "__array__") or hasattr(source, "__array_interface__"):
            return Kind.TENSOR, self._tensor(source)
        raise _UnfitError(
            f"a {class_name(source)} cannot be encoded: give str, PathLike, bytes, ndarray [H, W, C] uint8, "
            "PIL.Image, Text, Image or Document"
        )

    def _check_size(self, what: str, size: int) -> None:
        if size > self._most:
            reason = f"{what} has {size} bytes, more than the {self._most} of Limits.max_item_bytes"
            raise _UnfitError(reason, ItemTooLargeError)

    def _tensor(self, source: Any) -> np.ndarray[Any, Any]:
        """Read any array by NumPy's protocol; a tensor of torch is first detached and copied to the CPU."""
        try:
            if type(size := getattr(source, "nbytes", None)) is int:
                self._check_size("the tensor", size)
            if hasattr(source, "detach"):
                source = source.detach().cpu()
            array = np.asarray(source)
        except _UnfitError:
            raise
        except Exception as error:
            raise _UnfitError(f"the {class_name(source)} cannot be read as an array: {message_of(error)}") from error
        _check_pixels(array)
        self._check_size("the tensor", array.nbytes)
        return np.ascontiguousarray(array)

    def _png(self, image: Any) -> bytes:
        """Return the image as PNG, which has no loss; a server would write a tensor as PNG in any case."""
        if 0 in image.size:
            raise _UnfitError(f"the PIL image of {image.width} x {image.height} has no pixels", EmptyItemError)
        with _PNG(self._check_size) as file:
            try:
                image.save(file, format="PNG", compress_level=1)
            except (OSError, ValueError) as error:
                raise _UnfitError(f"the PIL image cannot be written as PNG: {error}") from error
            return file.getvalue()


class _PNG(BytesIO):
    """A file in memory that raises an error when it grows larger than an item may be."""

    def __init__(self, check_size: Callable[[str, int], None]) -> None:
        super().__init__()
        self._check_size = check_size

    def write(self, part: Any) -> int:
        self._check_size("the image as PNG", self.tell() + len(part))
        return super().write(part)


def _check_pixels(array: np.ndarray[Any, Any]) -> None:
    if array.ndim == 0 and array.dtype.kind == "U":
        raise _UnfitError("is an array without dimensions")
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in CHANNELS:
        first = array.ndim == 3 and array.shape[0] in CHANNELS and array.shape[2] not in CHANNELS
        hint = ": move the channels from the first to the last place" if first else ""
        raise _UnfitError(
            f"an image array must be [H, W, C] uint8 with C 1, 3 or 4, not {list(array.shape)} {array.dtype}{hint}"
        )
    if array.size == 0:
        raise _UnfitError(f"an image array of shape {list(array.shape)} has no pixels", EmptyItemError)


def advise(error: ItemError) -> None:
    """Add to an item's error, if the item may be a sentence that looks like a path, how to write it."""
    item = error.item
    if type(item) is str and isinstance(error, FileMissingError | NotAnImageError) and classify([item])[0] == Kind.PATH:
        words = item if len(item) <= SHOWN_CHARACTERS else f"{item[:SHOWN_CHARACTERS]}..."
        advice = error.reason.partition("; give check_images=False")[0]
        error.reason = f'{advice}; if it is a sentence, write Text("{words}")'


def as_document(item: Any, kind: int) -> Document:
    """Return a Document for an item that was read, for the verbs whose results are Documents."""
    document: Document = item if kind == Kind.DOCUMENT else Document(**{CONTENTS.get(kind, "uri"): item})
    return document


def urls_of(items: Sequence[Any], kinds: bytes, candidates: str | None) -> list[str]:
    """Return the http(s) URLs whose images have to be fetched before these items can be packed.

    This runs the caller's code, if a Document is of a class of the caller's own.
    """
    urls: dict[str, None] = {}
    for item, kind in zip(items, kinds, strict=True):
        if kind == Kind.WEB_URL:
            urls[item] = None
        elif kind == Kind.DOCUMENT:
            try:
                for document in (item, *(getattr(item, candidates) if candidates else ())):
                    if _is_fetched(document):
                        urls[str.__str__(document.uri)] = None
            except Exception:
                continue  # the packer will fail on the item, too, and report the error
    return list(urls)


def are_plain(items: Sequence[Any]) -> bool:
    """Whether reading these items and Documents runs none of the caller's code, which may be slow, or never return.

    It is false, too, if there are more than `MOST_VALUES` values to check.
    """
    values = list(items)
    for value in values:  # the list grows in the loop
        value_class = type(value)
        if value_class is Document or value_class is NamedScore:
            values += msgspec.structs.astuple(value)
        elif value_class is dict:
            values += value.keys()
            values += value.values()
        elif value_class in (list, tuple, DocumentArray):
            values += value
        elif value_class not in PLAIN:
            return False
        if len(values) > MOST_VALUES:
            return False
    return True


def _is_fetched(document: Document) -> bool:
    return (
        isinstance(document.uri, str)  # the packer reports what is wrong with another type
        and kind_of_uri(document.uri) == Kind.WEB_URL
        and document.content_type is None
    )
