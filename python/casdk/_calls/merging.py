"""Concurrent small calls of ``encode`` -> one request: "batch while busy".

An idle client adds no delay: a call that comes while fewer than `REQUESTS_IN_FLIGHT` merged requests are under way is
sent at once, by itself. Otherwise calls that may be merged wait in a queue, and as soon as a reply comes, as many of
them as fill a batch are sent as one request. Larger batches cost the client less per text, which counts only where the
server answers at once: there, and for texts alone, batches grow while calls come faster than they are answered.

Callers put their calls into a queue that the engine reads, and wake the engine only when it would not look again by
itself. All else happens on the engine, and as little as possible for each call: a `MergedCall` has no task and no
future of its own, since the one task of its batch reports to all callers.
"""

from __future__ import annotations

import asyncio
import copy
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import msgspec
import numpy as np
from msgspec import UNSET

from casdk._calls.answers import Embeddings
from casdk._calls.batches import moved
from casdk._calls.options import AUTO, DEFAULTS, Options, key_of
from casdk._calls.originals import Originals, are_ours, present
from casdk._calls.outcome import Outcome
from casdk._calls.routes import route
from casdk._calls.run import Run
from casdk._content.feeds import is_held
from casdk._content.inputs import are_texts
from casdk._engine.callers import Caller, Ending, Member, report_endings
from casdk._engine.loop import Engine
from casdk._transport.codecs import copy_rows
from casdk.documents.recognise import hold_documents
from casdk.errors import CasdkError, DeadlineError, ItemError, NotDoneError

if TYPE_CHECKING:
    from casdk._calls.session import Session
    from casdk._calls.telemetry import Watch
    from casdk._calls.verbs import Verb

__all__ = ["Coalescer", "MergedCall", "MergedEncode", "merging_key"]

REQUESTS_IN_FLIGHT: Final = 2
"""Merged requests under way per queue: one being answered, one on its way; more would make smaller batches."""
LARGEST_FACTOR: Final = 8
"""A batch that has grown has at most so many times the items of one that has not."""
QUICK_SECONDS: Final = 0.01
"""If a full batch comes back within this time, the next may have twice as many items: no caller notices the wait."""
NO_ERRORS: Final[Mapping[int, ItemError]] = MappingProxyType({})


def merging_key(coalescer: Coalescer, content: Any, options: Options) -> Hashable | None:
    """Return a key, equal for all calls that may be sent in one request, or ``None`` for a call that is sent alone."""
    if not is_held(content) or not 0 < len(content) <= coalescer.most or hold_documents(content):
        return None
    return key_of(options)


class MergedOutcome(NamedTuple):
    """The rows and errors of one merged batch; each of its calls takes its own part of them.

    Attributes:
        rows: ``[M, D]`` of the items that were read, NaN for an item without one; ``None`` before the first reply.
        errors: The error of each item without a row, by index.
        stopped: The error that ended the batch early.
        watch: The span of the request, to which the spans of the calls are linked.
    """

    rows: np.ndarray[Any, Any] | None
    errors: Mapping[int, ItemError]
    stopped: CasdkError | None
    watch: Watch | None = None


def _outcome_of(run: Run, stopped: CasdkError | None = None) -> MergedOutcome:
    outcome = run.outcome(stopped)
    assert isinstance(run.answer, Embeddings)
    return MergedOutcome(run.answer.rows_of(outcome), outcome.errors(), outcome.stopped, run.watch)


