"""The flow's executors: one encodes and ranks, one indexes and searches."""

from __future__ import annotations

import asyncio
import math
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, MutableSequence, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from casdk.server.documents import Place, count, select
from casdk.server.encoders import Encoder
from casdk.server.fetching import REQUEST_SECONDS
from casdk.server.images import ImageReader
from casdk.server.index import Index
from casdk.server.memory import BusyError
from casdk.wire.docarray_pb2 import DocumentProto
from casdk.wire.jina_pb2 import DataRequestProto
from casdk.wire.values import MOST, array_of, plain, put_array, shown

__all__ = ["EncodeExecutor", "Executor", "IndexExecutor", "clip_scores", "on"]

TEMPERATURE = float(np.exp(4.60517))
"""What CLIP multiplies cosines by before the softmax."""
TEXT_TYPE = "text/plain"
DEFAULT_LIMIT = 10
MATCHES = 100_000
"""Documents that one request may ask a search for, over all its queries."""
MATCH_BYTES = 1000
"""What one takes in a reply, beside what was kept of it."""
KEPT_BYTES = 1 << 20
"""Largest document that is indexed, without its image and embedding."""
FOUND_BYTES = 16 << 20
"""Bytes of what was kept of all documents that one request finds."""
COPIES = 4
"""Of them, until a reply is written."""
AT_ONCE = 32
"""Texts or images of a request that are encoded together."""
CHARACTERS = 1 << 16
"""Texts that have as many are encoded without any others."""
TURN_SECONDS = 0.02
"""That a request keeps a thread for, if others wait for one."""
NO_ROW, LOST, BUSY, STUCK = ("!!noemb", "!!drop"), "!!drop", "!!busy", "!!stuck"

T = TypeVar("T")
Documents: TypeAlias = MutableSequence[DocumentProto]
Parameters: TypeAlias = Mapping[str, object]
Row: TypeAlias = NDArray[np.float32]
Work: TypeAlias = Generator[None, None, None]
"""Something to do, which may be left for a while wherever it yields."""


class Executor(Protocol):
    """One stop of a request."""

    name: str

    def serves(self, endpoint: str) -> bool:
        """Whether requests to this endpoint stop here."""
        ...

    def reply_bytes(self, request: DataRequestProto, parameters: Parameters) -> int:
        """Return what it will add to a reply, in memory, beside embeddings."""
        ...

    async def __call__(self, endpoint: str, documents: Documents, parameters: Parameters) -> None:
        """Work on the documents in place; after an exception they are as they came."""


