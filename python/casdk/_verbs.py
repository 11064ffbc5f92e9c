"""What each verb is: its endpoint, how its items are read, where its replies go.

Every function here returns a job for `casdk._callers.run` or `run_async`; the job returns a function that makes the
result where the caller is, since touching a hundred thousand Documents would hold up the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Any

import msgspec
import numpy as np
from msgspec import UnsetType

from casdk._batches import Repeats
from casdk._callers import apart
from casdk._columns import check_arrow
from casdk._engine import Caller
from casdk._feeds import length_of
from casdk._foreign import hold_documents
from casdk._inputs import Chunk, check_content, read_chunk
from casdk._merging import Part, merging_key
from casdk._options import MINIBATCH, Options, check_limit, check_timeout
from casdk._originals import Originals, open_piece, present, write_embeddings
from casdk._plan import Job, Plan, job_of
from casdk._reading import Manner
from casdk._results import (
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
from casdk.documents import Document
from casdk.errors import (
    CasdkError,
    InputError,
    InputTypeError,
    InputValueError,
    ItemTypeError,
    NotSupportedError,
    class_name,
    message_of,
    shown,
)
from casdk.models import Profile

__all__ = ["Job", "encode", "index", "open_on_loop", "profile", "rank", "search", "stream"]


def encode(transport: Transport, content: Iterable[Any], options: Options) -> Job | Part:
    """Texts and images -> ``[N, D]``."""
    content = check_content(content, transport.sources)
    if options.result is not None:
        check_arrow()
    if transport.coalescer is not None and (key := merging_key(transport.coalescer, content, options)) is not None:
        return Part(transport, transport.coalescer, content, options, key)
    originals = Originals(content)
    total = length_of(content)
    matrix = Matrix(total, options.dtype, options.out)
    repeats = Repeats() if options.dedupe else None
    manner = Manner(originals.read, originals.keep)
    plan = Plan(transport, "/encode", content, options, Embeddings(matrix), manner=manner, repeats=repeats)

    def finish(stopped: CasdkError | None) -> Any:
        plan.conclude(stopped)
        if not plan.gathers:
            return stopped or plan.responses()
        rows = plan.rows(matrix, stopped)
        if repeats is not None and rows is not None:
            repeats.copy(rows)
        documents = originals if originals.all_documents else None
        return present(rows, plan.errors, plan.missing, documents, options, stopped)

    return job_of(plan, finish, originals=originals)


def stream(transport: Transport, content: Iterable[Any], options: Options) -> Job:
    """Texts and images -> pieces of `encode`'s result, in order."""
    content = check_content(content, transport.sources)
    for name in ("out", "on_done", "on_always", "result"):
        if getattr(options, name) is not None:
            raise InputValueError(f"{name}= does not go with a stream")
    pieces = Pieces(options.dtype, options.batch_size or MINIBATCH)
    plan = Plan(transport, "/encode", content, options, pieces)

    def finish(stopped: CasdkError | None) -> CasdkError | None:
        if stopped is not None:
            plan.conclude(stopped)
            rest = pieces.rest(set(plan.missing))
            stopped.start = rest.start
            if rest.items:
                found = open_piece(rest, msgspec.structs.replace(options, errors="raise"))
                if not isinstance(found, np.ndarray):
                    stopped.documents = found
                elif found.shape[1]:
                    stopped.partial = found
        return stopped

    return job_of(plan, finish)


async def open_on_loop(piece: Piece, options: Options) -> Any:
    """`open_piece` for a caller on a loop, which docarray's documents, or the caller's code in them, would hold up."""
    if hold_documents(piece.items):
        return await apart(open_piece, piece, options)
    return open_piece(piece, options)


def rank(transport: Transport, content: Iterable[Any], options: Options, source: str, *, on_loop: bool = False) -> Job:
    """Documents with candidates -> the same Documents, candidates by score.

    Args:
        transport: The way to the server.
        content: All of them are looked at before one is sent, unless it is an iterator.
        options: The call's.
        source: Attribute that holds the candidates.
        on_loop: Whether the caller is a loop, which looking at them would hold up.
    """
    content = check_content(content, transport.sources)
    if not isinstance(source, str) or source not in ("matches", "chunks"):
        raise InputValueError(f"source must be 'matches' or 'chunks', not {shown(source)}")
    originals = Originals(content, candidates=source)
    answer = Rankings(source)
    checked = isinstance(content, Sequence)

    def check_all() -> None:
        for index, document in enumerate(content):
            _check_candidates(read_chunk([document], [index], candidates=source), [index], source, answer)

    def read(items: list[Any], indices: Sequence[int], **how: Any) -> Chunk:
        chunk = originals.read(items, indices, **how)
        if not checked:
            _check_candidates(chunk, indices, source, answer)
        return chunk

    if checked and not on_loop:
        check_all()
    plan = Plan(
        transport,
        "/rank",
        content,
        options,
        answer,
        manner=Manner(read, originals.keep, plain=checked),
        candidates=source,
        batch_size=1,
    )

    def finish(stopped: CasdkError | None) -> Any:
        plan.conclude(stopped)
        if not plan.gathers:
            return stopped or plan.responses()
        answer.write()
        ranked = originals.array(missing=set(plan.missing), candidates=source)
        if stopped is None:
            return ranked
        stopped.documents = ranked
        return stopped

    return job_of(plan, finish, first=check_all if checked and on_loop else None, originals=originals)


