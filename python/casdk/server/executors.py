"""The two executors of the server's flow: one encodes and ranks, one indexes and searches.

`gateway.py` makes them, and the `Dispatcher` calls them. They run their work on threads, in turns.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Protocol, TypeVar

from casdk.server.answers import NO_ROW, Documents, Indexing, Parameters, Row, Work, encode, lose
from casdk.server.documents import Place, select
from casdk.server.encoders import Encoder
from casdk.server.fetching import REQUEST_SECONDS
from casdk.server.images import ImageReader
from casdk.server.index import Index
from casdk.server.memory import BusyError
from casdk.wire.jina_pb2 import DataRequestProto

__all__ = ["EncodeExecutor", "Executor", "IndexExecutor", "on"]

ITEMS_AT_ONCE = 32
"""Texts or images of a request that are encoded together."""
BATCH_CHARACTERS = 1 << 16
"""Characters of the texts that are encoded together; a text with as many is encoded alone."""
TURN_SECONDS = 0.02
"""Time that a request keeps a thread while others wait for one."""
BUSY, STUCK = "!!busy", "!!stuck"

T = TypeVar("T")


class Executor(Protocol):
    """One executor of the flow."""

    name: str

    def serves(self, endpoint: str) -> bool:
        """Whether requests to this endpoint pass this executor."""
        ...

    def reply_bytes(self, request: DataRequestProto, parameters: Parameters) -> int:
        """Return the bytes that it will add to a reply in memory, without embeddings."""
        ...

    async def __call__(self, endpoint: str, documents: Documents, parameters: Parameters) -> None:
        """Change the documents in place; after an exception they are unchanged."""


class EncodeExecutor:
    """Gives documents their embeddings, and ranks matches.

    ``/rank`` ranks. Every other endpoint encodes, as clip_server does; ``/encode/{model}`` and ``/rank/{model}``
    encode with that model. A document without content gets no embedding.

    Args:
        encoder: Makes the rows.
        images: Reads the images.
        workers: Threads to encode on.
        threads: Number of these threads that long requests may keep.
        indexed: Whether an indexer follows, which then answers ``/delete`` and ``/status`` alone.
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
        self._passes = Indexing.ALONE if indexed else ()
        self._chaos = chaos

    def serves(self, endpoint: str) -> bool:
        """Return whether the endpoint is any but those that only an indexer can answer."""
        return endpoint not in self._passes

    def reply_bytes(self, request: DataRequestProto, parameters: Parameters) -> int:
        """Return 0, because embeddings are counted by the dispatcher."""
        return 0

    async def __call__(self, endpoint: str, documents: Documents, parameters: Parameters) -> None:
        """Encode or rank."""
        if self._chaos:
            await _misbehave(select(documents, "@r"))
        is_long = sum(not document.text for document in islice(documents, ITEMS_AT_ONCE)) > 1
        await in_turns(self._workers, self._answer(endpoint, documents, parameters), self._later, is_long=is_long)

    def _encoder_of(self, endpoint: str) -> Encoder:
        verb, _, model = endpoint.strip("/").partition("/")
        return self._encoder.for_model(model) if model and verb in ("encode", "rank") else self._encoder

    def _answer(self, endpoint: str, documents: Documents, parameters: Parameters) -> Work:
        encoder = self._encoder_of(endpoint)
        yield from encode(endpoint, documents, parameters, lambda places: self._rows(encoder, places))
        if self._chaos:
            lose(documents)

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
                # Each image is decoded and released before the next one is decoded.
                with self._images.open(name, document, until) as image:
                    prepared.append(encoder.prepare(image))
                yield
            for at, row in zip(some, encoder.encode_prepared(prepared), strict=True):
                rows[at] = row
        return rows


class IndexExecutor:
    """Runs `Indexing` on a thread: it stores documents with their embeddings, and finds the nearest ones.

    Args:
        index: The database; it is used on a thread of its own.
    """

    name = "indexer"

    def __init__(self, index: Index) -> None:
        self._index = index
        self._indexing = Indexing(index)
        self._thread = ThreadPoolExecutor(1, "casdk-index")
        self._later = asyncio.Semaphore(1)

    def serves(self, endpoint: str) -> bool:
        """The five endpoints."""
        return self._indexing.serves(endpoint)

    def reply_bytes(self, request: DataRequestProto, parameters: Parameters) -> int:
        """Return what the matches of a search take at most."""
        return self._indexing.reply_bytes(request, parameters)

    async def __call__(self, endpoint: str, documents: Documents, parameters: Parameters) -> None:
        """Do what the endpoint says."""
        is_long = endpoint == "/search" and len(documents) > 1
        await in_turns(self._thread, self._indexing.work(endpoint, documents, parameters), self._later, is_long=is_long)

    def close(self) -> None:
        """Finish what was begun and close the database."""
        self._thread.submit(self._index.close)
        self._thread.shutdown()


async def on(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """Run work on a thread, so that the loop is not blocked.

    Raises:
        BusyError: No thread can run it, because the server ends or the system has no thread left.
    """
    try:
        running = asyncio.get_running_loop().run_in_executor(threads, work)
    except RuntimeError as error:
        raise BusyError(f"no thread takes this: {error}") from None
    try:
        return await running
    finally:
        del running  # an exception would otherwise keep this frame, and so the request, until a garbage collection


async def in_turns(threads: ThreadPoolExecutor, work: Work, later: asyncio.Semaphore, *, is_long: bool) -> None:
    """Run work on threads, one turn at a time.

    The first turn of a request that may be small waits only for a free thread. All other turns also wait for the
    semaphore. So a small request, which is done in one turn, never waits for large ones, however many there are.
    """

    def turn() -> bool:
        until = time.monotonic() + TURN_SECONDS
        return any(time.monotonic() >= until for _ in work)

    unfinished = is_long or await on(threads, turn)
    while unfinished:
        async with later:
            unfinished = await on(threads, turn)


def _batches(positions: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield batches for an encoder, whose intermediate results are many times larger than its rows."""
    for start in range(0, len(positions), ITEMS_AT_ONCE):
        yield positions[start : start + ITEMS_AT_ONCE]


def _batches_of_texts(sizes: Iterable[tuple[int, int]]) -> Iterator[list[int]]:
    """Yield batches of texts, from positions with numbers of characters."""
    some: list[int] = []
    characters = 0
    for at, size in sizes:
        some.append(at)
        characters += size
        if len(some) == ITEMS_AT_ONCE or characters >= BATCH_CHARACTERS:
            yield some
            some, characters = [], 0
    if some:
        yield some


async def _misbehave(places: Iterable[Place]) -> None:
    for _, document in places:
        if document.text.startswith("!!raise"):
            raise ValueError(f"boom: {document.text}")
        if document.text.startswith("!!sleep:"):
            await asyncio.sleep(float(document.text.split(":")[1]))
        if document.text == STUCK:
            re.match("(a+)+$", "a" * 100 + "!")