class EncodeExecutor:
    """Gives documents their embeddings, and ranks matches.

    ``/rank`` ranks. Every other endpoint encodes, as clip_server does; ``/encode/{model}`` and ``/rank/{model}``
    encode with that model. A document without content gets no embedding.

    Args:
        encoder: What makes the rows.
        images: What reads the images.
        workers: Threads to encode on.
        threads: How many of them requests may keep that take long.
        indexed: Whether an indexer stands behind, which then answers ``/delete`` and ``/status`` alone.
        chaos: Whether texts that begin with ``!!`` misbehave, for tests: ``!!raise`` raises ``ValueError``,
            ``!!sleep:S`` takes S seconds, ``!!noemb`` gets no embedding, ``!!drop`` is lost, ``!!busy`` never ends on
            its thread, and ``!!stuck`` never ends on the loop, inside C code that keeps the interpreter's lock.
    """

    name = "encoder"

    def __init__(
        self,
        encoder: Encoder,
        images: ImageReader,
        workers: ThreadPoolExecutor,
        *,
        threads: int = 1,
        indexed: bool = False,
        chaos: bool = False,
    ) -> None:
        self._encoder = encoder
        self._images = images
        self._workers = workers
        self._later = asyncio.Semaphore(threads)
        self._passes = ("/delete", "/status") if indexed else ()
        self._chaos = chaos

    def serves(self, endpoint: str) -> bool:
        """Everything, but for what only an indexer can answer."""
        return endpoint not in self._passes

    def reply_bytes(self, request: DataRequestProto, parameters: Parameters) -> int:
        """Nothing: the embeddings are counted for all."""
        return 0

    async def __call__(self, endpoint: str, documents: Documents, parameters: Parameters) -> None:
        """Encode or rank."""
        if self._chaos:
            await _misbehave(select(documents, "@r"))
        is_long = sum(not document.text for document in islice(documents, AT_ONCE)) > 1
        await in_turns(self._workers, self._answer(endpoint, documents, parameters), self._later, is_long=is_long)

    def _encoder_of(self, endpoint: str) -> Encoder:
        verb, _, model = endpoint.strip("/").partition("/")
        return self._encoder.for_model(model) if model and verb in ("encode", "rank") else self._encoder

    def _answer(self, endpoint: str, documents: Documents, parameters: Parameters) -> Work:
        ranks = endpoint == "/rank"
        paths = "@r,m" if ranks else parameters.get("access_paths", parameters.get("traversal_paths", "@r"))
        drop = bool(parameters.get("drop_image_content"))
        places = select(documents, paths)
        rows = yield from self._rows(self._encoder_of(endpoint), places)
        scores = _scores(documents, rows) if ranks else []
        for (_, document), row in zip(places, rows, strict=True):
            if row is not None:
                _put_row(document, row, drop=drop)
        for document, (probabilities, cosines) in zip(documents, scores, strict=bool(scores)):
            _put_scores(document, probabilities, cosines)
        if self._chaos:
            _lose(documents)

    def _rows(self, encoder: Encoder, places: Sequence[Place]) -> Generator[None, None, list[Row | None]]:
        """Return the embedding of each document that has content."""
        if self._chaos and any(each.text == BUSY for _, each in places):
            threading.Event().wait()
        skip = NO_ROW if self._chaos else ()
        texts = [at for at, (_, each) in enumerate(places) if each.text and each.text not in skip]
        images = [
            at
            for at, (_, each) in enumerate(places)
            if not each.text and (each.blob or each.uri or each.WhichOneof("content") == "tensor")
        ]
        rows: list[Row | None] = [None] * len(places)
        for texts_at in _batches_of_texts([(at, len(places[at][1].text)) for at in texts]):
            for at, row in zip(texts_at, encoder.encode_texts([places[at][1].text for at in texts_at]), strict=True):
                rows[at] = row
            yield
        until = time.monotonic() + REQUEST_SECONDS
        for some in _batches(images):
            prepared = []
            for name, document in (places[at] for at in some):
                # One image at a time is decoded, and gone before the next one is.
                with self._images.open(name, document, until) as image:
                    prepared.append(encoder.prepare(image))
                yield
            for at, row in zip(some, encoder.encode_prepared(prepared), strict=True):
                rows[at] = row
        return rows


class IndexExecutor:
    """Keeps documents with their embeddings, and finds the nearest ones.

    ``/index`` inserts or replaces by id, ``/update`` replaces what is there, ``/delete`` removes the documents sent
    and the ids in ``parameters['ids']``, ``/search`` sets the ``matches`` of each document, at most
    ``parameters['limit']`` (10), and ``/status`` answers one document whose tags tell the size.

    Args:
        index: The database; it is used on a thread of its own.
    """

    name = "indexer"

    def __init__(self, index: Index) -> None:
        self._index = index
        self._thread = ThreadPoolExecutor(1, "casdk-index")
        self._later = asyncio.Semaphore(1)
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

    async def __call__(self, endpoint: str, documents: Documents, parameters: Parameters) -> None:
        """Do what the endpoint says."""
        is_long = endpoint == "/search" and len(documents) > 1
        await in_turns(self._thread, self._work(endpoint, documents, parameters), self._later, is_long=is_long)

    def close(self) -> None:
        """Finish what was begun and close the database."""
        self._thread.submit(self._index.close)
        self._thread.shutdown()

    def _work(self, endpoint: str, documents: Documents, parameters: Parameters) -> Work:
        work = self._answers[endpoint](documents, parameters)
        if work is not None:
            yield from work

    def _insert(self, documents: Documents, parameters: Parameters) -> None:
        self._index.put(_entries(documents))

    def _update(self, documents: Documents, parameters: Parameters) -> None:
        known = self._index.known([document.id for document in documents])
        self._index.put(_entries(document for document in documents if document.id in known))

    def _delete(self, documents: Documents, parameters: Parameters) -> None:
        ids = parameters.get("ids", [])
        if not isinstance(ids, list):
            raise ValueError(f"parameter 'ids' is {shown(ids)}; it must be a list of ids")
        self._index.delete([*map(str, ids), *(document.id for document in documents)])

    def reply_bytes(self, request: DataRequestProto, parameters: Parameters) -> int:
        """Return what the matches of a search take at most."""
        limit = parameters.get("limit", DEFAULT_LIMIT)
        if request.header.exec_endpoint != "/search" or not isinstance(limit, (int, float)) or not limit >= 1:
            return 0
        matches = int(min(len(request.data.docs.docs) * min(limit, MATCHES), MATCHES))  # of which inf * 0 is none
        return matches * MATCH_BYTES + COPIES * min(matches * self._index.largest, FOUND_BYTES)

    def _search(self, documents: Documents, parameters: Parameters) -> Work:
        limit = count(parameters, "limit", DEFAULT_LIMIT)
        asked = [document for document in documents if document.HasField("embedding")]
        if len(asked) * limit > MATCHES:
            raise ValueError(
                f"{len(asked)} queries with a limit of {limit} ask for {len(asked) * limit} documents, and one request "
                f"gets {MATCHES}: lower the limit, or send fewer queries at a time"
            )
        left = FOUND_BYTES
        found = []
        for document in asked:
            nearest = self._index.nearest(_row(document), limit, left)
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
        status.tags.update(self._index.status())
        documents.append(status)