class MergedCall(Member, ABC):
    """One call whose items are sent in a request with those of others. It ends once.

    Args:
        coalescer: The coalescer that merges it.
        key: Calls with equal keys may be merged.
        items: Its items, at most as many as a batch takes.
        deadline: When it ends at the latest, in the engine's time.

    Attributes:
        items: Its items.
        deadline: When it ends at the latest, in the engine's time.
        caller: The thread or loop that its end is reported to.
        over: Whether it has ended.
        batch: The batch that it is sent in, once it is.
    """

    caller: Caller[Any]
    over = False
    batch: MergedBatch | None = None
    _timer: asyncio.TimerHandle | None = None

    def __init__(self, coalescer: Coalescer, key: Hashable, items: list[Any], deadline: float | None) -> None:
        self._coalescer = coalescer
        self._key = key
        self.items = items
        self.deadline = deadline

    def is_light(self) -> bool:
        """Whether it may be sent in a batch that has grown beyond the usual size."""
        return True

    @abstractmethod
    async def send(self, items: list[Any], answer_by: float | None) -> Any:
        """Send the batch that this call is the first one of; return its outcome.

        Args:
            items: The items of all calls in the batch.
            answer_by: When the last of these calls ends at the latest.
        """

    @abstractmethod
    def take(self, outcome: Any, start: int) -> Callable[[], Any]:
        """Return a function that makes the call's result; it is called where the caller is.

        Args:
            outcome: The outcome of the batch.
            start: Position of the call's first item in the batch.
        """

    def join(self, caller: Caller[Any]) -> None:
        """Join the queue; runs where the caller is."""
        self.caller = caller
        caller.runner = self
        if self.deadline is not None:
            caller.post(self._start_timer, self.deadline)
        self._coalescer.add(self._key, self)

    def _start_timer(self, deadline: float) -> None:
        if not self.over:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._expire)

    def end_with(self, outcome: Any, start: int) -> Ending:
        """End the call with its part of the batch's outcome; return the ending, which is to be reported."""
        try:
            result = self.take(outcome, start)
        except Exception as error:
            return self.end(None, error)
        return self.end(result, None)

    def end(self, result: Callable[[], Any] | None, error: BaseException | None) -> Ending:
        """End the call, which is not over yet, with a result or an error; return the ending, to be reported."""
        self.over, self.batch = True, None
        if self._timer is not None:
            self._timer.cancel()
        return self.caller, result, error

    def cancel(self) -> None:
        """Leave the batch or the queue, since the caller does not wait any more."""
        self._leave(asyncio.CancelledError())

    def _expire(self) -> None:
        self._leave(DeadlineError("the call's time ran out", total=len(self.items)))

    def _leave(self, error: BaseException) -> None:
        if self.over:
            return
        batch, ending = self.batch, self.end(None, error)
        if batch is not None and batch.cancel_if_unwanted():
            # Reported once the request has been taken back: a call that has ended never has anything in flight.
            batch.task.add_done_callback(lambda task: report_endings([ending]))
        else:
            report_endings([ending])


