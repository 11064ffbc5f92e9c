"""Concurrent small calls of ``encode`` -> one request: "batch while busy".

An idle client adds no delay: a call that finds a free lane goes at once, by itself. While the lanes are busy, calls of
the same kind gather, and the next free lane takes as many of them as fill a batch. What a batch costs the client counts
only where the server answers at once: there, and for texts alone, batches grow while calls come faster than they go.

Callers leave their shares where the engine finds them, and tell it only when it would not look by itself. All else
happens on the engine, and nothing per call that could be done per batch: a `Share` is neither a task nor a future, and
the one task of its batch tells the caller.
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

from casdk._calls.answers import Embeddings
from casdk._calls.batches import moved
from casdk._calls.options import DEFAULTS, MERGES, Options, route
from casdk._calls.originals import Originals, are_ours, present
from casdk._calls.outcome import Outcome
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

__all__ = ["Coalescer", "Part", "Share", "merging_key"]

LANES: Final = 2
"""Merged requests in flight per kind: one being answered, one on its way; more would make smaller batches."""
GROWTH: Final = 8
"""Times as many items as a batch takes may travel together in the end."""
QUICK_SECONDS: Final = 0.01
"""Within which a full batch comes back that is followed by one of twice as many items: nobody notices them."""
NOTHING: Final[Mapping[int, ItemError]] = MappingProxyType({})
SAME: Final = tuple(name for name, how in MERGES.items() if how == "same")
ALONE: Final = tuple((name, getattr(DEFAULTS, name)) for name, how in MERGES.items() if how == "alone")


def merging_key(coalescer: Coalescer, content: Any, options: Options) -> Hashable | None:
    """Return what calls must have in common to travel together, or ``None`` for one that travels alone."""
    if not is_held(content) or not 0 < len(content) <= coalescer.most or hold_documents(content):
        return None
    if options is DEFAULTS:
        return ALIKE
    if any(getattr(options, name) is not default for name, default in ALONE):
        return None
    return _key_of(options)


def _key_of(options: Options) -> Hashable | None:
    try:
        return tuple(_comparable(getattr(options, name)) for name in SAME)
    except Exception:  # whatever is wrong with the parameters, it is said where they are packed
        return None


def _comparable(value: Any) -> Hashable:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return msgspec.json.encode(value, order="deterministic") if value else None
    return str(np.dtype(value))


ALIKE: Final = _key_of(DEFAULTS)
"""What calls that are told nothing have in common, made once."""


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


def _outcome_of(run: Run, stopped: CasdkError | None = None) -> Merged:
    outcome = run.outcome(stopped)
    assert isinstance(run.answer, Embeddings)
    return Merged(run.answer.rows_of(outcome), outcome.errors(), outcome.stopped, run.watch)


class Share(Member, ABC):
    """What one call has in a merged batch. It ends once, and tells its caller how.

    Args:
        coalescer: Who merges it.
        key: Shares with equal keys may be merged.
        items: At most as many as a batch takes.
        deadline: When it ends, come what may, in the engine's time.

    Attributes:
        items: As given.
        deadline: As given.
        caller: Whom to tell.
        over: Whether that is done.
        batch: What it travels in.
    """

    caller: Caller[Any]
    over = False
    batch: Batch | None = None
    _timer: asyncio.TimerHandle | None = None

    def __init__(self, coalescer: Coalescer, key: Hashable, items: list[Any], deadline: float | None) -> None:
        self._coalescer = coalescer
        self._key = key
        self.items = items
        self.deadline = deadline

    def is_light(self) -> bool:
        """Whether it may travel in a batch that has grown."""
        return True

    @abstractmethod
    async def send(self, items: list[Any], answer_by: float | None) -> Any:
        """Send a batch that this is the first share of; return its outcome.

        Args:
            items: Of all its shares.
            answer_by: When the last of them ends, come what may.
        """

    @abstractmethod
    def take(self, outcome: Any, start: int) -> Callable[[], Any]:
        """Return what makes the call's result where its caller is.

        Args:
            outcome: Of the batch.
            start: Position of the first item in it.
        """

    def join(self, caller: Caller[Any]) -> None:
        """Wait for company, and for an end; runs where the caller is."""
        self.caller = caller
        caller.task = self
        if self.deadline is not None:
            caller.post(self._expect, self.deadline)
        self._coalescer.add(self._key, self)

    def _expect(self, deadline: float) -> None:
        if not self.over:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._expire)

    def settle(self, outcome: Any, start: int) -> Ending:
        """Come to an end with what a batch came to."""
        try:
            result = self.take(outcome, start)
        except Exception as error:
            return self.end(None, error)
        return self.end(result, None)

    def end(self, result: Callable[[], Any] | None, error: BaseException | None) -> Ending:
        """Come to an end, which is still to be told. It must not be over."""
        self.over, self.batch = True, None
        if self._timer is not None:
            self._timer.cancel()
        return self.caller, result, error

    def cancel(self) -> None:
        """Leave, since the caller did."""
        self._leave(asyncio.CancelledError())

    def _expire(self) -> None:
        self._leave(DeadlineError("the call's time ran out", total=len(self.items)))

    def _leave(self, error: BaseException) -> None:
        if self.over:
            return
        batch, ending = self.batch, self.end(None, error)
        if batch is not None and batch.miss():
            # As any other call, it is over when nothing of it is in flight any more.
            batch.task.add_done_callback(lambda task: report_endings([ending]))
        else:
            report_endings([ending])


class Part(Share):
    """A call of ``encode`` that travels in company.

    Args:
        session: The client's.
        coalescer: What merges the client's calls.
        verb: What is asked for.
        content: The user's items.
        options: The call's.
        key: What it has in common with its company.

    Attributes:
        run: What carries the whole company, if this is its first.
    """

    run: Run | None = None
    _rows: np.ndarray[Any, Any] | None = None
    _errors: Mapping[int, ItemError] = NOTHING
    _stopped: CasdkError | None = None
    _watch: Watch | None = None

    def __init__(
        self, session: Session, coalescer: Coalescer, verb: Verb, content: Any, options: Options, key: Hashable
    ) -> None:
        timeout = options.deadline_after(session.timeouts.total)
        super().__init__(coalescer, key, list(content), None if timeout is None else monotonic() + timeout)
        self._session = session
        self._verb = verb
        self._content = content
        self._options = options

    def is_light(self) -> bool:
        """Whether it is texts, of a caller who did not say how many may travel in a request."""
        return self._options.batch_size is None and are_texts(self.items, self._session.sources)

    def join(self, caller: Caller[Any]) -> None:
        """Wait for company, and for an end; runs where the caller is."""
        if (telemetry := self._session.telemetry) is not None:
            endpoint, _ = route(self._verb.endpoint, self._options.parameters)
            self._watch = telemetry.watch("encode", endpoint, len(self.items))
            caller.context.run(self._watch.__enter__)
        super().join(caller)

    async def send(self, items: list[Any], answer_by: float | None) -> Merged:
        """Send the items of several calls as one call, whose bad items go back to their callers."""
        options = msgspec.structs.replace(self._options, errors="return", timeout=None, batch_size=len(items))
        self.run = run = Run(self._session, self._verb, items, options, answer_by=answer_by, merged=True)
        try:
            await run.run(self.caller)
            return _outcome_of(run)
        finally:
            self.run = None

    def take(self, outcome: Merged, start: int) -> Callable[[], Any]:
        """Take its rows and errors out of a batch's."""
        self._take(outcome, start)
        if self._watch is not None and outcome.watch is not None:
            self._watch.link(outcome.watch)
            self._watch.count(len(self.items) - len(self._errors))
        return self.result

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
            self._share_end(stopped)

    def _share_end(self, stopped: CasdkError) -> None:
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
        error.server = str(self._session.transport.endpoint)

    def end(self, result: Callable[[], Any] | None, error: BaseException | None) -> Ending:
        """Come to an end, which is still to be told to the caller; telemetry is told."""
        if isinstance(error, CasdkError):  # its time ran out, or nothing could be sent
            self._take_so_far(error)
            result, error = self.result, None
        if self._watch is not None:
            stopped: BaseException | None = error or self._stopped
            self.caller.context.run(self._watch.__exit__, None if stopped is None else type(stopped), stopped, None)
        return super().end(result, error)

    def _take_so_far(self, stopped: CasdkError) -> None:
        first = None if self.batch is None else self.batch.shares[0]
        if self.batch is None or not isinstance(first, Part) or first.run is None:
            self._stop(stopped)
        else:
            self._take(_outcome_of(first.run, stopped), self.batch.start_of(self))

    def result(self) -> Any:
        """Return the call's result, or raise what stopped it; runs where the caller is, once."""
        errors, stopped = self._errors, self._stopped
        if stopped is None and not errors and self._options is DEFAULTS and type(self.items[0]) is str:
            return self._rows
        result = None
        try:
            originals = None
            if are_ours(self.items):
                originals = Originals(self._content)
                originals.items, originals.documents = self.items, self.items
            outcome = Outcome(len(self.items), dict(errors), {}, stopped, sorted(errors))
            result = present(self._rows, outcome, originals, self._options)
            if isinstance(result, CasdkError):
                raise result
            return result
        finally:
            # The error's traceback leads to this frame, and what it holds to all that the call had in memory.
            self._errors, self._stopped, self._rows = NOTHING, None, None
            del result, errors, stopped


