"""What each verb is: its endpoint, how its items are read, where its replies go.

Every function here returns a job for `casdk._callers.run` or `run_async`; the job returns a function that makes the
result where the caller is, since touching a hundred thousand Documents would hold up the engine.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping, Sequence, Sized
from functools import partial
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
from msgspec import UnsetType

from casdk._batches import Repeats
from casdk._coalesce import Coalescer, Share
from casdk._codecs import copy_rows
from casdk._columns import check_arrow, to_arrow
from casdk._engine import Caller, Ending
from casdk._feeds import HELD
from casdk._foreign import hold_documents
from casdk._inputs import Chunk, are_texts, check_content, read_chunk
from casdk._options import DEFAULTS, DTYPE, MINIBATCH, Options, check_limit, check_timeout, route
from casdk._originals import Originals, open_piece, write_embeddings
from casdk._plan import Check, Plan, moved
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
from casdk.errors import CasdkError, InputTypeError, InputValueError, ItemError, NotDoneError, NotSupportedError
from casdk.models import EncodeResult, Profile

if TYPE_CHECKING:
    from casdk._telemetry import Watch

__all__ = ["Job", "encode", "index", "profile", "rank", "search", "stream"]

Job: TypeAlias = "Callable[[Caller[Any]], Coroutine[Any, Any, Callable[[], Any]]]"


def encode(transport: Transport, content: Iterable[Any], options: Options) -> Job | Part:
    """Texts and images -> ``[N, D]``."""
    content = check_content(content)
    if options.result is not None:
        check_arrow()
    if transport.coalescer is not None and (key := _merging_key(transport.coalescer, content, options)) is not None:
        return Part(transport, transport.coalescer, content, options, key)
    originals = Originals(content)
    total = len(content) if isinstance(content, Sized) else None
    matrix = Matrix(total, options.dtype, options.out)
    repeats = Repeats() if options.dedupe else None
    plan = Plan(transport, "/encode", content, options, Embeddings(matrix), prepare=originals.read, repeats=repeats)

    def finish(stopped: CasdkError | None) -> Any:
        plan.conclude(stopped)
        if not plan.gathers:
            return stopped or plan.responses()
        missing = plan.missing
        rows = (
            matrix.finish(plan.driver.count, missing) if stopped is None else matrix.partial(plan.driver.count, missing)
        )
        if repeats is not None and repeats.found and rows is not None and rows.size:
            again, firsts = zip(*repeats.found, strict=True)
            rows[list(again)] = rows[list(firsts)]
        documents = originals if originals.all_documents else None
        return _present(rows, plan.errors, missing, documents, options, stopped)

    return _job(plan, finish)


def _present(
    rows: np.ndarray[Any, Any] | None,
    errors: Callable[[CasdkError | None], Mapping[int, ItemError]],
    missing: Sequence[int],
    originals: Originals | None,
    options: Options,
    stopped: CasdkError | None,
) -> Any:
    """Return the result of ``encode`` as ``errors=`` wants it, or what stopped the call, with what was finished.

    Args:
        rows: ``[N, D]``, NaN where there is none; ``None`` if the call was stopped before there was any.
        errors: Returns one for each item without a row, by index.
        missing: Indices without a row, ascending.
        originals: The user's Documents, if there is nothing else.
        options: The call's.
        stopped: What ended the call early.
    """
    gone = set(missing) if options.errors == "skip" else ()
    if originals is not None and rows is not None:
        write_embeddings(originals.documents, rows[: len(originals.documents)], missing)
    if stopped is not None:
        if originals is None:
            stopped.partial = rows
        else:
            stopped.documents = originals.array(missing=set(missing))
    if options.errors == "return" and rows is not None and (stopped is None or stopped.done):
        found = errors(stopped)
        return EncodeResult(embeddings=rows, errors=tuple(found[index] for index in sorted(found)), stopped=stopped)
    if stopped is not None:
        return stopped
    assert rows is not None
    if originals is not None and options.result is None:
        return originals.array(gone)
    kept = np.delete(rows, missing, axis=0) if gone else rows
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


class Merged(NamedTuple):
    """What became of items that travelled together.

    Attributes:
        rows: ``[M, D]`` of the items that were read, NaN where there is none; ``None`` while nothing came.
        errors: One for each of these without a row, by index.
        stopped: What ended it early.
        watch: What the spans of the calls are linked to.
    """

    rows: np.ndarray[Any, Any] | None
    errors: Mapping[int, ItemError]
    stopped: CasdkError | None
    watch: Watch | None = None


NOTHING: Final[Mapping[int, ItemError]] = MappingProxyType({})


class Part(Share):
    """A call of ``encode`` that travels in company.

    Args:
        transport: The way to the server.
        coalescer: The client's.
        content: The user's items.
        options: The call's.
        key: What it has in common with its company.
    """

    _rows: np.ndarray[Any, Any] | None = None
    _errors: Mapping[int, ItemError] = NOTHING
    _stopped: CasdkError | None = None
    _watch: Watch | None = None
    _sent: tuple[Plan, Matrix] | None = None
    """What carries the whole company, if this is its first."""

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
        self._sent = plan, matrix
        try:
            return _merge(plan, matrix, await plan.run(self.caller))
        finally:
            self._sent = None

    def result(self, outcome: Merged, start: int) -> Callable[[], Any]:
        """Take its rows and errors out of a batch's."""
        self._take(outcome, start)
        if self._watch is not None and outcome.watch is not None:
            self._watch.link(outcome.watch)
            self._watch.count(len(self.items) - len(self._errors))
        return self._finish if self._stopped is None else partial(_end, self._finish)

    def _take(self, outcome: Merged, start: int) -> None:
        rows, errors, stopped, _ = outcome
        stop = start + len(self.items)
        if errors:
            self._errors = {i - start: moved(errors[i], -start) for i in errors if start <= i < stop}
        if rows is not None:
            # A copy: a view would keep everybody's rows alive, and writeable.
            self._rows = copy_rows(rows, min(start, len(rows)), min(stop, len(rows)))
        bad = [index for index, error in self._errors.items() if not isinstance(error, NotDoneError)]
        if bad and self._options.errors == "raise":
            self._stop(self._errors[min(bad)])
        elif stopped is not None:
            self._share(stopped)

    def _share(self, stopped: CasdkError) -> None:
        """Be stopped by what stopped the company, unless this call's items were done by then."""
        waiting = [error for error in self._errors.values() if isinstance(error, NotDoneError)]
        if not waiting and self._rows is not None and len(self._rows) == len(self.items):
            return
        # Each caller raises its own copy: a traceback grows with every raise.
        own = copy.copy(stopped)
        for error in waiting:
            error.cause = own
        self._stop(own)

    def _stop(self, error: CasdkError) -> None:
        self._stopped = error
        error.done = 0 if self._rows is None else len(self._rows) - len(self._errors)
        error.total = len(self.items)
        error.server = str(self._transport.endpoint)

    def _finish(self) -> Any:
        if self._stopped is None and not self._errors and self._options is DEFAULTS and type(self.items[0]) is str:
            return self._rows
        originals = None
        if isinstance(self.items[0], Document) and all(isinstance(item, Document) for item in self.items):
            originals = Originals(self._content)
            originals.items, originals.documents = self.items, self.items
        errors, stopped = self._errors, self._stopped
        # Let go of: the frame that waits for this holds it, and an error's traceback leads to that frame.
        self._errors, self._stopped = NOTHING, None
        return _present(self._rows, lambda stopped: errors, sorted(errors), originals, self._options, stopped)

    def end(self, result: Callable[[], Any] | None, error: BaseException | None) -> Ending:
        """Come to an end, which is still to be told; telemetry is."""
        if isinstance(error, CasdkError):  # its time ran out, or nothing could be sent
            self._take_so_far(error)
            result, error = partial(_end, self._finish), None
        if self._watch is not None:
            stopped: BaseException | None = error or self._stopped
            self.caller.context.run(self._watch.__exit__, None if stopped is None else type(stopped), stopped, None)
        return super().end(result, error)

    def _take_so_far(self, stopped: CasdkError) -> None:
        first = None if self.batch is None else self.batch.shares[0]
        if self.batch is None or not isinstance(first, Part) or first._sent is None:
            self._stop(stopped)
        else:
            self._take(_merge(*first._sent, stopped), self.batch.start_of(self))


