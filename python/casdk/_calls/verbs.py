"""What each verb is: its endpoint, how its items are read, where its replies go, and what its caller gets.

Each verb is a value of `Verb`, with a function that makes a call of it: a `Run`, or a `MergedEncode`. `Client` passes
that to `casdk._engine.waiting`, which runs it on the engine. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import UnsetType

from casdk._calls.answers import Answer, Embeddings, IndexedEmbeddings, Nothing, Rankings, SearchResults
from casdk._calls.merging import MergedEncode, merging_key
from casdk._calls.options import DEFAULTS, MINIBATCH, Options, check_limit, check_timeout, read_options
from casdk._calls.originals import Originals, open_piece, present, write_embeddings
from casdk._calls.outcome import Outcome
from casdk._calls.piece_memory import PieceMemory
from casdk._calls.pieces import Pieces
from casdk._calls.proofs import allow_crops
from casdk._calls.run import Run
from casdk._calls.session import Session
from casdk._calls.space import IMAGE, MODALITIES, SENTENCE, Space, usable
from casdk._calls.tuned import RUNS
from casdk._calls.ways import Way
from casdk._columns import check_arrow
from casdk._content.inputs import Chunk, check_content, read_chunk
from casdk._engine.callers import Caller
from casdk._engine.waiting import run_on_worker
from casdk._rust import Kind
from casdk._wording import class_name, message_of, shown
from casdk.documents import Document
from casdk.documents.recognise import hold_documents
from casdk.errors import (
    CasdkError,
    InputError,
    InputTypeError,
    InputValueError,
    ItemTypeError,
    NoEmbeddingError,
    NotSupportedError,
    RejectedError,
    ReplyError,
)
from casdk.models import Image, Text

__all__ = [
    "Verb",
    "encode",
    "index",
    "open_pieces",
    "open_pieces_async",
    "profile",
    "rank",
    "search",
    "space",
    "stream",
]


class Verb(msgspec.Struct, frozen=True, kw_only=True):
    """A verb, as a value; `Run` asks it what is particular to the verb.

    Attributes:
        endpoint: Endpoint of the executor, without a model's name.
        answer: Makes the object that collects the replies. It gets the number of items, if known, and the options.
        finish: Makes the result from the outcome. If the call was stopped, it puts what was finished into the error
            and returns the error. Runs where the caller is.
        read: Reads, on a worker, a chunk that has items of other types than builtin ones.
        keep: Stores each chunk that was read, on the engine.
        plain: Whether chunks that have only builtin items are read on the engine instead.
        prove: Finds out, before anything is sent, whether crops may be sent. A verb without it sends no crops.
        confirm: Finds out, when every reply is there, whether the flow did what was asked.
        resend: Whether requests may be repeated once sent.
        candidates: Attribute of nested Documents that are sent, too.
        whole: Whether the server stores what it gets: Documents are sent whole, with their uri, and it matters which
            requests were answered.
        allow_empty: Whether a Document without content may be sent.
        guarded: Whether the vector space of the server matters.
        batch_size: Items per request, unless the options say otherwise.
        extra: Parameters that the verb adds.
    """

    endpoint: str
    answer: Callable[[int | None, Options], Answer]
    finish: Callable[[Run, Outcome], Any]
    read: Callable[..., Chunk]
    keep: Callable[[Originals, list[Any], Chunk], Chunk] | None = None
    plain: bool = True
    prove: Callable[[Run, Caller[Any]], Coroutine[Any, Any, None]] | None = None
    confirm: Callable[[Run, Caller[Any]], Coroutine[Any, Any, None]] | None = None
    resend: bool = True
    candidates: str | None = None
    whole: bool = False
    allow_empty: bool = False
    guarded: bool = True
    batch_size: int = MINIBATCH
    extra: Mapping[str, Any] = {}

    @property
    def name(self) -> str:
        """Its name in the log, in bars and in telemetry."""
        return self.endpoint[1:] or "profile"


def _read(originals: Originals, answer: Answer, items: list[Any], indices: Sequence[int], **how: Any) -> Chunk:
    return originals.read(items, indices, **how)


# canaries, which show whether crops may be sent


def _finish_canary(run: Run, outcome: Outcome) -> Any:
    assert isinstance(run.answer, Embeddings)
    return outcome.stopped or run.answer.rows_of(outcome)


CANARY: Final = Verb(endpoint="/encode", read=_read, keep=Originals.keep, answer=Embeddings, finish=_finish_canary)
PROVE_CROPS: Final = partial(allow_crops, CANARY)


# encode


def _finish_encode(run: Run, outcome: Outcome) -> Any:
    assert isinstance(run.answer, Embeddings)
    rows = run.answer.rows_of(outcome)
    if rows is not None and run.repeats is not None:
        run.repeats.copy(rows)
    originals = run.originals
    # Without `items`, one of the items was no Document, so the result is rows.
    are_documents = originals.items is not None and originals.are_all_documents()
    return present(rows, outcome, originals if are_documents else None, run.options)


def encode(session: Session, content: Iterable[Any], options: Options) -> Run | MergedEncode:
    """Texts and images -> ``[N, D]``."""
    content = check_content(content, session.sources)
    if options.result is not None:
        check_arrow()
    if session.coalescer is not None and (key := merging_key(session.coalescer, content, options)) is not None:
        return MergedEncode(session, session.coalescer, ENCODE, content, options, key)
    return RUNS[type(options.batch_size)](session, ENCODE, content, options)


ENCODE: Final = msgspec.structs.replace(CANARY, prove=PROVE_CROPS, finish=_finish_encode)


# encode, in pieces


def _finish_stream(run: Run, outcome: Outcome) -> CasdkError | None:
    stopped, answer = outcome.stopped, run.answer
    if stopped is not None:
        assert isinstance(answer, Pieces)
        rest = answer.rest(set(outcome.missing))
        stopped.start = rest.start
        if rest.items:
            found = open_piece(rest, msgspec.structs.replace(run.options, errors="raise"))
            if not isinstance(found, np.ndarray):
                stopped.documents = found
            elif found.shape[1]:
                stopped.partial = found
    return stopped


# Without `keep`, since a piece that was handed over must not stay in memory.
IN_PIECES: Final = msgspec.structs.replace(ENCODE, keep=None, answer=Pieces, finish=_finish_stream)


def stream(session: Session, content: Iterable[Any], options: Options) -> Run:
    """Texts and images -> pieces of `encode`'s result, in order."""
    content = check_content(content, session.sources)
    for name in ("out", "on_done", "on_always", "return_responses", "result"):
        value = getattr(options, name)
        if value is not getattr(DEFAULTS, name) and not isinstance(value, PieceMemory):
            raise InputValueError(f"{name}= does not go with a stream")
    return RUNS[type(options.batch_size)](session, IN_PIECES, content, options)


