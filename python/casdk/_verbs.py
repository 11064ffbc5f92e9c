"""What each verb is: its endpoint, how its items are read, where its replies go.

Every function here returns a job for `casdk._callers.run` or `run_async`; the job returns a function that makes the
result where the caller is, since touching a hundred thousand Documents would hold up the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping, Sequence, Sized
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
import numpy as np
from msgspec import UnsetType

from casdk._batches import Repeats
from casdk._coalesce import Coalescer, Share
from casdk._codecs import copy_rows
from casdk._columns import to_arrow
from casdk._engine import Caller, Ending
from casdk._feeds import HELD
from casdk._foreign import hold_documents
from casdk._inputs import Chunk, are_texts, check_content, read_chunk
from casdk._options import DEFAULTS, DTYPE, MINIBATCH, Options, check_limit, check_timeout, route
from casdk._originals import Originals, write_embeddings
from casdk._plan import Plan, moved
from casdk._results import (
    Embeddings,
    IndexedEmbeddings,
    Matrix,
    Nothing,
    Pieces,
    Rankings,
    SearchResults,
)
from casdk._transport import Transport
from casdk.documents import Document
from casdk.errors import InputTypeError, InputValueError, ItemError, NotSupportedError
from casdk.models import EncodeResult, Profile

if TYPE_CHECKING:
    from casdk._telemetry import Watch

__all__ = ["Job", "encode", "index", "profile", "rank", "search", "stream"]

Job: TypeAlias = "Callable[[Caller[Any]], Coroutine[Any, Any, Callable[[], Any]]]"
Merged: TypeAlias = "tuple[np.ndarray[Any, Any], dict[int, ItemError], Watch | None]"
"""Rows of a merged batch, its bad items, and what its span is linked by."""


def encode(transport: Transport, content: Iterable[Any], options: Options) -> Job | Part:
    """Texts and images -> ``[N, D]``."""
    content = check_content(content)
    if transport.coalescer is not None and (key := _merging_key(transport.coalescer, content, options)) is not None:
        return Part(transport, transport.coalescer, content, options, key)
    originals = Originals(content)
    total = len(content) if isinstance(content, Sized) else None
    matrix = Matrix(total, options.dtype, options.out)
    repeats = Repeats() if options.dedupe else None
    answer, given = Embeddings(matrix), originals.given
    plan = Plan(transport, "/encode", content, options, answer, prepare=originals.read, repeats=repeats, given=given)

    def finish() -> Any:
        if not plan.gathers:
            return plan.responses()
        if repeats is not None:
            plan.repeat(repeats)
        rows = matrix.finish(plan.driver.count, plan.bad)
        if repeats is not None and repeats.found and rows.size:
            again, firsts = zip(*repeats.found, strict=True)
            rows[list(again)] = rows[list(firsts)]
        return _present(rows, plan.call.bad, plan.bad, originals if originals.all_documents else None, options)

    return _job(plan, finish)


def _present(
    rows: np.ndarray[Any, Any],
    errors: Mapping[int, ItemError],
    bad: Sequence[int],
    originals: Originals | None,
    options: Options,
) -> Any:
    """Return the result of ``encode`` as ``errors=`` wants it.

    Args:
        rows: ``[N, D]``, NaN where there is none.
        errors: By index.
        bad: Indices without a row, ascending.
        originals: The user's Documents, if there is nothing else.
        options: The call's.
    """
    gone = set(bad) if options.errors == "skip" else ()
    if originals is not None:
        write_embeddings(originals.documents, rows, bad)
    if options.errors == "return":
        return EncodeResult(embeddings=rows, errors=tuple(errors[index] for index in sorted(errors)))
    if originals is not None and options.result is None:
        return originals.array(gone)
    kept = np.delete(rows, bad, axis=0) if gone else rows
    return kept if options.result is None else to_arrow(kept)


def _merging_key(coalescer: Coalescer, content: Any, options: Options) -> Hashable | None:
    """Return what calls must have in common to travel together, or ``None`` for one that travels alone."""
    if not isinstance(content, HELD) or not 0 < len(content) <= coalescer.most or hold_documents(content):
        return None
    if options is DEFAULTS:
        return ALIKE
    if (
        options.on_done is not None
        or options.on_error is not None
        or options.on_always is not None
        or options.out is not None
        or options.prefetch is not None
        or options.return_responses
        or options.show_progress
    ):
        return None
    if not options.parameters:
        return ALIKE if options.check_images and options.dtype is DTYPE else _key(b"", options)
    try:
        parameters = msgspec.json.encode(options.parameters, order="deterministic")
    except TypeError:
        return None
    return _key(parameters, options)


def _key(parameters: bytes, options: Options) -> Hashable:
    return ("/encode", parameters, options.check_images, str(options.dtype))


ALIKE: Final = _key(b"", DEFAULTS)
"""What calls that are told nothing of it have in common, made once."""


class Part(Share):
    """A call of ``encode`` that travels in company.

    Args:
        transport: The way to the server.
        coalescer: The client's.
        content: The user's items.
        options: The call's.
        key: What it has in common with its company.
    """

    _errors: Mapping[int, ItemError] = MappingProxyType({})
    _watch: Watch | None = None

    def __init__(
        self, transport: Transport, coalescer: Coalescer, content: Any, options: Options, key: Hashable
    ) -> None:
        timeout = options.deadline_after(transport.timeouts.total)
        super().__init__(coalescer, key, list(content), None if timeout is None else monotonic() + timeout)
        self._transport = transport
        self._content = content
        self._options = options

    def join(self, caller: Caller[Any]) -> None:
        """Join the company."""
        if (telemetry := self._transport.telemetry) is not None:
            endpoint, _ = route("/encode", self._options.parameters)
            self._watch = telemetry.watch("encode", endpoint, len(self.items))
            caller.context.run(self._watch.__enter__)
        super().join(caller)

    def is_light(self) -> bool:
        """Whether it is texts, of a caller who did not say how many may travel in a request."""
        return self._options.batch_size is None and are_texts(self.items)

    async def send(self, items: list[Any], answer_by: float | None) -> Merged:
        """Send the items of several calls as the call of one of them, whose bad items go back to their callers."""
        options = msgspec.structs.replace(self._options, errors="return", timeout=None, batch_size=len(items))
        matrix = Matrix(len(items), options.dtype)
        plan = Plan(
            self._transport,
            "/encode",
            items,
            options,
            Embeddings(matrix),
            prepare=read_chunk,
            merged=True,
            answer_by=answer_by,
        )
        await plan.run(self.caller)
        return matrix.finish(len(items), plan.bad), plan.call.bad, plan.watch

    def result(self, outcome: Merged, start: int) -> Callable[[], Any]:
        """Take its rows and errors out of a batch's."""
        rows, errors, carrier = outcome
        stop = start + len(self.items)
        if errors:
            self._errors = {i - start: moved(errors[i], -start) for i in errors if start <= i < stop}
        if self._watch is not None and carrier is not None:
            self._watch.link(carrier)
            self._watch.count(len(self.items) - len(self._errors))
        if self._errors and self._options.errors == "raise":
            raise self._errors[min(self._errors)]
        # A copy: a view would keep everybody's rows alive, and writeable.
        self._rows = copy_rows(rows, start, stop)
        return self._finish

    def _finish(self) -> Any:
        if not self._errors and self._options is DEFAULTS and type(self.items[0]) is str:
            return self._rows
        originals = None
        if isinstance(self.items[0], Document) and all(isinstance(item, Document) for item in self.items):
            originals = Originals(self._content)
            originals.items, originals.documents = self.items, self.items
        return _present(self._rows, self._errors, sorted(self._errors), originals, self._options)

    def end(self, result: Callable[[], Any] | None, error: BaseException | None) -> Ending:
        """Come to an end, which is still to be told; telemetry is."""
        if self._watch is not None:
            self.caller.context.run(self._watch.__exit__, None if error is None else type(error), error, None)
        return super().end(result, error)


