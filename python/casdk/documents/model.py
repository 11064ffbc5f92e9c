"""`Document` and `DocumentArray`: items that have an id and tags, and results that have more than an array of rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from glob import iglob
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, SupportsIndex, overload

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from casdk._rust import new_id
from casdk.documents import archive, docarray, selectors
from casdk.documents.fields import SHOWN_CHARACTERS, NamedScore, same, shown
from casdk.documents.loading import DOWNLOAD_BYTES, read_pixels, read_uri

__all__ = ["Document", "DocumentArray"]


class DocumentArray(list["Document"]):
    """A list of `Document`, with columns.

    What the brackets understand besides what a list does:

    | brackets | give |
    |---|---|
    | ``da['9f3c...']`` | the document of that id |
    | ``da[2:5]`` ``da[[0, 2]]`` | documents by position, as a `DocumentArray` |
    | ``da[['id1', 'id2']]`` | documents by id |
    | ``da[mask]`` | documents by a mask: list of bools or array ``[N]`` |
    | ``da['@m']`` ``da['@r,c']`` | matches of all documents; the documents themselves, then their chunks |
    | ``da['@mm[:2]']`` | the first two matches of each match |
    | ``da[...]`` | every document, nested ones before the one they are in |
    | ``da[:, 'text']`` | a column, as a list; ``embedding`` and ``tensor`` as one array ``[N, ...]`` |
    | ``da[:, ['id', 'tags__colour']]`` | one list per column |
    | ``da['@m', 'scores__cosine']`` | columns of any of the choices above |

    A column of anything can be assigned: ``da[:, 'text'] = [...]``, or one value for all.

    Args:
        documents: A `Document`, or any iterable of them.

    Raises:
        TypeError: An element is not a Document.
    """

    __slots__ = ()

    def __init__(self, documents: Iterable[Document] | Document = ()) -> None:
        super().__init__((documents,) if isinstance(documents, Document) else documents)
        # The types of all at once, since checking one document after the other takes three times as long.
        if not isinstance(documents, DocumentArray) and not {Document}.issuperset(map(type, self)):
            for position, document in enumerate(self):
                _require_document(document, position)

    # a list of Documents only

    def append(self, document: Document) -> None:
        """Add one document."""
        super().append(_require_document(document))

    def insert(self, position: SupportsIndex, document: Document) -> None:
        """Add one document before a position."""
        super().insert(position, _require_document(document))

    def extend(self, documents: Iterable[Document]) -> None:
        """Add documents."""
        super().extend(DocumentArray(documents))

    def copy(self) -> DocumentArray:
        """Return another array of the same documents."""
        return DocumentArray(self)

    def __add__(self, documents: Iterable[Document]) -> DocumentArray:  # type: ignore[override]
        both = self.copy()
        both.extend(documents)
        return both

    def __iadd__(self, documents: Iterable[Document]) -> Self:  # type: ignore[override]
        self.extend(documents)
        return self

    def __mul__(self, times: SupportsIndex) -> DocumentArray:
        return DocumentArray(super().__mul__(times))

    def __rmul__(self, times: SupportsIndex) -> DocumentArray:
        return self * times

    def __contains__(self, wanted: object) -> bool:
        """Whether a document, or a document of this id, is in the array."""
        if isinstance(wanted, str):
            return any(document.id == wanted for document in self)
        return super().__contains__(wanted)

    def __repr__(self) -> str:
        return f"<DocumentArray of {len(self)} Document{'s' * (len(self) != 1)}>"

    # brackets

    # `list` takes anything with __index__ as one position; arrays have that, too, but are masks here
    @overload  # type: ignore[override]
    def __getitem__(self, index: int | np.integer[Any], /) -> Document: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | NDArray[Any], /) -> DocumentArray: ...
    @overload
    def __getitem__(self, index: Any, /) -> Any: ...
    def __getitem__(self, index: Any, /) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        if selectors.is_position(index):
            return super().__getitem__(index)
        return selectors.select(self, index)

    def __setitem__(self, index: Any, value: Any, /) -> None:
        if selectors.is_position(index):
            super().__setitem__(index, _require_document(value))
        elif isinstance(index, slice):
            super().__setitem__(index, DocumentArray(value))
        else:
            selectors.assign(self, index, value)

    def __delitem__(self, index: Any, /) -> None:
        if selectors.is_position(index) or isinstance(index, slice):
            super().__delitem__(index)
        else:
            for position in sorted(set(selectors.positions(self, index)), reverse=True):
                super().__delitem__(position)

    # columns by name

    @property
    def embeddings(self) -> NDArray[Any] | None:
        """All embeddings, ``[N, D]``: no copy when they are rows of one matrix, as they are after ``encode``.

        ``None`` if no document has one; ``[0, 0]`` for an empty array. Set it to a matrix ``[N, D]``, or to
        ``None`` to remove them.

        Raises:
            ValueError: Some documents have one and some have none, or their widths differ.
        """
        return selectors.stack(self, "embedding")

    @embeddings.setter
    def embeddings(self, rows: ArrayLike | None) -> None:
        selectors.write_column(self, "embedding", None if rows is None else np.asarray(rows))

    @property
    def tensors(self) -> NDArray[Any] | None:
        """All tensors as one array ``[N, ...]``; see `embeddings`."""
        return selectors.stack(self, "tensor")

    @tensors.setter
    def tensors(self, values: Sequence[NDArray[Any]] | NDArray[Any] | None) -> None:
        selectors.write_column(self, "tensor", values)

    @property
    def texts(self) -> list[str]:
        """All texts; ``''`` for a document without one."""
        return [document.text for document in self]

    @texts.setter
    def texts(self, values: Sequence[str] | None) -> None:
        selectors.write_column(self, "text", "" if values is None else list(values))

    @property
    def uris(self) -> list[str]:
        """All URIs; ``''`` for a document without one."""
        return [document.uri for document in self]

    @uris.setter
    def uris(self, values: Sequence[str] | None) -> None:
        selectors.write_column(self, "uri", "" if values is None else list(values))

    @property
    def blobs(self) -> list[bytes]:
        """All blobs; ``b''`` for a document without one."""
        return [document.blob for document in self]

    @blobs.setter
    def blobs(self, values: Sequence[bytes] | None) -> None:
        selectors.write_column(self, "blob", b"" if values is None else list(values))

    @property
    def contents(self) -> list[str | bytes | NDArray[Any] | None]:
        """Each document's `Document.content`."""
        return [document.content for document in self]

    def summary(self) -> None:
        """Print two tables: which attributes the documents have, and the values of each attribute."""
        from casdk.documents.summary import show

        show(self)

    # in and out

    @classmethod
    def from_files(cls, patterns: str | Sequence[str], *, recursive: bool = True, size: int | None = None) -> Self:
        """Return one document per file, with its path as ``uri``; the files are not read.

        Args:
            patterns: One glob or several, e.g. ``'images/**/*.png'``; ``~`` is expanded.
            recursive: Whether ``**`` crosses directories.
            size: The most files.

        Returns:
            The documents in the order of the patterns, those of a pattern in the order of their paths.
        """
        found: list[Document] = []
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            paths = sorted(iglob(os.path.expanduser(pattern), recursive=recursive))
            found += [Document(uri=path) for path in paths if not os.path.isdir(path)]
        return cls(found[:size])

    def to_list(self) -> list[dict[str, Any]]:
        """Return `Document.to_dict` of each document."""
        return [document.to_dict() for document in self]

    @classmethod
    def from_list(cls, documents: Iterable[dict[str, Any]]) -> Self:
        """Return the documents that `to_list` wrote."""
        return cls(Document.from_dict(document) for document in documents)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all documents to one file (msgpack); after an error, a file of this name is unchanged.

        Raises:
            OSError: The file cannot be written.
        """
        archive.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises:
            ValueError: `save` did not write this file, or it is broken, or of a later version.
            OSError: The file cannot be read.
        """
        return cls(archive.load(path, DocumentArray, _decode))

    def to_docarray(self) -> Any:
        """Return a ``docarray.DocumentArray`` (docarray 0.21) of copies.

        Raises:
            ImportError: docarray is missing, or is not of that version.
        """
        return docarray.to_docarray(self)

    @classmethod
    def from_docarray(cls, documents: Iterable[Any]) -> Self:
        """Return copies of docarray's documents: 0.21 ``DocumentArray``, or ``DocList`` and ``BaseDoc`` of 0.30 on."""
        return cls(docarray.to_document(Document, document, whole=True) for document in documents)


