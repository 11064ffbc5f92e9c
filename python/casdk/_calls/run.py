"""One call: reads the content, packs it into requests, sends them, places the replies, and makes the result.

A `Run` is made where the caller is, runs on the engine (`Run.run`), and makes its result where the caller is again
(`Run.result`): touching a hundred thousand Documents would hold up the engine. What is done next is decided by
`casdk._calls.decisions.Call`: `Run._drive` asks it, and reports to it what happened.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from functools import partial
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET
from msgspec.structs import replace

from casdk._calls.answers import Nothing, read_apart_if_large, refuse
from casdk._calls.batches import Batch, Repeats, Request, Unfinished
from casdk._calls.callbacks import Callbacks
from casdk._calls.decisions import Call
from casdk._calls.delivery import Delivery
from casdk._calls.failures import log_failure, note_outage
from casdk._calls.options import Options
from casdk._calls.originals import Originals
from casdk._calls.outages import Outage
from casdk._calls.outcome import Outcome, Sent
from casdk._calls.packing import Packing, leave_out
from casdk._calls.progress import Progress
from casdk._calls.race import race
from casdk._calls.reading import Manner, Reading
from casdk._calls.session import ByteShare, Session
from casdk._calls.tasks import Tasks, sleep_until
from casdk._calls.tracebacks import drop_frames, raise_stopped
from casdk._calls.ways import Way
from casdk._calls.window import Window
from casdk._content.feeds import Feed
from casdk._engine.callers import Caller
from casdk._engine.logging import are_pending, emitted, logger_of
from casdk._engine.steps import have_task
from casdk._rust import new_id
from casdk._transport.channels.options import DEFAULTS, ExchangeOptions
from casdk._transport.codecs import read_error
from casdk._transport.transport import InterruptedByForkError, Received
from casdk.errors import (
    CallbackError,
    CasdkError,
    ClosedError,
    DeadlineError,
    ModelMismatchError,
    NoEmbeddingError,
    ServerError,
    TransportError,
)

if TYPE_CHECKING:
    from casdk._calls.verbs import Verb

__all__ = ["Run"]

LOG: Final = logger_of("casdk.calls")
UNWATCHED: Final = nullcontext()
ANSWER_SECONDS: Final = 1.0
"""How long a stopped call of ``index`` waits for the answers to its other requests, to know what the server stored."""


class Run:
    """One call; the functions of `casdk._calls.verbs` make it, and `casdk._engine.waiting` runs it.

    Args:
        session: The client's session.
        verb: The verb, as a value.
        content: The caller's iterable, checked.
        options: The call's options.
        answer_by: The deadline of its requests, in the engine's time; by default that of the call.
        merged: Whether it carries the items of several calls.
        way: The way to its server, if not the session's.

    Attributes:
        caller: The thread or loop that it came from, once it runs.
        packing: Packs its requests.
        answer: Collects its replies.
        receiver: Takes its replies: the answer, or what passes them on to callbacks.
        is_plain: Whether its requests wait only for replies: no telemetry, guard, pace, pool, callbacks or documents.
        reading: Reads its content.
        guard: Checks the vector space of its servers, if that matters.
        call: The decisions about it.
        tasks: Its tasks and requests under way.
        before: A check that runs on a worker before anything is sent, if there is one.
        sent: How much it has sent.
        stopped: The error that stopped it, when it is over.
    """

    before: Callable[[], None] | None = None
    caller: Caller[Any]
    _made: tuple[Any] | None = None  # the result, if it was made before the caller asked for it

    def __init__(
        self,
        session: Session,
        verb: Verb,
        content: Any,
        options: Options,
        *,
        answer_by: float | None = None,
        merged: bool = False,
        way: Way | None = None,
    ) -> None:
        # CPython keeps up to 30 attributes in the object itself; with more, each call would pay for a dict.
        self.session = session
        self.verb = verb
        self.options = options
        self.way = way or session.way
        self._bytes = ByteShare(session.bytes)
        self.packing = Packing(session, self.way.codecs, verb, options, self._bytes)
        self.guard = session.guard if verb.guarded else None
        timeout = session.timeouts.total if options.timeout is UNSET else options.timeout
        self.deadline = None if timeout is None else monotonic() + timeout
        until, again = self.deadline if answer_by is None else answer_by, verb.resend
        self.exchange_options = DEFAULTS if until is None and again else ExchangeOptions((), until, again)
        size = options.batch_size or verb.batch_size
        feed = Feed(content, size, options.reader, timeout)
        # Whether it returns the verb's result, and neither the responses nor nothing.
        self.gathers = gathers = options.on_done is None and options.on_always is None and not options.return_responses
        self.originals = Originals(content, candidates=verb.candidates, whole=verb.whole, keeps_all=gathers)
        self.answer = verb.answer(feed.total, options)
        self.receiver = self.answer if gathers else Nothing(feed.total, options, self.answer)
        self._callbacks = None if gathers and options.on_error is None else Callbacks(options)
        is_watched = session.telemetry is not None or self.guard is not None or session.pace.slows or not self.way.only
        self.is_plain = verb.resend and not (is_watched or self._callbacks is not None or self.receiver.unpacks)
        is_light = self.is_plain and self.way.has_waiters and timeout is None and options.images == "original"
        self._needs_task = not is_light or feed.total is None or feed.total > size
        self._unfinished = Unfinished()
        self.repeats = Repeats() if options.dedupe else None
        self.call = self._make_call()
        self.sent = Sent()
        self._progress = Progress(verb.name, feed.total, self.sent) if options.show_progress else None
        watch = None if session.telemetry is None else session.telemetry.watch
        self.watch = None if watch is None else watch(verb.name, self.packing.endpoint, feed.total, merged)
        # None of these objects refers to this one: the cycle would keep the result until a garbage collection.
        manner = Manner(verb, self.originals, self.answer, session.limits.max_item_bytes, session.sources)
        self.reading = Reading(self.call, feed, self.receiver, manner, self._unfinished, self.repeats, self._progress)
        self.tasks = Tasks(self.call.stop)
        self.stopped: CasdkError | None = None
        self._awaited: Outage | None = None  # the outage that was reported to the log and the bar
        self._delivery: Delivery | None = None
        if self.receiver.pieces:
            self._delivery = Delivery(self.call, self.receiver, self.tasks, ByteShare(session.bytes))

    def _make_call(self) -> Call:
        session, options = self.session, self.options
        return Call(
            window=session.window if options.prefetch is None else Window(options.prefetch),
            retry=session.retry,
            budget=session.retries,
            errors=options.errors,
            resend=self.verb.resend,
            draw=random.random,
            tolerant=options.on_error is not None,
            on_refuse=partial(refuse, self.receiver, self._unfinished),
            server=self.way.state,
            own_patience=options.patience,
        )

    # On the engine, from its beginning to its end

    async def run(self, caller: Caller[Any]) -> Callable[[], Any]:
        """Run the call; return a function that makes its result, which is called where the caller is.

        Args:
            caller: The thread or loop that the call came from.

        Raises:
            BaseException: An error of the caller's own code, or the cancellation of the call.
        """
        self.caller = caller
        if self._needs_task:
            await have_task()
            if self.before is not None:
                await caller.run_on_worker(self.before)
        began = monotonic()
        try:
            with self.watch or UNWATCHED:
                with self._progress or UNWATCHED:
                    try:
                        if self.options.images != "original" and self.verb.prove is not None:
                            await self.verb.prove(self, caller)
                        self.session.enter(self)
                        await (self._drive() if self.deadline is None else self._drive_until(self.deadline))
                    finally:
                        await self._leave(began)
                    if self.call.stopped is not None:
                        raise_stopped(self.call)
                if self.verb.confirm is not None:
                    await self.verb.confirm(self, caller)
        except CasdkError as error:
            self.stopped = error
        except asyncio.CancelledError:
            if not self.session.closed:
                raise
            self.stopped = ClosedError("the client was closed during the call")
        finally:
            if self._progress is not None:
                await self._progress.shown(self.deadline)
        if self.stopped is not None:
            drop_frames(self.stopped)
        if caller.loop is not None and self.originals.are_many:
            # The result is made on a worker, since it would block the caller's loop.
            self._made = (await caller.run_on_worker(self._make),)
        return self.result

    async def _drive_until(self, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._drive()
        except TimeoutError:
            self.call.stop(DeadlineError("the call's time ran out"))

    async def _drive(self) -> None:
        """Read while there is room, send what may be sent, sleep until something happens; until the call is done."""
        call, reading = self.call, self.reading
        if self.way.only is None and monotonic() >= self.way.open_until:
            await self.way.open()
        while True:
            reading.go_on(self)
            time, is_ready, over = monotonic(), None, False
            while (batch := call.next_batch(time)) is not None:
                if not self.tasks.running and call.is_alone():  # no task, since the call has nothing else to do
                    await self._attempt(batch)
                    over = True
                    break
                if is_ready is None:
                    is_ready = self._is_ready()
                if is_ready:
                    over = self.tasks.carry_on(batch, self._attempt(batch)) or over
                else:
                    self.tasks.begin(batch, self._attempt(batch))
            if (measurement := self.packing.measurement) is not None and call.waits_for_sample:
                measurement.begin(self.tasks, call.patience)
            # A task that has reported a failure may still run callbacks, and the call must not end before them.
            if call.is_finished() and not (call.stopped is None and self.tasks.running):
                if self.verb.whole and isinstance(call.stopped, CasdkError):
                    await self.tasks.wait_for_answers(ANSWER_SECONDS)
                return
            if over:  # requests ended without a wait, so other calls get their turn first; this one then has a task
                await asyncio.sleep(0)
            elif not reading.may_go_on:
                await self.tasks.sleep(call.wake_at)

    def _is_ready(self) -> bool:
        """Whether requests would wait only for their replies, so that they need no tasks."""
        return self.is_plain and self.way.direct is not None and self.way.direct.is_ready

    def hand_over_pieces(self) -> None:
        """Hand over the pieces that are complete and next in order, if the answer comes in pieces."""
        if self._delivery is not None:
            self._delivery.hand_over(self.caller)

    async def _leave(self, began: float) -> None:
        """Clean up after the last request, or when the call was stopped; report how many items are done."""
        self.reading.close()
        try:
            if self.tasks.running:
                await self.tasks.cancel_all()
        finally:
            self.session.calls.pop(self, None)
            if self._awaited is not None:
                self.way.state.leave(self.call)
            if self._delivery is not None:
                self._delivery.end(self.caller)
            if self.watch is not None:
                self.watch.count(self.call.done)
            if LOG.isEnabledFor(logging.DEBUG):
                name, where, took = self.verb.name, self.way.address, monotonic() - began
                done, count = self.call.done, self.reading.count
                LOG.debug("%s at %s: %d of %d items done in %.3f s", name, where, done, count, took)
            if are_pending():
                await emitted(self.deadline)

    # A request: pack, choose its server, send, place

    async def _attempt(self, batch: Batch) -> None:
        """Send one batch, place its reply, and report how it ended; a task of its own, unless it is all there is."""
        begun, call, packing, received, done = self.exchange_options.begun, self.call, self.packing, None, 0
        request = Request(batch, new_id() if begun is None else begun.next_id())
        if self.watch is not None:
            self.watch.begin(batch)
        try:
            batch.taken_at, packed = perf_counter(), None
            if not (self.tasks.running and self._bytes.is_full()):  # a batch of sentences is packed at once
                codec = request.codec = self.way.codec
                packed = packing.packers[codec].pack_sentences(request.id, batch.items, batch.kinds)
            packed = packed or await packing.pack(request, self.way, self.caller, self._is_patient)
            batch.packed_at = perf_counter()
            if packed.rows < len(batch.items):
                leave_out(batch, packed, call)
            message = packed.message if packed.rows else None
            del packed
            if message is not None and call.stopped is None:
                request.transport = self.way.direct
                if request.transport is None or self.session.pace.slows:
                    await self._choose_server(request, len(message))
                    if request.transport is None:
                        return
                sent = self._send(request, message)
                message = None  # so that it is deallocated once it has been sent
                received, missing = await sent, None
                if received.reply.failed or not self.is_plain or self.way.direct is None:
                    missing = await self._receive(request, received)
                done = self.place(request, received, missing)
            call.succeed(batch, done)
            if self.watch is not None:
                self.watch.succeed(batch, done)
            if self._delivery is not None:
                self._delivery.hand_over(self.caller)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            await self._end_by(error, request)
        finally:  # release what the attempt has held, and wake the call
            if request.assignment is not None:
                self.way.leave(request)
            self._bytes.hold(-request.size)
            if packing.measurement is not None:
                packing.measurement.leave(request, received if done else None)
            if self.tasks.running:  # else the call does not sleep, but awaits this
                self.tasks.end(batch)

    async def _end_by(self, error: BaseException, request: Request) -> None:
        """End an attempt by an error: one of the request is reported, and any other one ends the call."""
        try:
            if isinstance(error, InterruptedByForkError):
                self.call.interrupt(request.batch)
            elif isinstance(error, CasdkError) and not isinstance(error, CallbackError | ModelMismatchError):
                await self._fail(request, error)
            else:
                self.call.stop(error)
        except asyncio.CancelledError:
            raise
        except BaseException as raised:  # by a callback, which `_fail` has called
            self.call.stop(raised)

    async def _choose_server(self, request: Request, size: int) -> None:
        """Choose the server of a packed request, and wait until the client's pace and the server's let it be sent.

        If the best server wants the other form, or the call was stopped meanwhile, the request gets no transport, and
        the batch goes back to the decisions.
        """
        if self.session.pace.slows:
            await self.session.wait_for_turn(len(request.batch))
        is_stopped = self.call.stopped is not None
        request.transport = None if is_stopped else self.way.direct or self.way.transport_for(request, size)
        if request.transport is None:
            self.call.interrupt(request.batch)
        elif request.send_at is not None:
            await sleep_until(request.send_at)

    def _is_patient(self, batch: Batch) -> bool:
        """Whether a batch may wait until other requests are answered."""
        return self.call.crowded and not self.receiver.urgent(batch.indices[0])

    def _send(self, request: Request, message: bytes | memoryview) -> Coroutine[Any, Any, Received]:
        """Count a request as sent, and return the coroutine that sends it: to one server, or a late one to two."""
        batch, transport, size = request.batch, request.transport, len(message)
        assert transport is not None
        if size > transport.largest and len(batch) > 1:
            raise ServerError(f"{size:,} bytes are more than was taken so far", too_large=True, sent=False)
        request.size = size
        self._bytes.hold(size)
        batch.sent = True
        if self.way.hedging is not None and self.verb.resend:
            return race(self, request, message)
        return self.exchange(request, message)

    def exchange(self, request: Request, message: bytes | memoryview) -> Coroutine[Any, Any, Received]:
        """Send a request to the server that was chosen for it, and return the reply."""
        transport, options = request.transport, self.exchange_options
        assert transport is not None
        if self.guard is not None:
            options = replace(options, check=self.guard.check_for(request.batch, transport, self.packing.model_name))
        if self.watch is None:
            return transport.exchange(request.id, message, options)
        return self.watch.exchange(transport, request.batch, request.id, message, options)

    async def _receive(self, request: Request, received: Received) -> list[int]:
        """Take a reply that is an error, or needs its documents or callbacks; return the positions without a result."""
        batch, reply, indices = request.batch, received.reply, request.batch.indices
        error = read_error(reply) if reply.failed else None
        # A transport's error in a reply means that the gateway does not reach its executor: the server is away.
        if error is None or not isinstance(error, TransportError):
            self.call.answered(received.received_at - received.sent_at, request.size + received.size, batch)
            if self._awaited is not None:
                self._awaited = note_outage(self.call, self.way, self._progress, self._awaited)
        if error is not None:
            assert request.transport is not None
            request.transport.hide_token(error)
            if self._callbacks is not None:
                await self._callbacks.report(self.caller, batch, request.id, received, error)
            request.reported = True
            raise error
        if self.way.direct is None:
            self.way.answered(request)
        unpacked = None
        if self.receiver.unpacks:
            unpack = partial(self.receiver.unpack, indices, reply, request.id)
            unpacked = await read_apart_if_large(unpack, received, self.caller)
        missing = self.receiver.place(indices, batch.items, reply, unpacked, request.id)
        if self._callbacks is not None:
            await self._callbacks.report(self.caller, batch, request.id, received, None)
        return missing

    def place(self, request: Request, received: Received, missing: list[int] | None) -> int:
        """Store the rows of a reply, unless `_receive` did, and mark items as done; return how many have a result."""
        indices, items = request.batch.indices, request.batch.items
        if missing is None:
            self.call.answered(received.received_at - received.sent_at, request.size + received.size, request.batch)
            if self._awaited is not None:
                self._awaited = note_outage(self.call, self.way, self._progress, self._awaited)
            missing = self.receiver.place(indices, items, received.reply, None, request.id)
        for position in missing:
            reason = "the server answered without an embedding for it"
            self.call.refuse(NoEmbeddingError(indices[position], items[position], reason))
        self._unfinished.mark_done(indices)
        if self._progress is not None:
            self._progress.advance(len(items), request.size, received.size)
        sent, crops = self.sent, sum(request.batch.crops)
        sent.bytes += request.size
        sent.cropped += crops
        if self._delivery is not None:
            self.receiver.answered(indices[0], request.size, crops, sent)
        return len(items) - len(missing)

    async def _fail(self, request: Request, error: CasdkError) -> None:
        """Report a request that failed to the pool, the decisions, telemetry, the log and the callbacks."""
        batch, now = request.batch, asyncio.get_running_loop().time()
        if request.transport is not None:
            self.way.failed(request, error, self.exchange_options.answer_by)
        outcome = self.call.fail(batch, error, now)
        wait = max(0.0, batch.not_before - now)
        self._awaited = note_outage(self.call, self.way, self._progress, self._awaited, error)
        if self.watch is not None:
            self.watch.fail(batch, error, outcome, wait)
        log_failure(error.server or self.way.address, request, error, outcome, wait)
        self.hand_over_pieces()
        if outcome == "lost" and not request.reported:
            assert self._callbacks is not None  # on_error is what lets a batch be lost
            await self._callbacks.report_lost(self.caller, request.id, error)

    # Where the caller is: the result

    def result(self) -> Any:
        """Return the call's result, or raise what stopped it; once."""
        result = None
        try:
            result = self._make() if self._made is None else self._made[0]
            if isinstance(result, CasdkError):
                raise result
            return result
        except BaseException:
            # The error's traceback refers to this frame, and so would keep all of the call in memory.
            vars(self).clear()
            raise
        finally:
            del result

    def _make(self) -> Any:
        outcome = self.outcome()
        return self.verb.finish(self, outcome) if self.gathers else outcome.stopped or self.responses()

    def outcome(self, stopped: CasdkError | None = None) -> Outcome:
        """Return the outcome, and write into the error that stopped the call how many items were done.

        Args:
            stopped: The error that stopped the call, if ``self.stopped`` is not set yet.
        """
        stopped = stopped or self.stopped
        if stopped is not None:
            self.reading.take_rest()
        left = {} if stopped is None else self._unfinished.left()
        read, bad = self.reading.count, self.call.bad
        if self.repeats is not None:
            self.repeats.spread(bad, left)
        outcome = Outcome(read, bad, left, stopped, sorted({*bad, *left}) if bad or left else [], self.sent)
        if stopped is not None:
            stopped.done = read - len(outcome.missing)
            total = self.reading.feed.total
            stopped.total = read if total is None and self.call.ended else total
            stopped.attempts = stopped.attempts or self.call.attempts
            stopped.server = stopped.server or self.way.address
            if not self.gathers:
                stopped.responses = self.responses()
        return outcome

    def responses(self) -> Any:
        """Return the result of a call with callbacks: nothing, or the responses in input order."""
        return None if self._callbacks is None else self._callbacks.responses()