def _merge(plan: Plan, matrix: Matrix, stopped: CasdkError | None) -> Merged:
    plan.conclude(stopped)
    count, missing = plan.driver.count, plan.missing
    rows = matrix.finish(count, missing) if stopped is None else matrix.partial(count, missing)
    return Merged(rows, plan.errors(stopped), stopped, plan.watch)


def _job(plan: Plan, finish: Callable[[CasdkError | None], Any], check: Check | None = None) -> Job:
    """Return the job that runs a call.

    Args:
        plan: The call.
        finish: Makes the result where the caller is. If the call was stopped, it puts what was finished into the
            error and returns that.
        check: What is to be done when every reply is there.
    """
    held = [(plan, finish, check)]
    del plan, finish, check

    async def job(caller: Caller[Any]) -> Callable[[], Any]:
        # Taken out: the frame that waits for the job holds it, and an error's traceback leads to that frame.
        plan, finish, check = held.pop()
        stopped = await plan.run(caller, check)
        return partial(finish, None) if stopped is None else partial(_end, partial(finish, stopped))

    return job


def _end(finish: Callable[[], Any]) -> Any:
    """Return the result of a call that was stopped, or raise what stopped it."""
    result = None
    try:
        result = finish()
        if isinstance(result, CasdkError):
            raise result
        return result
    finally:
        # The traceback leads to this frame, and what it holds to all that the call had in memory.
        del finish, result