def _require_document(document: object, position: int | None = None) -> Document:
    if isinstance(document, Document):
        return document
    at = "" if position is None else f"item {position}: "
    hint = f", write Document(text={document[:SHOWN_CHARACTERS]!r})" if isinstance(document, str) else ""
    raise TypeError(f"{at}a DocumentArray holds Documents, not {type(document).__name__}{hint}")


class Document(msgspec.Struct, kw_only=True, eq=False, omit_defaults=True):
    """One text or image, with its embedding, matches, scores and tags.

    Text, blob, tensor and uri may be set at the same time: setting one does not clear the others. The first one of them
    that is set, in this order, is sent.

    Attributes:
        id: Unique name; 32 random hex characters by default.
        text: The sentence.
        uri: Path or URL of the image, or a data URI.
        blob: The image file's bytes.
        tensor: The image's pixels, ``[H, W, C]`` uint8.
        embedding: The embedding from the server, ``[D]`` float32.
        matches: Candidates to rank, or the results of a search; any iterable of Documents may be assigned.
        chunks: Parts of this document; any iterable of Documents may be assigned.
        scores: Scores by name, in a plain dict, so a missing name is a ``KeyError``.
        evaluations: Evaluations by name.
        tags: Data of the program; values that JSON can express are sent.
        mime_type: Media type.
        parent_id: Id of the document this one is a chunk of.
        granularity: Depth among chunks.
        adjacency: Depth among matches.
        weight: Importance.
        offset: Where a chunk begins in its parent.
        location: Where a chunk is in its parent.
        modality: Kind of content.
    """

    id: str = msgspec.field(default_factory=new_id)
    text: str = ""
    uri: str = ""
    blob: bytes = b""
    tensor: NDArray[Any] | None = None
    embedding: NDArray[Any] | None = None
    if not TYPE_CHECKING:
        matches: DocumentArray = msgspec.field(default_factory=partial(DocumentArray.__new__, DocumentArray))
        chunks: DocumentArray = msgspec.field(default_factory=partial(DocumentArray.__new__, DocumentArray))
    scores: dict[str, NamedScore] = {}
    evaluations: dict[str, NamedScore] = {}
    tags: dict[str, Any] = {}
    mime_type: str = ""
    parent_id: str = ""
    granularity: int = 0
    adjacency: int = 0
    weight: float = 0.0
    offset: float = 0.0
    location: list[float] = []
    modality: str = ""

    if TYPE_CHECKING:  # for type checkers: nested documents may be assigned from any iterable

        def __init__(
            self,
            *,
            id: str = ...,
            text: str = "",
            uri: str = "",
            blob: bytes = b"",
            tensor: NDArray[Any] | None = None,
            embedding: NDArray[Any] | None = None,
            matches: Iterable[Document] | Document = (),
            chunks: Iterable[Document] | Document = (),
            scores: dict[str, NamedScore] = ...,
            evaluations: dict[str, NamedScore] = ...,
            tags: dict[str, Any] = ...,
            mime_type: str = "",
            parent_id: str = "",
            granularity: int = 0,
            adjacency: int = 0,
            weight: float = 0.0,
            offset: float = 0.0,
            location: list[float] = ...,
            modality: str = "",
        ) -> None: ...
        @property
        def matches(self) -> DocumentArray:
            """Candidates to rank, or the results of a search."""
            ...

        @matches.setter
        def matches(self, nested: Iterable[Document] | Document) -> None: ...
        @property
        def chunks(self) -> DocumentArray:
            """Parts of this document."""
            ...

        @chunks.setter
        def chunks(self, nested: Iterable[Document] | Document) -> None: ...

    def __post_init__(self) -> None:
        # Assigning makes a DocumentArray of any iterable: the setters below do (`_take_any_iterable`).
        if type(self.matches) is not DocumentArray:
            self.matches = self.matches
        if type(self.chunks) is not DocumentArray:
            self.chunks = self.chunks

    @property
    def content_type(self) -> Literal["text", "blob", "tensor"] | None:
        """The name of the first of text, blob and tensor that is set."""
        return "text" if self.text else "blob" if self.blob else "tensor" if self.tensor is not None else None

    @property
    def content(self) -> str | bytes | NDArray[Any] | None:
        """The first of text, blob and tensor that is set. Setting it sets the field of the value's type."""
        kind = self.content_type
        return None if kind is None else getattr(self, kind)

    @content.setter
    def content(self, value: str | bytes | NDArray[Any]) -> None:
        if isinstance(value, str):
            self.text = value
        elif isinstance(value, bytes):
            self.blob = value
        else:
            self.tensor = np.asarray(value)

    def load_uri_to_blob(self, *, timeout: float = 30.0, max_bytes: int = DOWNLOAD_BYTES) -> Self:
        """Read the file or URL of ``uri`` into ``blob``.

        Args:
            timeout: Seconds without a byte after which a download fails.
            max_bytes: Most bytes that are read or downloaded (64 MiB).

        Returns:
            This document.

        Raises:
            ValueError: There is no uri, or it is a broken data URI, or a URL with white space in it.
            OSError: The file cannot be read, or is not a regular one; the URL cannot be fetched; or there are more than
                ``max_bytes``.
        """
        self.blob = read_uri(self.uri, timeout, max_bytes)
        return self

    def load_uri_to_image_tensor(
        self,
        width: int | None = None,
        height: int | None = None,
        *,
        timeout: float = 30.0,
        max_bytes: int = DOWNLOAD_BYTES,
    ) -> Self:
        """Read the image of ``uri`` into ``tensor``, ``[H, W, 3]`` uint8 (RGB).

        Args:
            width: Width in pixels to scale to; the image's own width by default.
            height: Height in pixels to scale to; the image's own height by default.
            timeout: Seconds without a byte after which a download fails.
            max_bytes: Most bytes that are read or downloaded (64 MiB).

        Returns:
            This document.

        Raises:
            ImportError: Pillow is missing: ``pip install 'casdk[image]'``.
            ValueError: There is no uri, or a broken data URI; or it does not lead to an image, or to one of more pixels
                than ``PIL.Image.MAX_IMAGE_PIXELS``.
            OSError: The file cannot be read, or the URL cannot be fetched.
        """
        self.tensor = read_pixels(read_uri(self.uri, timeout, max_bytes), width, height)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are set as dicts, lists, strings and numbers, as in JSON; blobs are base64."""
        plain: dict[str, Any] = msgspec.to_builtins(self, enc_hook=archive.encode)
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """Return the document that `to_dict` wrote.

        Raises:
            ValueError: A value has the wrong type; the message names its path.
        """
        return msgspec.convert(plain, cls, dec_hook=_decode)

    def to_json(self) -> str:
        """Return the fields that are set as JSON: bytes as base64, and arrays as ``{"dtype", "shape", "data"}``.

        JSON has no infinite numbers: outside arrays they become ``null``.

        Raises:
            TypeError: A value cannot be written.
        """
        return msgspec.json.encode(self, enc_hook=archive.encode).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the document that `to_json` wrote.

        Raises:
            ValueError: This is not JSON, or a value has the wrong type; the message names its path.
        """
        return msgspec.json.decode(text, type=cls, dec_hook=_decode)

    def __eq__(self, other: object) -> bool:
        """Whether all fields are equal; arrays by dtype, shape and values."""
        if not isinstance(other, Document):
            return NotImplemented
        return self is other or all(same(getattr(self, name), getattr(other, name)) for name in self.__struct_fields__)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # it is mutable

    def __repr__(self) -> str:
        parts = [f"id={self.id!r}"]
        for name in self.__struct_fields__[1:]:
            value = getattr(self, name)
            if value is not None and (isinstance(value, np.ndarray) or value):
                parts.append(f"{name}={shown(value)}")
        return f"Document({', '.join(parts)})"


def _take_any_iterable(name: str) -> None:
    """Let a field take any iterable of Documents, by a property in place of msgspec's slot.

    Reading stays as fast as before, since the property's getter is the slot's own, in C.
    """
    slot = getattr(Document, name)

    def assign(document: Document, nested: Iterable[Document] | Document) -> None:
        slot.__set__(document, nested if isinstance(nested, DocumentArray) else DocumentArray(nested))

    setattr(Document, name, property(slot.__get__, assign, doc=slot.__doc__))


_take_any_iterable("matches")
_take_any_iterable("chunks")


def _decode(kind: Any, value: Any) -> Any:
    """Return the array, or array of documents, that `archive.encode` and msgspec wrote; a ``dec_hook`` for msgspec."""
    if kind is DocumentArray:
        return DocumentArray(archive.convert(value, list[Document], _decode))
    return archive.decode(value)