def _check_candidates(chunk: Chunk, indices: Sequence[int], source: str, answer: Rankings) -> None:
    for position, (document, verdict) in enumerate(zip(chunk.items, chunk.verdicts, strict=True)):
        if chunk.errors is not None and position in chunk.errors:
            continue
        index = indices[position]
        if verdict != ord("O"):
            raise InputTypeError(
                f"document {index}: rank takes Documents with .{source}, not {class_name(document)}: "
                f"write Document(text=..., {source}=[Document(uri=...), ...])"
            )
        try:
            answer.expect(index, _check_document(document, index, source))
        except InputError:
            raise
        except Exception as error:  # of a value or a class of the caller's own
            reason = f"reading it raised {class_name(error)}: {message_of(error)}"
            raise ItemTypeError(index, document, reason, error) from error


def _check_document(document: Document, index: int, source: str) -> int:
    """Look at a Document and its candidates; return how many there are."""
    candidates = list(getattr(document, source))
    if not candidates:
        raise InputValueError(f"document {index}: .{source} is empty, there is nothing to rank")
    for place, candidate in enumerate(candidates):
        if not isinstance(candidate, Document):
            raise InputTypeError(f"document {index}: match {place} is a {class_name(candidate)}, not a Document")
        if not isinstance(candidate.scores, dict):  # they are added to
            raise InputTypeError(f"document {index}: the scores of match {place} are no dict")
        if not _has_content(candidate):
            raise InputValueError(f"document {index}: match {place} has no text, blob, tensor or uri")
    if not _has_content(document):
        raise InputValueError(f"document {index} has no text, blob, tensor or uri")
    return len(candidates)


def _has_content(document: Document) -> bool:
    return bool(document.text or document.blob or document.uri) or document.tensor is not None


def index(transport: Transport, content: Iterable[Any], options: Options, resend: bool) -> Job:
    """Texts, images or Documents -> DocumentArray with embeddings, stored by the server."""
    content = check_content(content, transport.sources)
    originals = Originals(content, whole=True, keep=options.gathers)
    matrix = Matrix(length_of(content))
    answer = IndexedEmbeddings(matrix)
    plan = Plan(
        transport,
        "/index",
        content,
        options,
        answer,
        manner=Manner(originals.read, originals.keep_as_documents),
        resend=resend,
        whole=True,
        storing=True,
    )

    async def check(caller: Caller[Any]) -> None:
        if answer.executors == 1 and transport.indexes is None:
            stored = (document for index, document in enumerate(originals.documents) if index not in plan.call.bad)
            if (first := next(stored, None)) is not None:
                await _probe_index(transport, first, caller, plan.deadline)

    def finish(stopped: CasdkError | None) -> Any:
        result = _embedded(plan, matrix, originals, stopped)
        if stopped is not None:
            stopped.unconfirmed = plan.call.unconfirmed
            if isinstance(stopped, NotSupportedError):
                stopped.done = 0
        return result

    return job_of(plan, finish, check, originals=originals)


def _embedded(
    plan: Plan, matrix: Matrix, originals: Originals, stopped: CasdkError | None, *, matches: bool = False
) -> Any:
    """Return the Documents, embeddings set, or the responses the call was made for, or what stopped it."""
    plan.conclude(stopped)
    if not plan.gathers:
        return stopped or plan.responses()
    rows, missing = plan.rows(matrix, stopped), plan.missing
    if rows is not None:
        write_embeddings(originals.documents, rows[: len(originals.documents)], missing)
    documents = originals.array(missing=set(missing), matches=matches)
    if stopped is None:
        return documents
    stopped.documents = documents
    if not originals.all_given:
        stopped.partial = rows
    return stopped


async def _probe_index(transport: Transport, document: Document, caller: Caller[Any], deadline: float | None) -> None:
    """Search for what was just indexed: a lone executor may be an encoder that took ``/index`` for ``/encode``."""
    query = Document(text=document.text, uri=document.uri, blob=document.blob, tensor=document.tensor)
    # What is left of the call's own time; a limit of 0 s would be none.
    left = None if deadline is None else max(deadline - monotonic(), 1e-9)
    probe = search(transport, [query], Options(timeout=left), 1)
    (await probe(caller))()


def search(transport: Transport, content: Iterable[Any], options: Options, limit: int) -> Job:
    """Texts, images or Documents -> DocumentArray with matches by ascending distance."""
    content = check_content(content, transport.sources)
    limit = check_limit(limit)
    originals = Originals(content)
    matrix = Matrix(length_of(content))
    answer = SearchResults(matrix)
    manner = Manner(originals.read, originals.keep_as_documents)
    plan = Plan(transport, "/search", content, options, answer, manner=manner, limit=limit)

    async def check(caller: Caller[Any]) -> None:
        if answer.matched:
            transport.indexes = True
        elif answer.executors == 1 and transport.indexes is None:
            raise NotSupportedError(
                "the server answered without a single match and its flow has one executor: it has no indexer "
                "(or nothing was ever indexed)"
            )

    def finish(stopped: CasdkError | None) -> Any:
        if plan.gathers:
            answer.write()
        return _embedded(plan, matrix, originals, stopped, matches=True)

    return job_of(plan, finish, check, originals=originals)


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
        manner=Manner(originals.read, originals.keep_as_documents),
        allow_empty=content is None,
    )

    def finish(stopped: CasdkError | None) -> Any:
        plan.conclude(stopped)
        return stopped or found[0]

    found: list[Profile] = []

    async def check(caller: Caller[Any]) -> None:
        found.append(Profile.from_response(plan.hooks.responses[0][1]))

    return job_of(plan, finish, check)
