"""What encode, rank, index and search do to the documents of a request.

The executors of the embedded server and of ``casdk.testing`` share these functions. They get rows and a store passed
in; there are no threads, files or images here.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping, MutableSequence, Sequence
from itertools import islice
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from casdk.server.documents import Place, count, select
from casdk.wire.docarray_pb2 import DocumentProto
from casdk.wire.jina_pb2 import DataRequestProto, StatusProto
from casdk.wire.values import MOST, array_of, plain, put_array, shown

__all__ = [
    "NO_ROW",
    "Documents",
    "Indexing",
    "Parameters",
    "Row",
    "Store",
    "Work",
    "cosines_of",
    "encode",
    "failure",
    "lose",
]

TEMPERATURE = float(np.exp(4.60517))
"""The factor of cosines before the softmax, as in CLIP."""
TEXT_TYPE = "text/plain"
DEFAULT_LIMIT = 10
MOST_MATCHES = 100_000
"""Documents that one search request may ask for, over all its queries."""
MATCH_BYTES = 1000
"""Memory of one match in a reply, beside the stored document."""
ENTRY_BYTES = 1 << 20
"""Largest document that is indexed, without its image and embedding."""
FOUND_BYTES = 16 << 20
"""Stored bytes of all documents that one request may find."""
COPIES = 4
"""Copies of the stored bytes that are in memory until the reply is written."""
ERROR_CHARACTERS = 1000
"""Characters of each part of an error, which may repeat a large part of the request."""
LOST = "!!drop"
NO_ROW = ("!!noemb", LOST)
"""Texts that get no embedding where texts may misbehave, for tests."""

Documents: TypeAlias = MutableSequence[DocumentProto]
Parameters: TypeAlias = Mapping[str, object]
Row: TypeAlias = NDArray[np.float32]
Work: TypeAlias = Generator[None, None, None]
"""Work that may be interrupted wherever it yields."""
RowsOf: TypeAlias = Callable[[Sequence[Place]], Generator[None, None, list[Row | None]]]
"""Makes the embedding of each document, ``None`` for one without content."""


class Store(Protocol):
    """Keeps documents by id, with one row each."""

    @property
    def largest(self) -> int:
        """Bytes of the largest document that was stored."""
        ...

    def put(self, entries: Iterable[tuple[str, bytes, Row]]) -> None:
        """Insert or replace documents: id, bytes to store and row ``[D]`` of each; after an error, none is stored."""
        ...

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that are there."""
        ...

    def delete(self, ids: Iterable[str]) -> None:
        """Remove documents; an unknown id is no error."""
        ...

    def nearest(self, row: Row, limit: int, most: int) -> list[tuple[bytes, float]]:
        """Return the stored bytes of the nearest, at most ``most`` in all, and their cosine distances, ascending."""
        ...

    def status(self) -> dict[str, str | float]:
        """Return how many documents there are and where."""
        ...


def encode(endpoint: str, documents: Documents, parameters: Parameters, rows_of: RowsOf) -> Work:
    """Give documents their embeddings; at ``/rank``, rank their matches.

    After an exception the documents are as they came.

    Raises:
        ValueError: There is nothing to rank, or the access path means nothing.
    """
    ranks = endpoint == "/rank"
    paths = "@r,m" if ranks else parameters.get("access_paths", parameters.get("traversal_paths", "@r"))
    drop = bool(parameters.get("drop_image_content"))
    places = select(documents, paths)
    rows = yield from rows_of(places)
    scores = _scores(documents, rows) if ranks else []
    for (_, document), row in zip(places, rows, strict=True):
        if row is not None:
            _put_row(document, row, drop=drop)
    for document, (probabilities, cosines) in zip(documents, scores, strict=bool(scores)):
        _put_scores(document, probabilities, cosines)


def lose(documents: Documents) -> None:
    """Remove the documents whose text asks for it, which is for tests."""
    for position in reversed(range(len(documents))):
        if documents[position].text == LOST:
            del documents[position]


