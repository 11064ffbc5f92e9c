"""The sans-I/O core: what a call does next.

Rule 1: every decision about a call lives here: the window, retries, splitting, which failure ends it.
Rule 2: nothing here awaits, sleeps, reads a clock, opens anything or draws a random number of its own. Events come in
with their time; what to do next is asked for.

The `Window` decides how many requests are in flight, and `Isolation` finds a bad item of a batch.

A server that is away, e.g. restarting, is waited for (`Outage`): one request of the call at a time asks whether it is
back, at growing intervals, and all others wait for the answer. What finds it away counts as no attempt.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Final, Literal, TypeAlias, cast

import msgspec

from casdk._calls.batches import Batch
from casdk._calls.isolation import Isolation
from casdk._calls.outages import PATIENCE_SECONDS, Outage, ServerState
from casdk._calls.sample import Sample
from casdk._calls.window import Window
from casdk.config import Retry
from casdk.errors import (
    AuthError,
    CasdkError,
    ItemError,
    NotSupportedError,
    OverloadedError,
    RejectedError,
    ServerError,
    TransportError,
)

__all__ = ["Call", "ErrorMode", "NextStep", "RetryBudget"]

ErrorMode: TypeAlias = Literal["raise", "return", "skip"]
NextStep: TypeAlias = Literal["abandoned", "split", "move", "repeat", "wait", "lost", "stop"]
"""What happens next with a batch that failed, in this order: nothing, since the call is over; its halves are sent; it
is sent to another server at once; it is sent again; it is sent again when the server is back; it gets no result, and
the call goes on; the call ends."""

HOPELESS_ITEMS: Final = 64
"""An executor that has failed on so many items of a call, and succeeded on none, is at fault, and not the items."""
FREE_RETRIES: Final = 100
"""Repeats that a client may make before they are counted against its requests."""
MOST_DOUBLINGS: Final = 63
"""Doublings of the wait between attempts: after a thousand of them, it would be more than a float can hold."""
CULPRIT_OUTAGES: Final = 5
"""If the server went away so many times while it had the same request, that request is taken for the reason."""


class RetryBudget(msgspec.Struct):
    """How many repeats a client may still make, over all its calls, so that a dying server is not flooded with them.

    Attributes:
        per_request: Repeats that each first attempt allows.
        spent: Repeats that were made and not allowed again since.
    """

    per_request: float
    spent: float = 0.0

    def earn(self) -> None:
        """Count a request that was not a repeat."""
        self.spent = max(0.0, self.spent - self.per_request)

    def spend(self) -> bool:
        """Take one repeat out of the budget; return whether there was one."""
        if self.spent > FREE_RETRIES - 1:
            return False
        self.spent += 1
        return True


class Call(msgspec.Struct, kw_only=True, eq=False):
    """One call's state, and what it does next; `Run` asks it and reports to it what happened.

    Attributes:
        window: How many requests may be in flight.
        retry: The retry policy.
        budget: How many repeats the client may still make.
        errors: What a bad item does to the call.
        resend: Whether a request may be sent again, or split, once its bytes may have reached the server.
        draw: Returns a random number in ``[0, 1)``, for jitter.
        tolerant: Whether a batch that failed for good does not end the call, and is not split, as with ``on_error``.
        on_refuse: Called with the error of each item that will have no result, before anything else is done with it.
        server: What all calls of the client know about the server.
        own_patience: Seconds that a server which has answered may be away, if this call has set them itself.
        sample: The items that have to be answered before others are sent, if crops with loss are measured.
        outage: The outage that the call waits for the end of, if there is one.
        stopped: The error that ended the call early.
        done: How many items have a result.
        bad: The errors of items without a result, by index.
    """

    window: Window
    retry: Retry
    budget: RetryBudget
    errors: ErrorMode
    resend: bool
    draw: Callable[[], float]
    tolerant: bool = False
    on_refuse: Callable[[ItemError], None] | None = None
    server: ServerState = msgspec.field(default_factory=ServerState)
    own_patience: float | None = None
    sample: Sample | None = None
    outage: Outage | None = None
    stopped: BaseException | None = None
    done: int = 0
    bad: dict[int, ItemError] = {}
    _ready: list[Batch] = []
    _delayed: list[Batch] = []
    _in_flight: set[Batch] = set()
    _undelivered: int = 0
    _held_back: int = 0
    _full: bool = False
    _open: bool = True
    _begun: int = 0
    _successes: int = 0
    _hopeless: int = 0
    _unsure: set[int] = set()

    # what is asked

    def room(self) -> int:
        """Return how many chunks may be read now."""
        if not self._open or self.stopped is not None or self._full:
            return 0
        window, held_back = self.window.size, self._held_back
        room = window - len(self._ready) - len(self._delayed) - len(self._in_flight) - self._undelivered
        # Beside the window, as many pieces again may be held back, so that one slow reply does not stop all others.
        return room if held_back <= window else room - (held_back - window)

    def is_finished(self) -> bool:
        """Whether the call has nothing left to do."""
        return self.stopped is not None or not (self._open or self._ready or self._delayed or self._in_flight)

    @property
    def crowded(self) -> bool:
        """Whether more than one request is in flight."""
        return len(self._in_flight) > 1

    def is_alone(self) -> bool:
        """Whether the one batch just handed out is all there is."""
        return not self._open and len(self._in_flight) == 1 and not self._ready and not self._delayed

    @property
    def patience(self) -> float:
        """Seconds that the server may be away, by all that is known now."""
        if (patience := self._chosen_patience) is not None:
            return patience
        more_than_one = self._begun + len(self._ready) > 1
        return PATIENCE_SECONDS if self.retry.attempts > 1 and self.server.answered and more_than_one else 0.0

    @property
    def _chosen_patience(self) -> float | None:
        """The patience that the call, or its client, has set, in seconds."""
        if self.own_patience is not None and self.server.answered:
            return self.own_patience
        return self.retry.patience

    def next_batch(self, now: float) -> Batch | None:
        """Return a batch to send now, which is in flight from here on."""
        if self.stopped is not None or len(self._in_flight) >= self.window.size:
            return None
        outage = self.outage
        if outage is not None and not outage.may_ask(now):
            return None
        batch = self._pop_delayed(now) if self._delayed else None
        if batch is None:
            if not self._ready or (self.sample is not None and not self._is_of_sample(self.sample)):
                return None
            batch = self._ready.pop(0)
        self._in_flight.add(batch)
        if not batch.attempts:
            self._begun += 1
            if self.budget.spent:
                self.budget.earn()
        batch.attempts += 1
        if batch.sent:
            batch.sent = False
        if outage is not None and not outage.given_up:
            outage.asking = batch
        return batch

    def _pop_delayed(self, now: float) -> Batch | None:
        for position, batch in enumerate(self._delayed):
            if batch.not_before <= now:
                return self._delayed.pop(position)
        return None

    def _is_of_sample(self, sample: Sample) -> bool:
        """Whether the next batch is to be measured; items of it behind the sample are cut off, and wait."""
        if sample.end is None:
            return True
        batch = self._ready[0]
        count = bisect_left(batch.indices, sample.end)
        if 0 < count < len(batch):
            self._ready[0] = batch.part(0, count)
            self._ready.insert(1, batch.part(count))
        return count > 0

    @property
    def waits_for_sample(self) -> bool:
        """Whether all items to be measured were answered, and others wait for the measurement."""
        end = None if self.sample is None else self.sample.end
        if end is None or self._in_flight or self._delayed:
            return False
        return not self._ready or self._ready[0].indices[0] >= end

    @property
    def ended(self) -> bool:
        """Whether the whole content has been read."""
        return not self._open

    @property
    def attempts(self) -> int:
        """The most attempts of any batch that has no answer yet."""
        return max((batch.attempts for batch in (*self._in_flight, *self._ready, *self._delayed)), default=0)

    @property
    def unconfirmed(self) -> list[int]:
        """Indices of items that were sent, and no answer says whether the server has stored them, ascending."""
        in_flight = (index for batch in self._in_flight if batch.sent for index in batch.indices)
        return sorted(self._unsure.union(in_flight))

    @property
    def wake_at(self) -> float | None:
        """When to ask for the next batch again, if nothing happens before."""
        delayed = min((batch.not_before for batch in self._delayed), default=None)
        outage = self.outage
        if outage is None or outage.given_up:
            return delayed
        if outage.asking is not None:
            return None
        if self._ready:
            return outage.ask_at
        return None if delayed is None else max(outage.ask_at, delayed)

    # what happens

    def add(self, batch: Batch) -> None:
        """Note that a batch was read."""
        if self.sample is not None:
            self.sample.read(batch)
        self._ready.append(batch)

    def end_input(self) -> None:
        """Note that the content has ended."""
        self._open = False

    def cut(self, rest: Batch) -> None:
        """Note that a batch was too large for one message; ``rest`` has the items that are to be sent next."""
        self._ready.insert(0, rest)

    def refuse(self, error: ItemError) -> None:
        """Note that an item will have no result, which may end the call."""
        self._mark(error)
        if self.errors == "raise":
            self.stop(error)

    def _mark(self, error: ItemError) -> None:
        if self.on_refuse is not None:
            self.on_refuse(error)
        self.bad[error.index] = error

    def stop(self, error: BaseException) -> None:
        """End the call; if it was stopped before, the first reason stays."""
        if self.stopped is None:
            self.stopped = error

    def answered(self, took: float, size: int, batch: Batch | None = None) -> None:
        """Note that a request was answered, by a result or an error.

        Args:
            took: Seconds from handing the request to the channel until its reply was there.
            size: Bytes of request and reply together.
            batch: The batch of the request.
        """
        self.window.answered(took, size)
        self.server.answered = True
        # The server is back if this was sent while it was away; other answers may have been on their way before.
        if self.outage is not None and (self.outage.given_up or self.outage.asking is batch):
            self.outage = None

    def succeed(self, batch: Batch, rows: int) -> None:
        """Note that the rows of a reply were stored."""
        self._in_flight.discard(batch)
        if self.outage is not None:
            self._stop_asking(batch)
        if self._unsure:
            self._unsure.difference_update(batch.indices)
        self._successes += 1
        self.done += rows
        if batch.isolation is not None:
            batch.isolation.passed()
            self._go_on(batch.isolation)

    def deliver(self) -> None:
        """Note that a finished piece waits for the caller."""
        self._undelivered += 1

    def delivered(self) -> None:
        """Note that the caller took a piece."""
        self._undelivered -= 1

    def hold_back(self, pieces: int, *, full: bool) -> None:
        """Note how many pieces are complete and wait for an earlier one, and whether their bytes reach the limit."""
        self._held_back, self._full = pieces, full

    def interrupt(self, batch: Batch) -> None:
        """Note that the engine took the batch back, e.g. for a fork; it is sent again, and no attempt is counted."""
        self._in_flight.discard(batch)
        self._stop_asking(batch)
        batch.attempts -= 1
        self._begun -= not batch.attempts
        self._ready.insert(0, batch)

    def _stop_asking(self, batch: Batch) -> bool:
        """Note that the batch is not in flight any more; return whether it was to find out if the server is back."""
        if self.outage is None or self.outage.asking is not batch:
            return False
        self.outage.asking = None
        return True

    def fail(self, batch: Batch, error: CasdkError, now: float) -> NextStep:
        """Note that a request failed; return what happens next with its batch."""
        self._in_flight.discard(batch)
        error.attempts = batch.attempts
        if batch.sent and not _took_nothing(error):
            self._unsure.update(batch.indices)
        asked = self._stop_asking(batch)
        if self._is_too_large(batch, error):
            if self.stopped is not None:
                return "abandoned"
            self._halve(batch, cast(ServerError, error))
            return "split"
        self.window.failed()
        failure = error if isinstance(error, TransportError | ServerError) else None
        if failure is None or not failure.away:
            self._found_present(error, asked)
        elif failure.sent and not asked:
            batch.outages += 1
        if self.stopped is not None:
            return "abandoned"
        if self._may_split(batch, error):
            self._isolate(batch, cast(ServerError, error))
            return "split"
        if failure is not None and (step := self._send_again(batch, failure, asked, now)) is not None:
            return step
        if self.tolerant:
            for index, item in zip(batch.indices, batch.items, strict=True):
                self._mark(ItemError(index, item, f"its request failed: {error}", error))
            return "lost"
        self.stop(error)
        return "stop"

    def _send_again(
        self, batch: Batch, error: TransportError | ServerError, asked: bool, now: float
    ) -> NextStep | None:
        """Send a whole batch again, to another server or to this one, if that is safe and may help; return how."""
        if self._may_move(batch, error, now):
            batch.excused += error.away
            batch.outages += asked and error.sent
            self._ready.insert(0, batch)
            return "move"
        if not self._may_help(error):
            return None
        if isinstance(error, TransportError) and error.blameless:
            batch.attempts -= 1
            self._ready.insert(0, batch)
            return "repeat"
        if error.away and self._may_wait(batch, now):
            self._put_off(batch, error, asked, now)
            return "wait"
        if self._may_repeat(batch, error):
            batch.not_before = now + max(self._backoff(batch.attempts), error.retry_after or 0.0)
            self._delayed.append(batch)
            return "repeat"
        return None

    def _found_present(self, error: CasdkError, asked: bool) -> None:
        """Note that a request failed on a server that is not away, which ends an outage."""
        given_up = self.outage is not None and self.outage.given_up
        if isinstance(error, ServerError):
            self.server.answered = True
        if asked or (given_up and isinstance(error, ServerError)):
            self.outage = None

    def _is_too_large(self, batch: Batch, error: CasdkError) -> bool:
        """Whether the server, or a proxy, takes no request as large as this one, and it may be sent in parts."""
        if not (isinstance(error, ServerError) and error.too_large and (self.resend or not error.sent)):
            return False
        return len(batch) > 1 or not self.tolerant

    def _halve(self, batch: Batch, error: ServerError) -> None:
        """Send the halves of a batch that is too large; an item that is too large by itself gets no result."""
        # A search for a bad item ends here: this half is too large, so the server cannot show whether it is bad.
        unsent = [] if batch.isolation is None else batch.isolation.leave()
        if len(batch) == 1:
            self.refuse(RejectedError(batch.indices[0], batch.items[0], f"it is too large by itself: {error}", error))
        else:
            middle = (len(batch) + 1) // 2
            unsent[:0] = [batch.part(0, middle), batch.part(middle)]
        if self.stopped is None:
            self._ready[:0] = unsent

    def _may_split(self, batch: Batch, error: CasdkError) -> bool:
        if not (isinstance(error, ServerError) and error.for_item) or self.tolerant or not self.resend:
            return False
        return self._successes > 0 or self._hopeless < HOPELESS_ITEMS

    def _may_move(self, batch: Batch, error: TransportError | ServerError, now: float) -> bool:
        """Whether the batch is sent to another server at once, which may take what this one has failed on."""
        if isinstance(error, ServerError) and not isinstance(error, OverloadedError):
            return False
        if self.retry.attempts == 1 or batch.outages >= CULPRIT_OUTAGES or not self.server.has_another(now):
            return False
        return self._is_safe(error) and (error.away or batch.attempts - batch.excused < self.retry.attempts)

    def _may_help(self, error: TransportError | ServerError) -> bool:
        """Whether sending the batch again is safe, and can help within the time that the call waits."""
        patience = self._chosen_patience
        longest = max(self.retry.max_backoff, PATIENCE_SECONDS if patience is None else patience)
        return error.retryable and (error.retry_after or 0.0) <= longest and self._is_safe(error)

    def _is_safe(self, error: TransportError | ServerError) -> bool:
        """Whether the request may be sent again, after it failed with this error."""
        # A server that refuses requests as too many has not begun with this one; a server that went away may have.
        refused = isinstance(error, OverloadedError) and not error.shared
        return self.resend or refused or not error.sent

    def _may_wait(self, batch: Batch, now: float) -> bool:
        """Whether the call waits longer for the server, and the batch is not the reason that the server is away."""
        if self.outage is not None and now >= self.outage.since + self.patience:
            self.outage.given_up = True
        return self.patience > 0 and batch.outages < CULPRIT_OUTAGES and not (self.outage and self.outage.given_up)

    def _put_off(self, batch: Batch, error: TransportError | ServerError, asked: bool, now: float) -> None:
        """Send the batch again when the server is back."""
        outage = self.outage
        if outage is None:
            outage, asked = Outage(now), True
            self.outage = outage
        if asked:
            outage.tries += 1
            outage.wait(now, self._backoff(outage.tries), error.retry_after or 0.0, self.patience)
        batch.excused += 1
        batch.not_before = outage.ask_at
        # The batch that was sent to ask for the server is sent first, so that the order of the others does not change.
        self._delayed.insert(0 if asked else len(self._delayed), batch)

    def _may_repeat(self, batch: Batch, error: TransportError | ServerError) -> bool:
        # An attempt that found the server away counts only once the server is not waited for any longer.
        attempts = batch.attempts if error.away else batch.attempts - batch.excused
        if attempts >= self.retry.attempts:
            return False
        # A request that never left the client was no load on the server, and so costs nothing of the budget. An error
        # with a code comes from an answered handshake, which was a load.
        never_left = isinstance(error, TransportError) and not error.sent and not error.code
        return never_left or self.budget.spend()

    def _backoff(self, tries: int) -> float:
        """Return the seconds between this try and the next."""
        policy = self.retry
        longest = min(policy.max_backoff, policy.backoff * 2.0 ** min(tries - 1, MOST_DOUBLINGS))
        return longest * (1 - policy.jitter * self.draw())

    def _isolate(self, batch: Batch, error: ServerError) -> None:
        isolation = batch.isolation
        if isolation is None:
            isolation = Isolation(batch, error)
        else:
            isolation.failed(error)
        self._go_on(isolation)

    def _go_on(self, isolation: Isolation) -> None:
        if len(isolation.group) > 1:
            self._ready.insert(0, isolation.probe())
            return
        self._hopeless += 1
        culprit = isolation.group
        error = isolation.error
        rejected = RejectedError(culprit.indices[0], culprit.items[0], f"the server fails on this item: {error}", error)
        rejected.attempts = error.attempts
        self.refuse(rejected)
        if self.stopped is None and (rest := isolation.rest()) is not None:
            self._ready.insert(0, rest)


def _took_nothing(error: CasdkError) -> bool:
    """Whether the error says that the server has stored nothing of the request."""
    if isinstance(error, TransportError | ServerError) and not error.sent:
        return True
    return isinstance(error, AuthError | NotSupportedError | OverloadedError) and not error.shared
