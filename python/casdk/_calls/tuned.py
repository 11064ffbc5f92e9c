"""A call with ``batch_size="auto"``: it reports its replies to a `Tuning`, which sets its batch size and window.

The search is a part of the call, which goes on meanwhile: every request that is measured carries items of the caller's,
and every row is part of the result. Only the sizes of chunks change.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from casdk._calls.batches import Request
from casdk._calls.options import Options
from casdk._calls.run import Run
from casdk._calls.session import Session
from casdk._calls.tuning import FEWEST_ITEMS, Tuning
from casdk._calls.ways import Way
from casdk._engine.logging import logger_of
from casdk._transport.codecs import Reply
from casdk._transport.transport import Received
from casdk.errors import CasdkError, OverloadedError, ServerError, TransportError

if TYPE_CHECKING:
    from casdk._calls.verbs import Verb

__all__ = ["RUNS", "TunedRun"]

LOG: Final = logger_of("casdk.calls")


class TunedRun(Run):
    """A call that searches for its batch size and window, or has those that an earlier one has found.

    Args:
        session: The client's session.
        verb: The verb.
        content: The caller's iterable, checked.
        options: The call's options, with a ``batch_size`` of ``"auto"``, or a `Tuning` that has searched before.
        way: The way to its server, if not the session's.
    """

    def __init__(self, session: Session, verb: Verb, content: Any, options: Options, *, way: Way | None = None) -> None:
        batch_size = options.batch_size
        tuning = batch_size if isinstance(batch_size, Tuning) else Tuning(verb.batch_size)
        least, most = session.window_bounds if options.prefetch is None else (options.prefetch, options.prefetch)
        # Larger messages than the first limit would be cut, and two larger than the second could not be in flight.
        tuning.begin(least, most, min(session.limits.max_message_bytes, session.bytes.share // 2))
        options = msgspec.structs.replace(options, batch_size=tuning.batch_size)
        super().__init__(session, verb, content, options, way=way)
        self._tuning = tuning
        self._searches = not tuning.is_over
        self._trial = tuning.trial
        self._trial_start = 0
        total = self.reading.feed.total
        if total is None or total >= FEWEST_ITEMS:
            self.call.window = tuning
        else:
            tuning.end()

    def place(self, request: Request, received: Received, missing: list[int] | None) -> int:
        tuning, indices = self._tuning, request.batch.indices
        counts = not tuning.is_over and self._is_of_trial(indices[0])
        done = super().place(request, received, missing)
        if counts:
            now, sent_at = received.received_at, received.sent_at
            tuning.measured(now, len(indices), now - sent_at, _seconds_served(received.reply), request.size)
            self._follow()
        return done

    def _is_of_trial(self, index: int) -> bool:
        """Whether an item was read for the current trial, in a chunk of the trial's size."""
        start, chunks = self._unfinished.start_of(index), self._unfinished.chunks
        return start is not None and start >= self._trial_start and len(chunks[start]) == self._tuning.batch_size

    async def _fail(self, request: Request, error: CasdkError) -> None:
        tuning = self._tuning
        if isinstance(error, ServerError) and error.too_large:
            tuning.refused_size(len(request.batch))
        elif _says_too_many(error):
            tuning.refused(request.batch.packed_at, perf_counter())
        elif isinstance(error, TransportError):
            tuning.disturbed()
        self._follow()
        await super()._fail(request, error)

    async def _leave(self, began: float) -> None:
        tuning = self._tuning
        tuning.end()
        if self._searches:
            found = "%s at %s: batch_size='auto' came to %d items per request and %d requests in flight"
            LOG.info(found, self.verb.name, self.way.address, tuning.batch_size, self.call.window.size)
        await super()._leave(began)

    def _follow(self) -> None:
        """If another trial has begun, read chunks of its size from here on."""
        if self._tuning.trial != self._trial:
            self._trial = self._tuning.trial
            self._trial_start = self.reading.count
            self.reading.feed.size = self._tuning.batch_size


RUNS: Final[Mapping[type, type[Run]]] = {NoneType: Run, int: Run, str: TunedRun, Tuning: TunedRun}
"""The class of a call, by the type of its ``batch_size``."""


def _says_too_many(error: CasdkError) -> bool:
    """Whether the server, or a proxy, has answered that there are too many requests: 429, 503, UNAVAILABLE.

    The error of a server that cannot be reached has no code, since nothing has answered.
    """
    return isinstance(error, OverloadedError) or (isinstance(error, TransportError) and error.away and bool(error.code))


def _seconds_served(reply: Reply) -> float:
    """Return the seconds that the server worked at a request, from the reply's routes; 0 if they do not show it."""
    spans = [end - start for _, start, end, _ in reply.routes if start and end]
    return max(spans, default=0) / 1e9