class Indexing:
    """Keeps documents with their embeddings, and finds the nearest ones.

    ``/index`` inserts or replaces by id, ``/update`` replaces what is there, ``/delete`` removes the documents sent
    and the ids in ``parameters['ids']``, ``/search`` sets the ``matches`` of each document, at most
    ``parameters['limit']`` (10), and ``/status`` answers one document with the size in its tags.

    Args:
        store: Stores the documents.
    """

    ALONE: tuple[str, ...] = ("/delete", "/status")
    """Of its endpoints, those whose documents need no embedding."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._answers: dict[str, Callable[[Documents, Parameters], Work | None]] = {
            "/index": self._insert,
            "/update": self._update,
            "/delete": self._delete,
            "/search": self._search,
            "/status": self._status,
        }

    def serves(self, endpoint: str) -> bool:
        """The five endpoints."""
        return endpoint in self._answers

    def work(self, endpoint: str, documents: Documents, parameters: Parameters) -> Work:
        """Do what the endpoint says."""
        work = self._answers[endpoint](documents, parameters)
        if work is not None:
            yield from work

    def reply_bytes(self, request: DataRequestProto, parameters: Parameters) -> int:
        """Return the most bytes that the matches of a search take in memory."""
        limit = parameters.get("limit", DEFAULT_LIMIT)
        if request.header.exec_endpoint != "/search" or not isinstance(limit, (int, float)) or not limit >= 1:
            return 0
        # The limit is capped before the product, because infinity times 0 is not a number.
        matches = int(min(len(request.data.docs.docs) * min(limit, MOST_MATCHES), MOST_MATCHES))
        return matches * MATCH_BYTES + COPIES * min(matches * self._store.largest, FOUND_BYTES)

    def _insert(self, documents: Documents, parameters: Parameters) -> None:
        self._store.put(_entries(documents))

    def _update(self, documents: Documents, parameters: Parameters) -> None:
        known = self._store.known([document.id for document in documents])
        self._store.put(_entries(document for document in documents if document.id in known))

    def _delete(self, documents: Documents, parameters: Parameters) -> None:
        ids = parameters.get("ids", [])
        if not isinstance(ids, list):
            raise ValueError(f"parameter 'ids' is {shown(ids)}; it must be a list of ids")
        self._store.delete([*map(str, ids), *(document.id for document in documents)])

    def _search(self, documents: Documents, parameters: Parameters) -> Work:
        limit = count(parameters, "limit", DEFAULT_LIMIT)
        asked = [document for document in documents if document.HasField("embedding")]
        if len(asked) * limit > MOST_MATCHES:
            raise ValueError(
                f"{len(asked)} queries with a limit of {limit} ask for {len(asked) * limit} documents, and one request "
                f"gets {MOST_MATCHES}: lower the limit, or send fewer queries at a time"
            )
        left = FOUND_BYTES
        found = []
        for document in asked:
            nearest = self._store.nearest(_row(document), limit, left)
            left -= sum(len(stored) for stored, _ in nearest)
            found.append(nearest)
            yield
        for document, matches in zip(asked, found, strict=True):
            del document.matches[:]
            for stored, distance in matches:
                match = document.matches.add()
                match.ParseFromString(stored)
                match.adjacency = min(document.adjacency + 1, MOST)
                match.scores["cosine"].value = distance

    def _status(self, documents: Documents, parameters: Parameters) -> None:
        del documents[:]
        status = DocumentProto(id="status")
        status.tags.update(self._store.status())
        documents.append(status)


def failure(error: Exception, executor: str) -> StatusProto:
    """Return the status for an exception, with long texts cut."""
    return StatusProto(
        code=StatusProto.ERROR,
        description=repr(error)[:ERROR_CHARACTERS],
        exception=StatusProto.ExceptionProto(
            name=type(error).__name__,
            args=[str(argument)[:ERROR_CHARACTERS] for argument in error.args],
            stacks=[line[:ERROR_CHARACTERS] for line in traceback.format_exception(error)],
            executor=executor,
        ),
    )


def clip_scores(query: Row, candidates: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return CLIP's ranking of candidates ``[C, D]`` for a query ``[D]``: probabilities and cosines, both ``[C]``."""
    cosines = cosines_of(query, candidates)
    exponents = TEMPERATURE * cosines
    weights = np.exp(exponents - exponents.max())
    return weights / weights.sum(), cosines