class MergedEncode(MergedCall):
    """A call of ``encode`` whose items are sent with those of other calls; `verbs.encode` makes it.

    Args:
        session: The client's session.
        coalescer: The coalescer that merges the client's calls.
        verb: The verb, `ENCODE`.
        content: The caller's items.
        options: The call's options.
        key: Its `merging_key`.

    Attributes:
        run: While this call, as the first of its batch, sends the batch: the run that does so.
    """

    run: Run | None = None
    _rows: np.ndarray[Any, Any] | None = None
    _errors: Mapping[int, ItemError] = NO_ERRORS
    _stopped: CasdkError | None = None
    _watch: Watch | None = None

    def __init__(
        self, session: Session, coalescer: Coalescer, verb: Verb, content: Any, options: Options, key: Hashable
    ) -> None:
        timeout = session.timeouts.total if options.timeout is UNSET else options.timeout
        super().__init__(coalescer, key, list(content), None if timeout is None else monotonic() + timeout)
        self._session = session
        self._verb = verb
        self._content = content
        self._options = options

    def is_light(self) -> bool:
        """Whether it has only texts, and the caller did not say how many may be in a request."""
        return self._options.batch_size in (None, AUTO) and are_texts(self.items, self._session.sources)

    def join(self, caller: Caller[Any]) -> None:
        """Join the queue; runs where the caller is."""
        if (telemetry := self._session.telemetry) is not None:
            endpoint, _ = route(self._verb.endpoint, self._options.parameters)
            self._watch = telemetry.watch("encode", endpoint, len(self.items))
            caller.context.run(self._watch.__enter__)
        super().join(caller)

    async def send(self, items: list[Any], answer_by: float | None) -> MergedOutcome:
        """Send the items of several calls as one call, whose bad items go back to their callers."""
        options = msgspec.structs.replace(self._options, errors="return", timeout=None, batch_size=len(items))
        self.run = run = Run(self._session, self._verb, items, options, answer_by=answer_by, merged=True)
        try:
            await run.run(self.caller)
            return _outcome_of(run)
        finally:
            self.run = None

    def take(self, outcome: MergedOutcome, start: int) -> Callable[[], Any]:
        """Take its rows and errors out of a batch's."""
        self._take(outcome, start)
        if self._watch is not None and outcome.watch is not None:
            self._watch.link(outcome.watch)
            self._watch.count(len(self.items) - len(self._errors))
        return self.result

    def _take(self, outcome: MergedOutcome, start: int) -> None:
        rows, errors, stopped, _ = outcome
        stop = start + len(self.items)
        if errors:
            self._errors = {i - start: moved(errors[i], -start) for i in errors if start <= i < stop}
        if rows is not None:
            # A copy, since a view would hold the rows of all callers in memory, and let one caller change them.
            self._rows = copy_rows(rows, min(start, len(rows)), min(stop, len(rows)))
        bad = [index for index, error in self._errors.items() if not isinstance(error, NotDoneError)]
        if bad and self._options.errors == "raise":
            self._stop(self._errors[min(bad)])
        elif stopped is not None:
            self._stop_with_batch(stopped)

    def _stop_with_batch(self, stopped: CasdkError) -> None:
        """Stop this call by the error that stopped the batch, unless all its items were done by then."""
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
        error.server = error.server or self._session.way.address

    def end(self, result: Callable[[], Any] | None, error: BaseException | None) -> Ending:
        """End, as `MergedCall.end` does, and end the call's span."""
        if isinstance(error, CasdkError):  # its time ran out, or nothing could be sent
            self._take_so_far(error)
            result, error = self.result, None
        if self._watch is not None:
            stopped: BaseException | None = error or self._stopped
            self.caller.context.run(self._watch.__exit__, None if stopped is None else type(stopped), stopped, None)
        return super().end(result, error)

    def _take_so_far(self, stopped: CasdkError) -> None:
        """Take the rows and errors that the batch has by now, for a call that ends before its batch does."""
        first = None if self.batch is None else self.batch.calls[0]
        if self.batch is None or not isinstance(first, MergedEncode) or first.run is None:
            self._stop(stopped)
        else:
            self._take(_outcome_of(first.run, stopped), self.batch.start_of(self))

    def result(self) -> Any:
        """Return the call's result, or raise what stopped it; runs where the caller is, once."""
        # Most calls end here: rows of texts, with the default options, are returned as they are.
        if self._stopped is None and not self._errors and self._options is DEFAULTS and type(self.items[0]) is str:
            return self._rows
        result = None
        try:
            result = self._make()
            if isinstance(result, CasdkError):
                raise result
            return result
        finally:
            # The error's traceback refers to this frame, and so would hold all that the call had in memory.
            self._errors, self._stopped, self._rows = NO_ERRORS, None, None
            del result

    def _make(self) -> Any:
        originals = None
        if are_ours(self.items):
            originals = Originals(self._content)
            originals.items, originals.documents = self.items, self.items
        errors = dict(self._errors)
        outcome = Outcome(len(self.items), errors, {}, self._stopped, sorted(errors))
        return present(self._rows, outcome, originals, self._options)


class MergedBatch:
    """Calls whose items are sent in one request, and the task that sends them and reports to all callers.

    Attributes:
        calls: The first one sends the items of all.
    """

    def __init__(self, calls: list[MergedCall]) -> None:
        self.calls = calls
        first = calls[0]
        for call in calls:
            call.batch = self
        # In the context of the first caller, so that a trace shows the request below that call.
        self.task = asyncio.get_running_loop().create_task(self._run(), context=first.caller.context.copy())

    async def _run(self) -> None:
        calls, endings = self.calls, []
        try:
            deadlines = [call.deadline for call in calls]
            answer_by = None if None in deadlines else max(cast("list[float]", deadlines))
            outcome = await calls[0].send([item for call in calls for item in call.items], answer_by)
        except BaseException as error:
            # Each caller raises its own copy: a traceback grows with every raise.
            endings = [call.end(None, _copy(error)) for call in calls if not call.over]
        else:
            start = 0
            for call in calls:
                if not call.over:
                    endings.append(call.end_with(outcome, start))
                start += len(call.items)
        report_endings(endings)

    def start_of(self, call: MergedCall) -> int:
        """Return the position of a call's first item in the request."""
        return sum(len(other.items) for other in self.calls[: self.calls.index(call)])

    def cancel_if_unwanted(self) -> bool:
        """Cancel the request if no call waits for it any more; return whether it was cancelled."""
        gone = all(call.over for call in self.calls)
        if gone:
            self.task.cancel()
        return gone