def _job(plan: Plan, finish: Callable[[], Any]) -> Job:
    async def job(caller: Caller[Any]) -> Callable[[], Any]:
        await plan.run(caller)
        return finish

    return job


def stream(transport: Transport, content: Iterable[Any], options: Options) -> Job:
    """Texts and images -> pieces of `encode`'s result, in order."""
    content = check_content(content)
    for name in ("out", "on_done", "on_always", "result"):
        if getattr(options, name) is not None:
            raise InputValueError(f"{name}= does not go with a stream")
    pieces = Pieces(options.dtype, options.batch_size or MINIBATCH)
    plan = Plan(transport, "/encode", content, options, pieces, prepare=read_chunk, given=pieces.given)

    async def job(caller: Caller[Any]) -> Callable[[], Any]:
        await plan.run(caller)
        return lambda: None

    return job


def rank(transport: Transport, content: Iterable[Any], options: Options, source: str) -> Job:
    """Documents with candidates -> the same Documents, candidates by score."""
    content = check_content(content)
    if not isinstance(source, str) or source not in ("matches", "chunks"):
        raise InputValueError(f"source must be 'matches' or 'chunks', not {source!r}")
    originals = Originals(content, candidates=source)
    answer = Rankings(source)
    checked = isinstance(content, Sequence)
    if checked:
        for index, document in enumerate(content):
            _check_candidates(read_chunk([document], [index], candidates=source), [index], source)

    def read(items: list[Any], indices: Sequence[int]) -> Chunk:
        chunk = originals.read(items, indices)
        if not checked:
            _check_candidates(chunk, indices, source)
        return chunk

    plan = Plan(
        transport,
        "/rank",
        content,
        options,
        answer,
        prepare=read,
        candidates=source,
        batch_size=1,
        given=originals.given,
    )

    def finish() -> Any:
        if not plan.gathers:
            return plan.responses()
        answer.write()
        return originals.array(candidates=source)

    return _job(plan, finish)


