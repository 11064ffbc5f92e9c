"""Calls of ``encode`` that travel together: which ones may, and what each gets out of the common request."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from casdk._coalesce import Coalescer, Share
from casdk._codecs import copy_rows
from casdk._engine import Caller, Ending
from casdk._feeds import is_held
from casdk._foreign import hold_documents
from casdk._inputs import are_texts
from casdk._options import DEFAULTS, DTYPE, Options, route
from casdk._originals import Originals, are_ours, present
from casdk._plan import Plan, end, moved
from casdk._results import Embeddings, Matrix
from casdk._transport import Transport
from casdk.errors import CasdkError, ItemError, NotDoneError

if TYPE_CHECKING:
    from casdk._telemetry import Watch

__all__ = ["Part", "merging_key"]


def merging_key(coalescer: Coalescer, content: Any, options: Options) -> Hashable | None:
    """Return what calls must have in common to travel together, or ``None`` for one that travels alone."""
    if not is_held(content) or not 0 < len(content) <= coalescer.most or hold_documents(content):
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
        return self._options.batch_size is None and are_texts(self.items, self._transport.sources)

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
        return self._finish if self._stopped is None else partial(end, self._finish)

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
        if are_ours(self.items):
            originals = Originals(self._content)
            originals.items, originals.documents = self.items, self.items
        errors, stopped = self._errors, self._stopped
        # Let go of: the frame that waits for this holds it, and an error's traceback leads to that frame.
        self._errors, self._stopped = NOTHING, None
        return present(self._rows, lambda stopped: errors, sorted(errors), originals, self._options, stopped)

    def end(self, result: Callable[[], Any] | None, error: BaseException | None) -> Ending:
        """Come to an end, which is still to be told; telemetry is."""
        if isinstance(error, CasdkError):  # its time ran out, or nothing could be sent
            self._take_so_far(error)
            result, error = partial(end, self._finish), None
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
    return Merged(plan.rows(matrix, stopped), plan.errors(stopped), stopped, plan.watch)