def stream(transport: Transport, content: Iterable[Any], options: Options) -> Job:
    """Texts and images -> pieces of `encode`'s result, in order."""
    content = check_content(content)
    for name in ("out", "on_done", "on_always", "result"):
        if getattr(options, name) is not None:
            raise InputValueError(f"{name}= does not go with a stream")
    pieces = Pieces(options.dtype, options.batch_size or MINIBATCH)
    plan = Plan(transport, "/encode", content, options, pieces, prepare=read_chunk)

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

    return _job(plan, finish)


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

    return _job(plan, finish, check)


def _embedded(
    plan: Plan, matrix: Matrix, originals: Originals, stopped: CasdkError | None, *, matches: bool = False
) -> Any:
    """Return the Documents, embeddings set, or the responses the call was made for, or what stopped it."""
    plan.conclude(stopped)
    if not plan.gathers:
        return stopped or plan.responses()
    count, missing = plan.driver.count, plan.missing
    rows = matrix.finish(count, missing) if stopped is None else matrix.partial(count, missing)
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
    content = check_content(content)
    limit = check_limit(limit)
    originals = Originals(content)
    matrix = Matrix(len(content) if isinstance(content, Sized) else None)
    answer = SearchResults(matrix)
    plan = Plan(transport, "/search", content, options, answer, prepare=originals.read_as_documents, limit=limit)

    async def check(caller: Caller[Any]) -> None:
        if answer.matched:
            transport.indexes = True
        elif answer.executors == 1 and transport.indexes is None:
            raise NotSupportedError(
                "the server answered without a single match and its flow has one executor: it has no indexer "
                "(or nothing was ever indexed)"
            )

    return _job(plan, lambda stopped: _embedded(plan, matrix, originals, stopped, matches=True), check)


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

    def finish(stopped: CasdkError | None) -> Any:
        plan.conclude(stopped)
        return stopped or found[0]

    found: list[Profile] = []

    async def check(caller: Caller[Any]) -> None:
        found.append(Profile.from_response(plan.hooks.responses[0][1]))

    return _job(plan, finish, check)