def open_pieces(client: object, pieces: Generator[Any, None, None], options: Options) -> Generator[Any, None, None]:
    """Make the caller's results of a stream's pieces. It refers to the client, which else may be dropped and closed."""
    try:
        for piece in pieces:
            yield open_piece(piece, options)
            del piece  # an error's traceback leads to this frame
    finally:
        pieces.close()


async def open_pieces_async(
    client: object, pieces: AsyncGenerator[Any, None], options: Options
) -> AsyncGenerator[Any, None]:
    """`open_pieces` for a caller on a loop; docarray's documents are written on a worker, since that may take long."""
    try:
        async for piece in pieces:
            if hold_documents(piece.items):
                yield await run_on_worker(open_piece, piece, options)
            else:
                yield open_piece(piece, options)
            del piece  # as above
    finally:
        await pieces.aclose()


# rank


def _finish_rank(run: Run, outcome: Outcome) -> Any:
    answer = run.answer
    assert isinstance(answer, Rankings)
    answer.write()
    ranked = run.originals.array(missing=set(outcome.missing), candidates=run.verb.candidates)
    if outcome.stopped is None:
        return ranked
    outcome.stopped.documents = ranked
    return outcome.stopped


def _read_checked(
    originals: Originals, answer: Rankings, items: list[Any], indices: Sequence[int], **how: Any
) -> Chunk:
    chunk = originals.read(items, indices, **how)
    _check_candidates(chunk, indices, answer)
    return chunk


