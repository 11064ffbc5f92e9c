"""What each verb is: its endpoint, how its items are read, where its replies go.

Every function here returns a job for `casdk._engine.run` or `run_async`; the job returns a function that makes the
result where the caller is, since touching a hundred thousand Documents would hold up the engine.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from time import monotonic, perf_counter
from typing import Any, TypeAlias

import numpy as np

from casdk._batches import Feed, feed_of
from casdk._calls import Call
from casdk._codecs import Packer
from casdk._driver import Driver, Hooks
from casdk._engine import Caller
from casdk._inputs import Chunk, as_document, check_content, read_chunk
from casdk._options import Options, route
from casdk._progress import Progress
from casdk._results import (
    Answer,
    Embeddings,
    IndexedEmbeddings,
    Matrix,
    Nothing,
    Piece,
    Pieces,
    Rankings,
    SearchResults,
)
from casdk._transport import Transport
from casdk.documents import Document, DocumentArray
from casdk.errors import InputTypeError, InputValueError, ItemError, NotSupportedError
from casdk.models import EncodeResult, Profile, Response

__all__ = ["Job", "encode", "index", "open_piece", "profile", "rank", "search", "stream"]

Job: TypeAlias = Callable[[Caller[Any]], Coroutine[Any, Any, Callable[[], Any]]]


class Plan:
    """One call before it runs.

    Args:
        transport: The way to the server.
        verb: Endpoint without the model.
        content: The user's iterable, checked.
        options: The call's options.
        answer: Collects the replies.
        prepare: Reads a chunk.
        resend: Whether requests may be repeated once sent.
        candidates: Attribute of nested Documents that travel too.
        keep: Whether a Document travels whole, its uri too.
        allow_empty: Whether a Document without content may travel.
        extra: Parameters the verb adds.
    """

    def __init__(
        self,
        transport: Transport,
        verb: str,
        content: Any,
        options: Options,
        answer: Answer,
        *,
        prepare: Callable[[list[Any], int], Chunk],
        resend: bool = True,
        candidates: str | None = None,
        keep: bool = False,
        allow_empty: bool = False,
        **extra: Any,
    ) -> None:
        limits = transport.limits
        endpoint, parameters = route(verb, options.parameters, **extra)
        packer = Packer(
            transport.codec,
            endpoint,
            parameters,
            check_images=options.check_images,
            max_item_bytes=limits.max_item_bytes,
            max_message_bytes=limits.max_message_bytes,
            keep_uri=keep,
            whole=keep,
            candidates=candidates,
            allow_empty=allow_empty,
        )
        timeout = transport.timeouts.total if options.timeout is None else options.timeout
        self.feed: Feed = feed_of(content, options.batch_size, apart=timeout is not None)
        self.hooks = Hooks(options.on_done, options.on_error, options.on_always, options.return_responses)
        self.gathers = options.on_done is None and options.on_always is None and not options.return_responses
        self.answer = answer if self.gathers else Nothing()
        self.call = Call(
            window=options.prefetch or limits.prefetch,
            retry=transport.retry,
            budget=transport.repeats,
            errors=options.errors,
            resend=resend,
            draw=random.random,
            tolerant=options.on_error is not None,
            on_refuse=self.answer.refused,
        )
        self.progress = Progress(verb[1:], self.feed.total) if options.show_progress else None
        self.driver = Driver(
            transport,
            self.call,
            self.feed,
            packer,
            self.answer,
            prepare=prepare,
            candidates=candidates,
            deadline=None if timeout is None else monotonic() + timeout,
            hooks=self.hooks,
            progress=self.progress,
        )

    async def run(self, caller: Caller[Any]) -> None:
        """Run the call; an `ItemError` that stops it takes along what was finished."""
        try:
            if self.progress is None:
                await self.driver.run(caller)
            else:
                with self.progress:
                    await self.driver.run(caller)
        except ItemError as error:
            if isinstance(self.answer, Embeddings):
                error.partial = self.answer.partial(self.feed.total or self.driver.count)
            raise

    @property
    def bad(self) -> list[int]:
        """Indices without a result, ascending."""
        lost = [index for batch in self.call.lost for index in batch.indices]
        return sorted({*self.call.bad, *lost})

    def responses(self) -> list[Response] | None:
        """What a call returns that does not gather: nothing, or the responses in input order."""
        if not self.hooks.keep:
            return None
        return [response for _, response in sorted(self.hooks.responses, key=lambda kept: kept[0])]


class Originals:
    """The user's Documents, in order, while every item is one."""

    def __init__(self, content: Any) -> None:
        self.items: list[Any] | None = []
        self.documents: list[Document] = []
        self.like = content

    def read(self, items: list[Any], start: int) -> Chunk:
        """Read a chunk as it is, keeping its Documents."""
        chunk = read_chunk(items, start)
        if self.items is not None:
            if chunk.verdicts.count(b"O") == len(items):
                self.items += items
                self.documents += chunk.items
            else:
                self.items = None
                self.documents = []
        return chunk

    def read_as_documents(self, items: list[Any], start: int) -> Chunk:
        """Read a chunk, making Documents of what is none."""
        chunk = read_chunk(items, start)
        documents: list[Any] = []
        for position, item in enumerate(chunk.items):
            bad = chunk.errors is not None and position in chunk.errors
            documents.append("" if bad else as_document(item, chr(chunk.verdicts[position])))
        if self.items is not None:
            self.items += items
        self.documents += [document for document in documents if isinstance(document, Document)]
        verdicts = bytes(ord("O") if isinstance(document, Document) else ord("T") for document in documents)
        return Chunk(documents, verdicts, chunk.errors)

    def array(self) -> Any:
        """Return the Documents as the caller's kind of array."""
        return DocumentArray(self.documents)