def _check_candidates(chunk: Chunk, indices: Sequence[int], source: str) -> None:
    for position, (document, verdict) in enumerate(zip(chunk.items, chunk.verdicts, strict=True)):
        index = indices[position]
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
    content = check_content(content)
    originals = Originals(content, whole=True, keep=options.gathers)
    matrix = Matrix(len(content) if isinstance(content, Sized) else None)
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
        given=originals.given,
    )

    async def job(caller: Caller[Any]) -> Callable[[], Any]:
        await plan.run(caller)
        if answer.executors == 1 and transport.indexes is None:
            stored = (document for index, document in enumerate(originals.documents) if index not in plan.call.bad)
            if (first := next(stored, None)) is not None:
                await _probe_index(transport, first, caller, plan.deadline)
        return lambda: _embedded(plan, matrix, originals)

    return job


def _embedded(plan: Plan, matrix: Matrix, originals: Originals, *, matches: bool = False) -> Any:
    """Return the Documents, embeddings set, or the responses the call was made for."""
    if not plan.gathers:
        return plan.responses()
    rows = matrix.finish(plan.driver.count, plan.bad)
    write_embeddings(originals.documents, rows, plan.bad)
    return originals.array(matches=matches)


async def _probe_index(transport: Transport, document: Document, caller: Caller[Any], deadline: float | None) -> None:
    """Search for what was just indexed: a lone executor may be an encoder that took ``/index`` for ``/encode``."""
    query = Document(text=document.text, uri=document.uri, blob=document.blob, tensor=document.tensor)
    # What is left of the call's own time; a limit of 0 s would be none.
    left = None if deadline is None else max(deadline - monotonic(), 1e-9)
    probe = search(transport, [query], Options(timeout=left), 1)
    await probe(caller)


def search(transport: Transport, content: Iterable[Any], options: Options, limit: int) -> Job:
    """Texts, images or Documents -> DocumentArray with matches by ascending distance."""
    content = check_content(content)
    limit = check_limit(limit)
    originals = Originals(content)
    matrix = Matrix(len(content) if isinstance(content, Sized) else None)
    answer = SearchResults(matrix)
    read, given = originals.read_as_documents, originals.given
    plan = Plan(transport, "/search", content, options, answer, prepare=read, given=given, limit=limit)

    async def job(caller: Caller[Any]) -> Callable[[], Any]:
        await plan.run(caller)
        if answer.matched:
            transport.indexes = True
        elif answer.executors == 1 and transport.indexes is None:
            raise NotSupportedError(
                "the server answered without a single match and its flow has one executor: it has no indexer "
                "(or nothing was ever indexed)"
            )
        return lambda: _embedded(plan, matrix, originals, matches=True)

    return job


def profile(transport: Transport, content: Any, timeout: float | UnsetType | None) -> Job:
    """Nothing, a text or an image -> where the time of one request goes."""
    originals = Originals(None)
    options = Options(timeout=check_timeout(timeout), return_responses=True, batch_size=1)
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
        await plan.run(caller)
        return lambda: Profile.from_response(plan.hooks.responses[0][1])

    return job