def _copy(error: BaseException) -> BaseException:
    if isinstance(error, asyncio.CancelledError):
        return asyncio.CancelledError()
    duplicate = copy.copy(error)
    duplicate.__cause__ = error.__cause__
    return duplicate


class _Queue:
    """Calls with one key, which may be merged, and their batches in flight.

    Attributes:
        most: Items that the next batch may have.
        waiting: The calls that wait; any thread appends to it, and the engine takes from it.
        in_flight: The tasks of its batches that are under way.
        stops: How many times the engine has stopped looking for waiting calls.
        woken_at: What ``stops`` was when the engine was last woken: as long as they are equal, it looks once more.
    """

    __slots__ = ("in_flight", "most", "stops", "waiting", "woken_at")

    def __init__(self, most: int) -> None:
        self.most = most
        self.waiting: deque[MergedCall] = deque()
        self.in_flight: set[asyncio.Task[None]] = set()
        self.stops = 0
        self.woken_at = -1


class Coalescer:
    """Merges the calls of one client; made with it if ``coalesce=`` asks for that.

    Args:
        most: Items per merged batch, until it grows; a call with more is not merged.
        window: Seconds that a call waits for others although it could be sent.
    """

    def __init__(self, most: int, window: float) -> None:
        self.most: Final = most
        self._window = window
        self._queues: dict[Hashable, _Queue] = {}
        self._engine: Engine | None = None

    def add(self, key: Hashable, call: MergedCall) -> None:
        """Queue a call, to be sent alone or with others; called where its caller is.

        Args:
            key: Calls with equal keys may be merged.
            call: The call.
        """
        caller = call.caller
        if caller.engine is not self._engine:
            # The client's first call, or the first one in a forked child, where what waits belongs to the parent.
            self._queues, self._engine = {}, caller.engine
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues.setdefault(key, _Queue(self.most))
        # The order of these lines matters, as in `Mailbox.post`: the call is appended before it is decided whether the
        # engine looks once more, and the engine is noted as woken only after it was.
        queue.waiting.append(call)
        stops = queue.stops
        if queue.woken_at != stops:
            caller.post(self._send_soon, key, queue)
            queue.woken_at = stops

    def after_fork_in_child(self) -> object:
        """Drop all queues, and return them: they belong to the parent and must not be deallocated."""
        queues, self._queues = self._queues, {}
        return queues

    def _send_soon(self, key: Hashable, queue: _Queue) -> None:
        if self._window:
            asyncio.get_running_loop().call_later(self._window, self._send_waiting, key, queue)
        else:
            self._send_waiting(key, queue)

    def _send_waiting(self, key: Hashable, queue: _Queue) -> None:
        while queue.waiting and len(queue.in_flight) < REQUESTS_IN_FLIGHT:
            calls, size = self._gather(queue)
            if calls:
                self._start(key, queue, calls, size)
        if len(queue.in_flight) == REQUESTS_IN_FLIGHT:  # it looks again when one of them ends
            return
        queue.stops += 1
        if queue.waiting:
            queue.woken_at = queue.stops
            self._send_soon(key, queue)
        elif not queue.in_flight and self._queues.get(key) is queue:
            del self._queues[key]

    def _start(self, key: Hashable, queue: _Queue, calls: list[MergedCall], size: int) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()

        def end(task: asyncio.Task[None]) -> None:
            queue.in_flight.discard(task)
            self._learn(queue, size, loop.time() - began)
            self._send_waiting(key, queue)

        task = MergedBatch(calls).task
        queue.in_flight.add(task)
        # A callback, since a task that is cancelled before its first line runs no line of its own at its end.
        task.add_done_callback(end)

    def _learn(self, queue: _Queue, size: int, took: float) -> None:
        if took > QUICK_SECONDS:
            queue.most = max(self.most, queue.most // 2)
        elif size == queue.most:
            queue.most = min(2 * queue.most, LARGEST_FACTOR * self.most)

    def _gather(self, queue: _Queue) -> tuple[list[MergedCall], int]:
        """Take waiting calls until a batch is full; return them, and how many items they have."""
        calls, size, most = [], 0, queue.most
        while queue.waiting:
            call = queue.waiting[0]
            if not call.over:
                if most > self.most and not call.is_light():
                    most = self.most
                if size + len(call.items) > most:
                    break
                calls.append(call)
                size += len(call.items)
            queue.waiting.popleft()
        return calls, size
