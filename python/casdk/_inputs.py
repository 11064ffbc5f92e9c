r"""What the user handed over -> items with a verdict each.

How a ``str`` is read (the one table; the rule itself runs in Rust, ``rust/core/src/classify.rs``):

===========================================================  =========================================
a string                                                     is
===========================================================  =========================================
``data:...,...`` (RFC 2397)                                  an image: data URI
``http://`` ``https://`` ``file://``, no white space         an image: URL
begins with ``/`` ``./`` ``../`` ``~/`` or a drive ``C:\``     an image: path, if it has no white space
                                                             or a file of that name exists
ends in ``.png .jpg .jpeg .jpe .jfif .gif .webp .bmp .dib    an image: path, under the same condition
.tif .tiff .avif .heic .heif``
anything else                                                a sentence, whatever files lie around
===========================================================  =========================================

``Text(...)`` and ``Image(...)`` override it; ``os.PathLike`` and ``bytes`` are always images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, Final

import numpy as np

from casdk._columns import column_of
from casdk._foreign import recognise
from casdk._rust import classify
from casdk.documents import Document
from casdk.errors import (
    EmptyItemError,
    FileMissingError,
    InputTypeError,
    ItemError,
    ItemTypeError,
    NotAnImageError,
)
from casdk.models import Image, Text

__all__ = ["Chunk", "advise", "are_texts", "as_document", "check_content", "read_chunk", "urls_of"]

UNKNOWN: Final = ord("?")
URL: Final = ord("U")
DOCUMENT: Final = ord("O")
SINGLE: Final = (str, bytes, bytearray, memoryview, os.PathLike, Text, Image, Document)
LONGEST_SHOWN: Final = 60
CHANNELS: Final = (1, 3, 4)
"""Grey, RGB and RGBA: what image servers accept in ``[H, W, C]``."""


class Chunk:
    """Items of one batch, ready to pack.

    Attributes:
        items: What `casdk._rust.Packer` takes.
        verdicts: One byte per item.
        errors: Items that cannot be sent, by their position; their place in ``items`` is taken by ``""``, which
            packs to nothing.
    """

    __slots__ = ("errors", "items", "verdicts")

    def __init__(self, items: list[Any], verdicts: bytes, errors: dict[int, ItemError] | None = None) -> None:
        self.items = items
        self.verdicts = verdicts
        self.errors = errors


def check_content(content: Any) -> Any:
    """Refuse at once what is one item where an iterable of items belongs; return what to read items from.

    Returns:
        The content itself; a `Column` for a column of pandas, polars or Arrow.

    Raises:
        InputTypeError: With the call that was probably meant.
    """
    if type(content) is list:
        return content
    if isinstance(content, SINGLE) or type(content).__module__.startswith("PIL.") or recognise(content):
        shown = repr(content) if len(repr(content)) <= 60 else type(content).__name__
        raise InputTypeError(f"content must be an iterable of items, not one item: write [{shown}]")
    if isinstance(content, Mapping):
        raise InputTypeError("content must be an iterable of items, not a mapping: choose .keys() or .values()")
    dimensions = getattr(content, "ndim", None)
    if dimensions == 0:
        raise InputTypeError("content must be an iterable of items, not an array without dimensions")
    if dimensions == 3 and str(content.dtype).endswith("uint8"):  # NumPy's, or torch's
        raise InputTypeError("content looks like one image [H, W, C]: write [image]")
    if (column := column_of(content)) is not None:
        return column
    if not hasattr(content, "__iter__") and not hasattr(content, "__aiter__"):
        raise InputTypeError(f"content must be an iterable of items, not {type(content).__name__}")
    return content


def are_texts(items: list[Any]) -> bool:
    """Whether these are plain sentences, all of them."""
    return not classify(items).strip(b"T")


def read_chunk(
    items: list[Any], indices: Sequence[int], *, candidates: str | None = None, whole: bool = False
) -> Chunk:
    """Give each item its verdict.

    Args:
        items: As the user gave them.
        indices: Of each, for errors.
        candidates: Attribute of docarray's documents whose documents travel too.
        whole: Take all of docarray's documents, their tags too, not the content only.
    """
    verdicts = classify(items)
    if UNKNOWN not in verdicts:
        return Chunk(items, verdicts)
    read, marks, errors = list(items), bytearray(verdicts), {}
    for position, verdict in enumerate(verdicts):
        if verdict != UNKNOWN:
            continue
        try:
            item = items[position]
            if recognise(item):
                mark, read[position] = "O", _as_ours(item, candidates, whole)
            else:
                mark, read[position] = _look(item)
            marks[position] = ord(mark)
        except _UnfitError as unfit:
            errors[position] = unfit.kind(indices[position], items[position], str(unfit), unfit.__cause__)
            read[position], marks[position] = "", ord("T")
    return Chunk(read, bytes(marks), errors)


class _UnfitError(Exception):
    def __init__(self, reason: str, kind: type[ItemError] = ItemTypeError) -> None:
        super().__init__(reason)
        self.kind = kind


def _as_ours(item: object, candidates: str | None, whole: bool) -> Document:
    from casdk.interop.docarray import to_document

    try:
        return to_document(item, candidates=candidates, whole=whole)
    except InputTypeError as error:
        raise _UnfitError(str(error)) from error


def _look(item: object) -> tuple[str, object]:
    if isinstance(item, Text):
        return "T", item.text
    if isinstance(item, Image):
        return _look_at_image(item.source)
    if isinstance(item, str):
        plain = str.__str__(item)  # an Enum's own str() is its name
        return chr(classify([plain])[0]), plain
    if item is None:
        raise _UnfitError("is None (null): fill it, leave it out, or give errors='skip' or 'return'", EmptyItemError)
    return _look_at_image(item)


def _look_at_image(source: object) -> tuple[str, object]:
    if isinstance(source, str):
        verdict = chr(classify([source])[0])
        return ("P" if verdict == "T" else verdict), source
    if isinstance(source, os.PathLike):
        return "P", os.fsdecode(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return "B", bytes(source)
    if type(source).__module__.startswith("PIL."):
        return "B", _png(source)
    if hasattr(source, "__array__") or hasattr(source, "__array_interface__"):
        return "N", _tensor(_as_array(source))
    raise _UnfitError(
        f"a {type(source).__name__} cannot be encoded: give str, PathLike, bytes, ndarray [H, W, C] uint8, "
        "PIL.Image, Text, Image or Document"
    )


def _as_array(source: Any) -> np.ndarray[Any, Any]:
    """Read any array by NumPy's protocol; torch's are taken off their device and their graph first."""
    try:
        if hasattr(source, "detach"):
            source = source.detach().cpu()
        return np.asarray(source)
    except Exception as error:
        raise _UnfitError(f"the {type(source).__name__} cannot be read as an array: {error}") from error


def _tensor(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
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
    return np.ascontiguousarray(array)


def _png(image: Any) -> bytes:
    """Pixels as they are: PNG is lossless, and servers would turn a tensor into PNG anyway."""
    buffer = BytesIO()
    try:
        image.save(buffer, format="PNG", compress_level=1)
    except (OSError, ValueError) as error:
        raise _UnfitError(f"the PIL image cannot be written as PNG: {error}") from error
    return buffer.getvalue()


def advise(error: ItemError) -> None:
    """Have the error of an item, as the caller gave it, say how a sentence is told from a path, if it may be one."""
    item = error.item
    if type(item) is str and isinstance(error, FileMissingError | NotAnImageError) and classify([item]) == b"P":
        shown = item if len(item) <= LONGEST_SHOWN else f"{item[:LONGEST_SHOWN]}..."
        advice = error.reason.partition("; give check_images=False")[0]
        error.reason = f'{advice}; if it is a sentence, write Text("{shown}")'


def as_document(item: Any, verdict: str) -> Document:
    """Return the Document of a read item, for the verbs whose answers are Documents; Documents pass as they are."""
    return _DOCUMENTS[verdict](item)


_DOCUMENTS: Final[dict[str, Callable[[Any], Document]]] = {
    "T": lambda text: Document(text=text),
    "P": lambda path: Document(uri=path),
    "D": lambda uri: Document(uri=uri),
    "F": lambda uri: Document(uri=uri),
    "U": lambda uri: Document(uri=uri),
    "B": lambda blob: Document(blob=blob),
    "N": lambda tensor: Document(tensor=tensor),
    "O": lambda document: document,
}


def urls_of(items: Sequence[Any], verdicts: bytes, candidates: str | None) -> list[str]:
    """Return the http(s) URLs whose images have to be fetched before these items can be packed."""
    if URL not in verdicts and DOCUMENT not in verdicts:
        return []
    urls: dict[str, None] = {}
    for item, verdict in zip(items, verdicts, strict=True):
        if verdict == URL:
            urls[item] = None
        elif verdict == DOCUMENT:
            for document in (item, *(getattr(item, candidates) if candidates else ())):
                if _is_fetched(document):
                    urls[document.uri] = None
    return list(urls)


def _is_fetched(document: Document) -> bool:
    return (
        isinstance(document.uri, str)  # the packer says what is wrong with another
        and document.uri[:8].lower().startswith(("http://", "https://"))
        and not document.text
        and not document.blob
        and document.tensor is None
    )