def encode(transport: Transport, content: Iterable[Any], options: Options) -> Job:
    """Texts and images -> ``[N, D]``."""
    check_content(content)
    originals = Originals(content)
    total = len(content) if hasattr(content, "__len__") else None
    matrix = Matrix(total, options.dtype, options.out)
    answer = Embeddings(matrix)
    plan = Plan(transport, "/encode", content, options, answer, prepare=originals.read)

    def finish() -> Any:
        if not plan.gathers:
            return plan.responses()
        rows = matrix.finish(plan.driver.count, plan.bad)
        everywhere = originals.items is not None and (bool(originals.items) or isinstance(content, DocumentArray))
        if everywhere:
            _write_embeddings(originals.documents, rows, plan.bad)
        if options.errors == "return":
            errors = tuple(plan.call.bad[index] for index in sorted(plan.call.bad))
            return EncodeResult(embeddings=rows, errors=errors)
        if options.errors == "skip" and plan.bad:
            rows = np.delete(rows, plan.bad, axis=0)
            bad = set(plan.bad)
            originals.documents = [d for i, d in enumerate(originals.documents) if i not in bad]
        return originals.array() if everywhere else rows

    return _job(plan, finish)


def _write_embeddings(documents: Sequence[Document], rows: np.ndarray[Any, Any], bad: Iterable[int]) -> None:
    missing = set(bad)
    for index, (document, row) in enumerate(zip(documents, rows, strict=True)):
        if index not in missing:
            document.embedding = row


def _job(plan: Plan, finish: Callable[[], Any]) -> Job:
    async def job(caller: Caller[Any]) -> Callable[[], Any]:
        await plan.run(caller)
        return finish

    return job


def stream(transport: Transport, content: Iterable[Any], options: Options) -> Job:
    """Texts and images -> pieces of `encode`'s result, in order."""
    check_content(content)
    for name in ("out", "on_done", "on_always"):
        if getattr(options, name) is not None:
            raise InputValueError(f"{name}= does not go with a stream")
    plan = Plan(transport, "/encode", content, options, Pieces(options.dtype, options.batch_size), prepare=read_chunk)

    async def job(caller: Caller[Any]) -> Callable[[], Any]:
        await plan.run(caller)
        return lambda: None

    return job


def open_piece(piece: Piece, options: Options) -> Any:
    """Return what the caller of a stream gets for a piece."""
    rows = piece.rows
    assert rows is not None
    documents = piece.items if all(isinstance(item, Document) for item in piece.items) else None
    if documents is not None:
        _write_embeddings(documents, rows, piece.bad)
    good = [position for position in range(len(rows)) if position not in piece.bad]
    if options.errors == "skip" and piece.bad:
        rows = rows[good]
        documents = None if documents is None else [documents[position] for position in good]
    return rows if documents is None else DocumentArray(documents)


def rank(transport: Transport, content: Iterable[Any], options: Options, source: str) -> Job:
    """Documents with candidates -> the same Documents, candidates by score."""
    check_content(content)
    if not isinstance(source, str) or source not in ("matches", "chunks"):
        raise InputValueError(f"source must be 'matches' or 'chunks', not {source!r}")
    originals = Originals(content)

    def read(items: list[Any], start: int) -> Chunk:
        chunk = originals.read(items, start)
        _check_candidates(chunk, start, source)
        return chunk

    plan = Plan(transport, "/rank", content, options, Rankings(source), prepare=read, candidates=source)

    def finish() -> Any:
        return originals.array() if plan.gathers else plan.responses()

    return _job(plan, finish)