def cosines_of(query: Row, candidates: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosines ``[C]`` of candidates ``[C, D]`` and a query ``[D]``; with a row of zeros they are 0."""
    cosines: NDArray[np.float64] = _unit(candidates) @ _unit(query[None])[0]
    return cosines


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    unit: NDArray[np.float64] = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return unit


def _scores(documents: Documents, rows: Sequence[Row | None]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return the scores of each document's matches; ``rows`` are those of all roots, then of their matches."""
    candidates = iter(rows[len(documents) :])
    scores = []
    for position, (document, query) in enumerate(zip(documents, rows, strict=False)):
        group = list(islice(candidates, len(document.matches)))
        if query is None:
            raise ValueError(f"document {position} has no content to rank by")
        if not group:
            raise ValueError(f"document {position} has no matches to rank")
        if None in (missing := {at: row for at, row in enumerate(group) if row is None}).values():
            raise ValueError(f"document {position}, match {min(missing)} has no content to rank")
        scores.append(clip_scores(query, np.stack([row for row in group if row is not None])))
    return scores


def _put_row(document: DocumentProto, row: Row, *, drop: bool) -> None:
    put_array(document.embedding, row)
    if document.text:
        document.mime_type = TEXT_TYPE
    elif drop:
        document.ClearField("content")


def _put_scores(document: DocumentProto, probabilities: Iterable[float], cosines: Iterable[float]) -> None:
    for match, probability, cosine in zip(document.matches, probabilities, cosines, strict=True):
        match.ClearField("embedding")
        match.scores["clip_score"].value = probability
        match.scores["clip_score"].op_name = "softmax"
        match.scores["clip_score_cosine"].value = cosine
        match.scores["clip_score_cosine"].op_name = "cosine"
    document.matches.sort(key=lambda match: match.scores["clip_score"].value, reverse=True)


def _entries(documents: Iterable[DocumentProto]) -> list[tuple[str, bytes, Row]]:
    """Return the id, the bytes to store and the row of each document that has an embedding.

    Raises:
        ValueError: A document has a number that JSON cannot write, so each reply with it would fail.
    """
    entries = []
    for document in documents:
        if document.HasField("embedding"):
            entry = DocumentProto()
            entry.CopyFrom(document)
            for field in ("embedding", "tensor", "blob", "matches", "chunks", "scores", "evaluations"):
                entry.ClearField(field)
            stored, row = entry.SerializeToString(), _row(document)
            if not (np.isfinite(row).all() and _is_finite(entry)):
                raise ValueError(f"document {shown(document.id)} holds a number that is not finite, and is not indexed")
            if len(stored) > ENTRY_BYTES:
                raise ValueError(
                    f"document {shown(document.id)} has {len(stored)} bytes beside its image, and the index takes "
                    f"{ENTRY_BYTES}"
                )
            entries.append((document.id, stored, row))
    return entries


def _is_finite(document: DocumentProto) -> bool:
    """Whether all numbers of a document are finite, since JSON cannot write others."""
    numbers = (document.weight, document.offset, *document.location)
    return all(map(math.isfinite, numbers)) and _is_finite_value(plain(document.tags))


def _is_finite_value(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_finite_value, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite_value, value))
    return not isinstance(value, float) or math.isfinite(value)


def _row(document: DocumentProto) -> Row:
    with np.errstate(over="ignore"):  # what is infinite then is seen to
        return array_of(document.embedding).astype(np.float32, copy=False).ravel()