def clip_scores(query: Row, candidates: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return CLIP's ranking of candidates ``[C, D]`` for a query ``[D]``: probabilities and cosines, both ``[C]``."""
    cosines = _unit(candidates) @ _unit(query[None])[0]
    exponents = TEMPERATURE * cosines
    weights = np.exp(exponents - exponents.max())
    return weights / weights.sum(), cosines


async def on(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """Run work on a thread, so that the loop stays live.

    Raises:
        BusyError: There is no thread for it: the server ends, or the system gives it none.
    """
    try:
        running = asyncio.get_running_loop().run_in_executor(threads, work)
    except RuntimeError as error:
        raise BusyError(f"no thread takes this: {error}") from None
    try:
        return await running
    finally:
        del running  # what it raises would hold this frame, and with it the request, until garbage is collected


async def in_turns(threads: ThreadPoolExecutor, work: Work, later: asyncio.Semaphore, *, is_long: bool) -> None:
    """Do work on threads, a turn at a time.

    The first turn of what is not known to be long waits for a thread alone. All other turns wait for each other before
    that, so that what is small, and done in one turn, is kept waiting by no number of requests that are not.
    """

    def turn() -> bool:
        until = time.monotonic() + TURN_SECONDS
        return any(time.monotonic() >= until for _ in work)

    unfinished = is_long or await on(threads, turn)
    while unfinished:
        async with later:
            unfinished = await on(threads, turn)


def _batches(positions: Sequence[int]) -> Iterator[Sequence[int]]:
    """Cut what an encoder is given: what it computes on the way is many times larger than the rows it returns."""
    for start in range(0, len(positions), AT_ONCE):
        yield positions[start : start + AT_ONCE]


def _batches_of_texts(sizes: Iterable[tuple[int, int]]) -> Iterator[list[int]]:
    """Likewise; for positions with numbers of characters."""
    some: list[int] = []
    characters = 0
    for at, size in sizes:
        some.append(at)
        characters += size
        if len(some) == AT_ONCE or characters >= CHARACTERS:
            yield some
            some, characters = [], 0
    if some:
        yield some


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
    """Return id, what to keep, and row of each document that has an embedding.

    Raises:
        ValueError: A document would spoil every reply in which it is found.
    """
    entries = []
    for document in documents:
        if document.HasField("embedding"):
            kept = DocumentProto()
            kept.CopyFrom(document)
            for field in ("embedding", "tensor", "blob", "matches", "chunks", "scores", "evaluations"):
                kept.ClearField(field)
            stored, row = kept.SerializeToString(), _row(document)
            if not (np.isfinite(row).all() and _is_finite(kept)):
                raise ValueError(f"document {shown(document.id)} holds a number that is not finite, and is not indexed")
            if len(stored) > KEPT_BYTES:
                raise ValueError(
                    f"document {shown(document.id)} has {len(stored)} bytes beside its image, and the index takes "
                    f"{KEPT_BYTES}"
                )
            entries.append((document.id, stored, row))
    return entries


def _is_finite(document: DocumentProto) -> bool:
    """Return whether JSON has words for all numbers of a document."""
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


async def _misbehave(places: Iterable[Place]) -> None:
    for _, document in places:
        if document.text.startswith("!!raise"):
            raise ValueError(f"boom: {document.text}")
        if document.text.startswith("!!sleep:"):
            await asyncio.sleep(float(document.text.split(":")[1]))
        if document.text == STUCK:
            re.match("(a+)+$", "a" * 100 + "!")


def _lose(documents: Documents) -> None:
    for position in reversed(range(len(documents))):
        if documents[position].text == LOST:
            del documents[position]