RANK: Final = Verb(
    prove=PROVE_CROPS,
    endpoint="/rank",
    read=_read_checked,
    keep=Originals.keep,
    plain=False,
    answer=partial(Rankings, "matches"),
    finish=_finish_rank,
    candidates="matches",
    # A server scores every query of a request against the candidates of all of them.
    batch_size=1,
)


def rank(session: Session, content: Iterable[Any], options: Options, source: str, *, on_loop: bool = False) -> Run:
    """Documents with candidates -> the same Documents, candidates by score.

    Args:
        session: The client's session.
        content: The Documents. All of them are checked before one is sent, unless the content is an iterator.
        options: The call's options.
        source: Attribute that holds the candidates.
        on_loop: Whether the caller is on a loop; the check then runs on a worker, since it may take long.
    """
    content = check_content(content, session.sources)
    if not isinstance(source, str) or source not in ("matches", "chunks"):
        raise InputValueError(f"source must be 'matches' or 'chunks', not {shown(source)}")
    verb = msgspec.structs.replace(RANK, candidates=source, answer=partial(Rankings, source))
    if not isinstance(content, Sequence):
        return Run(session, verb, content, options)
    run = Run(session, msgspec.structs.replace(verb, read=_read, plain=True), content, options)
    assert isinstance(run.answer, Rankings)
    check = partial(_check_all, content, run.answer)
    if on_loop:
        run.before = check
    else:
        check()
    return run


def _check_all(content: Sequence[Any], answer: Rankings) -> None:
    for index, document in enumerate(content):
        _check_candidates(read_chunk([document], [index], candidates=answer.source), [index], answer)


def _check_candidates(chunk: Chunk, indices: Sequence[int], answer: Rankings) -> None:
    source = answer.source
    for position, (document, kind) in enumerate(zip(chunk.items, chunk.kinds, strict=True)):
        if chunk.errors is not None and position in chunk.errors:
            continue
        index = indices[position]
        if kind != Kind.DOCUMENT:
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
    """Check a Document and its candidates; return how many candidates it has."""
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


# index


async def _confirm_index(run: Run, caller: Caller[Any]) -> None:
    """Search for an item that was just indexed: a lone executor may be an encoder, for which that is ``/encode``."""
    flow = run.session.flow
    assert isinstance(run.answer, IndexedEmbeddings)
    if run.answer.executors != 1 or flow.indexes is not None:
        return
    stored = (document for index, document in enumerate(run.originals.documents) if index not in run.call.bad)
    if (document := next(stored, None)) is None:
        return
    query = Document(text=document.text, uri=document.uri, blob=document.blob, tensor=document.tensor)
    # What is left of the call's own time; a limit of 0 s would be none.
    left = None if run.deadline is None else max(run.deadline - monotonic(), 1e-9)
    probe = search(run.session, [query], Options(timeout=left), 1)
    (await probe.run(caller))()


def _finish_index(run: Run, outcome: Outcome) -> Any:
    result = _embedded(run, outcome)
    stopped = outcome.stopped
    if stopped is not None:
        stopped.unconfirmed = run.call.unconfirmed
        if isinstance(stopped, NotSupportedError):
            stopped.done = 0
    return result


def _embedded(run: Run, outcome: Outcome, *, matches: bool = False) -> Any:
    """Return the Documents with their embeddings, or the error that stopped the call, with the Documents in it."""
    originals, missing = run.originals, outcome.missing
    assert isinstance(run.answer, Embeddings)
    rows = run.answer.rows_of(outcome)
    if rows is not None:
        write_embeddings(originals.documents, rows[: len(originals.documents)], missing)
    documents = originals.array(missing=set(missing), matches=matches)
    if outcome.stopped is None:
        return documents
    outcome.stopped.documents = documents
    if not originals.all_from_caller:
        outcome.stopped.partial = rows
    return outcome.stopped