class Batch:
    """Shares that travel together.

    Attributes:
        shares: The first one sends them all.
    """

    def __init__(self, shares: list[Share]) -> None:
        self.shares = shares
        first = shares[0]
        for share in shares:
            share.batch = self
        # A trace sees the batch below the first of its callers.
        self.task = asyncio.get_running_loop().create_task(self._run(), context=first.caller.context.copy())

    async def _run(self) -> None:
        shares, endings = self.shares, []
        try:
            deadlines = [share.deadline for share in shares]
            answer_by = None if None in deadlines else max(cast("list[float]", deadlines))
            outcome = await shares[0].send([item for share in shares for item in share.items], answer_by)
        except BaseException as error:
            # Each caller raises its own copy: a traceback grows with every raise.
            endings = [share.end(None, _copy(error)) for share in shares if not share.over]
        else:
            start = 0
            for share in shares:
                if not share.over:
                    endings.append(share.settle(outcome, start))
                start += len(share.items)
        report_endings(endings)

    def start_of(self, share: Share) -> int:
        """Return the position of a share's first item among all."""
        return sum(len(other.items) for other in self.shares[: self.shares.index(share)])

    def miss(self) -> bool:
        """A share left; return whether it was the last one, which takes the batch along."""
        gone = all(share.over for share in self.shares)
        if gone:
            self.task.cancel()
        return gone


