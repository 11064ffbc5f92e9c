"""Concurrent small calls -> one wire batch: "batch while busy".

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
from collections.abc import Callable, Hashable
from typing import Any, Final, cast

from casdk._engine import Caller, Ending, Engine, Member, tell
from casdk.errors import DeadlineError

__all__ = ["Coalescer", "Share"]

LANES: Final = 2
"""Merged requests in flight per kind: one being answered, one on its way; more would make smaller batches."""
GROWTH: Final = 8
"""Times as many items as a batch takes may travel together in the end."""
QUICK: Final = 0.01
"""Seconds within which a full batch comes back that is followed by one of twice as many items: nobody notices them."""


class Share(Member, ABC):
    """What one call has in a merged batch. It ends once, and tells its caller how.

    Args:
        coalescer: Who merges it.
        key: Shares with equal keys may be merged: endpoint, parameters and all else that a request carries.
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
    def result(self, outcome: Any, start: int) -> Callable[[], Any]:
        """Return what makes the call's result where its caller is, or raise.

        Args:
            outcome: Of the batch.
            start: Position of the first item in it.
        """

    def join(self, caller: Caller[Any]) -> None:
        """Wait for company, and for an end."""
        self.caller = caller
        caller.task = self
        if self.deadline is not None:
            caller.post(self._expect, self.deadline)
        self._coalescer.add(self._key, self)

    def _expect(self, deadline: float) -> None:
        if not self.over:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._expire)

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
            batch.task.add_done_callback(lambda task: tell([ending]))
        else:
            tell([ending])


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
                    endings.append(_settle(share, outcome, start))
                start += len(share.items)
        tell(endings)

    def start_of(self, share: Share) -> int:
        """Return the position of a share's first item among all."""
        return sum(len(other.items) for other in self.shares[: self.shares.index(share)])

    def miss(self) -> bool:
        """A share left; return whether it was the last one, which takes the batch along."""
        gone = all(share.over for share in self.shares)
        if gone:
            self.task.cancel()
        return gone


def _settle(share: Share, outcome: Any, start: int) -> Ending:
    try:
        result = share.result(outcome, start)
    except Exception as error:
        return share.end(None, error)
    return share.end(result, None)


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
        if took > QUICK:
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