def _check_candidates(chunk: Chunk, start: int, source: str) -> None:
    for position, (document, verdict) in enumerate(zip(chunk.items, chunk.verdicts, strict=True)):
        index = start + position
        if chunk.errors is not None and position in chunk.errors:
            continue
        if verdict != ord("O"):
            raise InputTypeError(
                f"document {index}: rank takes Documents with .{source}, not {type(document).__name__}: "
                f"write Document(text=..., {source}=[Document(uri=...), ...])"
            )
        candidates = getattr(document, source)
        if not candidates:
            raise InputValueError(f"document {index}: .{source} is empty, there is nothing to rank")
        for place, candidate in enumerate(candidates):
            if not isinstance(candidate, Document):
                raise InputTypeError(f"document {index}: match {place} is a {type(candidate).__name__}, not a Document")
            if not _has_content(candidate):
                raise InputValueError(f"document {index}: match {place} has no text, blob, tensor or uri")
        if not _has_content(document):
            raise InputValueError(f"document {index} has no text, blob, tensor or uri")


def _has_content(document: Document) -> bool:
    return bool(document.text or document.blob or document.uri) or document.tensor is not None


def index(transport: Transport, content: Iterable[Any], options: Options, resend: bool) -> Job:
    """Texts, images or Documents -> DocumentArray with embeddings, stored by the server."""
    check_content(content)
    originals = Originals(content)
    matrix = Matrix(len(content) if hasattr(content, "__len__") else None)
    answer = IndexedEmbeddings(matrix)
    plan = Plan(
        transport,
        "/index",
        content,
        options,
        answer,
        prepare=originals.read_as_documents,
        resend=resend,
        keep=True,
    )

    async def job(caller: Caller[Any]) -> Callable[[], Any]:
        await plan.run(caller)
        if answer.executors == 1 and transport.indexes is None and originals.documents:
            await _probe_index(transport, originals.documents[0], caller)
        return finish

    def finish() -> Any:
        if not plan.gathers:
            return plan.responses()
        rows = matrix.finish(plan.driver.count, plan.bad)
        _write_embeddings(originals.documents, rows, plan.bad)
        return originals.array()

    return job


async def _probe_index(transport: Transport, document: Document, caller: Caller[Any]) -> None:
    """Search for what was just indexed: a lone executor may be an encoder that took ``/index`` for ``/encode``."""
    query = Document(text=document.text, uri=document.uri, blob=document.blob, tensor=document.tensor)
    probe = search(transport, [query], Options(), 1)
    await probe(caller)


def search(transport: Transport, content: Iterable[Any], options: Options, limit: int) -> Job:
    """Texts, images or Documents -> DocumentArray with matches by ascending distance."""
    check_content(content)
    if isinstance(limit, bool) or not isinstance(limit, int | np.integer):
        raise InputTypeError(f"limit must be an int, not {type(limit).__name__}")
    if limit < 1:
        raise InputValueError(f"limit must be at least 1, not {limit}")
    originals = Originals(content)
    matrix = Matrix(len(content) if hasattr(content, "__len__") else None)
    answer = SearchResults(matrix)
    plan = Plan(transport, "/search", content, options, answer, prepare=originals.read_as_documents, limit=int(limit))

    async def job(caller: Caller[Any]) -> Callable[[], Any]:
        await plan.run(caller)
        if answer.matched:
            transport.indexes = True
        elif answer.executors == 1 and transport.indexes is None:
            raise NotSupportedError(
                "the server answered without a single match and its flow has one executor: it has no indexer "
                "(or nothing was ever indexed)"
            )
        return finish

    def finish() -> Any:
        if not plan.gathers:
            return plan.responses()
        rows = matrix.finish(plan.driver.count, plan.bad)
        _write_embeddings(originals.documents, rows, plan.bad)
        return originals.array()

    return job


def profile(transport: Transport, content: Any, timeout: float | None) -> Job:
    """Nothing, a text or an image -> where the time of one request goes."""
    originals = Originals(None)
    options = Options(timeout=timeout, return_responses=True, batch_size=1)
    items = [Document() if content is None else content]
    plan = Plan(
        transport,
        "/",
        items,
        options,
        Nothing(),
        prepare=originals.read_as_documents,
        allow_empty=content is None,
    )

    async def job(caller: Caller[Any]) -> Callable[[], Any]:
        begun = perf_counter()
        await plan.run(caller)
        seconds = perf_counter() - begun
        return lambda: Profile.from_response(plan.hooks.responses[0][1], seconds)

    return job