def _copy(error: BaseException) -> BaseException:
    if isinstance(error, asyncio.CancelledError):
        return asyncio.CancelledError()
    duplicate = copy.copy(error)
    duplicate.__cause__ = error.__cause__
    return duplicate


class _Kind:
    """Shares that may travel together, and their batches in flight.

    Attributes:
        most: Items the next batch may take.
        waiting: Left by any thread, taken on the engine.
        lanes: Its batches in flight.
        rests: How many times the engine has stopped looking for what waits, until it is told of more.
        told: The rest that has been ended so.
    """

    __slots__ = ("lanes", "most", "rests", "told", "waiting")

    def __init__(self, most: int) -> None:
        self.most = most
        self.waiting: deque[Share] = deque()
        self.lanes: set[asyncio.Task[None]] = set()
        self.rests = 0
        self.told = -1


class Coalescer:
    """Merges the calls of one client.

    Args:
        most: Items per merged batch, until it grows; a call with more is not merged.
        window: Seconds a call waits for company although a lane is free.
    """

    def __init__(self, most: int, window: float) -> None:
        self.most: Final = most
        self._window = window
        self._kinds: dict[Hashable, _Kind] = {}
        self._engine: Engine | None = None

    def add(self, key: Hashable, share: Share) -> None:
        """Send a share, alone or in company; called where its caller is.

        Args:
            key: Shares with equal keys may be merged.
            share: Joined.
        """
        caller = share.caller
        if caller.engine is not self._engine:
            # The first one, or that of a forked child: what waits belongs to its parent.
            self._kinds, self._engine = {}, caller.engine
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds.setdefault(key, _Kind(self.most))
        # In this order, as in `Mailbox.post`: whoever finds that the engine is told has left the share before the
        # engine looks, and nobody finds it before it is true.
        kind.waiting.append(share)
        rests = kind.rests
        if kind.told != rests:
            caller.post(self._attend, key, kind)
            kind.told = rests

    def leave(self) -> object:
        """Forget what waits and what is in flight, in a forked child, and return it."""
        kinds, self._kinds = self._kinds, {}
        return kinds

    def _attend(self, key: Hashable, kind: _Kind) -> None:
        if self._window:
            asyncio.get_running_loop().call_later(self._window, self._go_on, key, kind)
        else:
            self._go_on(key, kind)

    def _go_on(self, key: Hashable, kind: _Kind) -> None:
        while kind.waiting and len(kind.lanes) < LANES:
            shares, size = self._gather(kind)
            if shares:
                self._start(key, kind, shares, size)
        if len(kind.lanes) == LANES:  # the next one that is free looks again
            return
        kind.rests += 1
        if kind.waiting:
            kind.told = kind.rests
            self._attend(key, kind)
        elif not kind.lanes and self._kinds.get(key) is kind:
            del self._kinds[key]

    def _start(self, key: Hashable, kind: _Kind, shares: list[Share], size: int) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()

        def free(task: asyncio.Task[None]) -> None:
            kind.lanes.discard(task)
            self._learn(kind, size, loop.time() - began)
            self._go_on(key, kind)

        task = Batch(shares).task
        kind.lanes.add(task)
        # It may be cancelled before its first line, so that it cannot free the lane itself.
        task.add_done_callback(free)

    def _learn(self, kind: _Kind, size: int, took: float) -> None:
        if took > QUICK_SECONDS:
            kind.most = max(self.most, kind.most // 2)
        elif size == kind.most:
            kind.most = min(2 * kind.most, GROWTH * self.most)

    def _gather(self, kind: _Kind) -> tuple[list[Share], int]:
        """Take as many waiting shares as fill a batch, leaving out those whose caller is gone; count their items."""
        shares, size, most = [], 0, kind.most
        while kind.waiting:
            share = kind.waiting[0]
            if not share.over:
                if most > self.most and not share.is_light():
                    most = self.most
                if size + len(share.items) > most:
                    break
                shares.append(share)
                size += len(share.items)
            kind.waiting.popleft()
        return shares, size