INDEX: Final = Verb(
    endpoint="/index",
    read=_read,
    keep=Originals.keep_as_documents,
    answer=IndexedEmbeddings,
    confirm=_confirm_index,
    finish=_finish_index,
    resend=False,
    whole=True,
)


def index(session: Session, content: Iterable[Any], options: Options, resend: bool) -> Run:
    """Texts, images or Documents -> DocumentArray with embeddings, stored by the server."""
    content, way = check_content(content, session.sources), session.way_to_index()
    verb = msgspec.structs.replace(INDEX, resend=resend)
    return RUNS[type(options.batch_size)](session, verb, content, options, way=way)


# search


async def _confirm_search(run: Run, caller: Caller[Any]) -> None:
    flow = run.session.flow
    assert isinstance(run.answer, SearchResults)
    if run.answer.matched:
        flow.indexes = True
    elif run.answer.executors == 1 and flow.indexes is None:
        raise NotSupportedError(
            "the server answered without a single match and its flow has one executor: it has no indexer "
            "(or nothing was ever indexed)"
        )


def _finish_search(run: Run, outcome: Outcome) -> Any:
    assert isinstance(run.answer, SearchResults)
    run.answer.write()
    return _embedded(run, outcome, matches=True)


SEARCH: Final = Verb(
    prove=PROVE_CROPS,
    endpoint="/search",
    read=_read,
    keep=Originals.keep_as_documents,
    answer=SearchResults,
    confirm=_confirm_search,
    finish=_finish_search,
)


def search(session: Session, content: Iterable[Any], options: Options, limit: int) -> Run:
    """Texts, images or Documents -> DocumentArray with matches by ascending distance."""
    content, way = check_content(content, session.sources), session.way_to_index()
    verb = msgspec.structs.replace(SEARCH, extra={"limit": check_limit(limit)})
    return RUNS[type(options.batch_size)](session, verb, content, options, way=way)


# space


def _finish_space(run: Run, outcome: Outcome) -> str | CasdkError:
    assert isinstance(run.answer, Embeddings)
    if outcome.stopped is not None:
        return outcome.stopped
    for error in outcome.bad.values():
        # An item that was refused only means that the server has no encoder for it. Any other error ends the call.
        if not isinstance(error, RejectedError | NoEmbeddingError):
            return error
    found = run.answer.rows_of(outcome)
    assert found is not None
    rows = {modality: row for modality, row in zip(MODALITIES, found, strict=True) if usable(row)}
    if rows:
        return str(Space.of(rows))
    return next(iter(outcome.bad.values()), ReplyError("the server answered with rows that are not finite"))


SPACE: Final = msgspec.structs.replace(ENCODE, keep=None, finish=_finish_space)


def space(session: Session, model_name: str | None, timeout: float | UnsetType | None, patience: float | None) -> Run:
    """The two canaries -> the vector space of the server, as text."""
    if model_name is not None and not isinstance(model_name, str):
        raise InputTypeError(f"model_name must be a str or None, not {class_name(model_name)}")
    parameters = None if model_name is None else {"model_name": model_name}
    options = Options(
        timeout=check_timeout(timeout),
        patience=read_options({"patience": patience}).patience,
        parameters=parameters,
        errors="return",
        batch_size=1,
    )
    return Run(session, SPACE, [Text(SENTENCE), Image(IMAGE)], options)


# profile

PROFILE: Final = Verb(
    endpoint="/",
    read=_read,
    keep=Originals.keep_as_documents,
    answer=Nothing,
    guarded=False,
    finish=lambda run, outcome: outcome.stopped,
)


def profile(session: Session, content: Any, timeout: float | UnsetType | None, way: Way | None = None) -> Run:
    """Nothing, a text or an image -> the Response of one request, with all that was measured.

    Args:
        session: The client's session.
        content: The text or image that is encoded; ``None`` sends an empty Document.
        timeout: Seconds for the call.
        way: The way to the server that is asked, if the client has several.
    """
    options = Options(timeout=check_timeout(timeout), return_responses=True, batch_size=1)
    items = [Document() if content is None else content]
    return Run(session, msgspec.structs.replace(PROFILE, allow_empty=content is None), items, options, way=way)
