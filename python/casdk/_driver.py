"""Runs one call on the engine: asks `casdk._calls.Call` what to do next, and does it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from casdk._batches import Batch, Unfinished
from casdk._calls import Call, Outcome
from casdk._codecs import Packed, Packer, failure_of, read_error, read_response
from casdk._engine import Caller, engine
from casdk._inputs import DOCUMENT, urls_of
from casdk._logging import logger_of
from casdk._outages import Outage
from casdk._progress import Progress
from casdk._reading import Reading
from casdk._results import Answer
from casdk._rust import new_id
from casdk._transport import SHARES, ByteShare, InterruptedByForkError, Received, Transport
from casdk.documents import Document, DocumentArray
from casdk.errors import CallbackError, CasdkError, DeadlineError, NoEmbeddingError, ServerError, TransportError
from casdk.models import Header, Response, Status

if TYPE_CHECKING:
    from casdk._telemetry import Watch

__all__ = ["Callback", "Driver", "Hooks"]

LOG: Final = logger_of("casdk.calls")

URI: Final = Document.__dict__["uri"]

T = TypeVar("T")
Callback = Callable[[Response], Any]
ANSWER_SECONDS: Final = 1.0
"""What a call that was stopped, and that stores, waits for the answers to its other requests."""


class Hooks:
    """What the caller wants to be called with, and the responses it wants to keep."""

    __slots__ = ("keep", "on_always", "on_done", "on_error", "responses")

    def __init__(
        self,
        on_done: Callback | None = None,
        on_error: Callback | None = None,
        on_always: Callback | None = None,
        keep: bool = False,
    ) -> None:
        self.on_done = on_done
        self.on_error = on_error
        self.on_always = on_always
        self.keep = keep
        self.responses: list[tuple[int, Response]] = []

    @property
    def wanted(self) -> bool:
        """Whether replies have to become Responses at all."""
        return self.keep or not (self.on_done is None and self.on_error is None and self.on_always is None)


class Driver:
    """One call.

    Args:
        transport: The way to the server.
        call: The call's decisions.
        reading: Reads the content.
        packer: How its requests are written.
        answer: Where its replies go.
        candidates: Attribute of nested Documents that travel too.
        deadline: End of the call in the engine's time.
        answer_by: When whoever waits for its requests gives up; its deadline, unless others wait than the call.
        hooks: The caller's callbacks.
        progress: The bar.
        unfinished: Takes note of the items that were read and have no result.
        storing: Whether requests change something on the server, so that it matters which ones were answered.
        watch: Told of batches and attempts, if the client wants telemetry.
    """

    def __init__(
        self,
        transport: Transport,
        call: Call,
        reading: Reading,
        packer: Packer,
        answer: Answer,
        *,
        candidates: str | None = None,
        deadline: float | None = None,
        answer_by: float | None = None,
        hooks: Hooks | None = None,
        progress: Progress | None = None,
        unfinished: Unfinished,
        storing: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.call = call
        self._transport = transport
        self._bytes = ByteShare(transport.bytes)
        self._reading = reading
        self._packer = packer
        self._answer = answer
        self._candidates = candidates
        self._deadline = deadline
        self._answer_by = deadline if answer_by is None else answer_by
        self._hooks = hooks
        self._reports = hooks is not None and hooks.wanted
        self._progress = progress
        self._unfinished = unfinished
        self._storing = storing
        self._watch = watch
        self._tasks: set[asyncio.Task[None]] = set()
        self._readers: set[asyncio.Task[None]] = set()
        self._bell: asyncio.Future[None] | None = None
        self._untaken = 0
        self._awaited: Outage | None = None
        self._over = False

    async def run(self, caller: Caller[Any]) -> None:
        """Drive the call to its end.

        Raises:
            BaseException: Whatever stopped the call.
        """
        self.caller = caller
        self._loop = asyncio.get_running_loop()
        transport = self._transport
        transport.enter()
        task = asyncio.current_task()
        assert task is not None
        transport.calls.add(task)
        try:
            if self._deadline is None:
                await self._drive()
            else:
                await self._drive_until(self._deadline)
        finally:
            self._reading.close()
            try:
                if self._tasks:
                    await self._abandon()
            finally:
                transport.calls.discard(task)
                transport.server.leave(self.call)
                del task  # which holds what is raised here, and that this frame
                self._let_go()
        if (stopped := self.call.give_up()) is not None:
            try:
                raise stopped
            finally:
                del stopped

    async def _drive_until(self, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._drive()
        except TimeoutError:
            self.call.stop(DeadlineError("the call's time ran out"))

    async def _drive(self) -> None:
        call, loop, reading = self.call, self._loop, self._reading
        while True:
            if call.room > 0 and not reading.busy:
                reading.go_on(self)
            while (batch := call.next_batch(loop.time())) is not None:
                if call.alone:
                    await self._attempt(batch)
                else:
                    self._spawn(self._attempt, batch)
            # A request that failed for good is told of when nothing is in flight any more.
            if call.finished and not (call.stopped is None and self._tasks):
                if self._storing and isinstance(call.stopped, CasdkError):
                    await self._await_answers()
                return
            if not reading.may_go_on:
                await self._sleep(call.wake_at)

    def _spawn(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> asyncio.Task[None]:
        # A function and no coroutine: if the task is cancelled before its first step, nobody would await that.
        task = self._loop.create_task(self._see_to(work, *arguments))
        self._tasks.add(task)
        return task

    async def _see_to(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        # It tells by itself how it ended: a task's callback would, a turn of the loop later.
        try:
            await work(*arguments)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.call.stop(error)
        finally:
            self._tasks.discard(cast(Any, asyncio.current_task()))
            self.wake()

    def wake(self) -> None:
        """Look again at what is to be done."""
        if self._bell is not None:
            _ring_once(self._bell)

    async def _sleep(self, until: float | None) -> None:
        self._bell = bell = self._loop.create_future()
        timer = None if until is None else self._loop.call_at(until, _ring_once, bell)
        try:
            await bell
        finally:
            self._bell = None
            if timer is not None:
                timer.cancel()

    async def _await_answers(self) -> None:
        """Give the requests in flight some time: of each one that is answered it is known whether it was stored."""
        if attempts := self._tasks - self._readers:
            await asyncio.wait(attempts, timeout=ANSWER_SECONDS)

    async def _abandon(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def read_with(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine that reads; what it raises stops the call."""
        task = self._spawn(work)
        self._readers.add(task)
        task.add_done_callback(self._readers.discard)

    # giving

    def give(self) -> None:
        """Hand over the pieces whose turn it is, if the answer comes in pieces."""
        if not self._answer.pieces:
            return
        for piece in self._answer.ready():
            size = piece.nbytes
            self.call.deliver()
            self._hold(size)
            self.caller.give(piece, partial(self._given, size))
        kept, size = self._answer.kept
        self.call.keep(kept, full=size >= self._transport.bytes.most // SHARES)

    def _given(self, size: int) -> None:
        self.call.delivered()
        self._hold(-size)
        self.wake()

    def _hold(self, size: int) -> None:
        """Count bytes of pieces that the caller has not taken, as long as the call runs: it may never take them."""
        if not self._over:
            self._untaken += size
            self._transport.bytes.hold(size)

    def _let_go(self) -> None:
        self._hold(-self._untaken)
        self._over = True
        self._readers.clear()  # cancelled, they hold the frames of their end, and these this

    # sending

    async def _attempt(self, batch: Batch) -> None:
        request_id = new_id()
        budget, watch = self._bytes, self._watch
        size, told = 0, False
        if watch is not None:
            watch.begin(batch)
        try:
            patient = self.call.crowded and not self._answer.urgent(batch.indices[0])
            if patient and budget.full:
                await budget.room()
            batch.taken_at = perf_counter()
            packed = self._packer.pack_sentences(request_id, batch.items, batch.verdicts)
            if packed is None:
                packed = await self._pack(batch, request_id, patient)
            batch.packed_at = perf_counter()
            indices, items = self._sent(batch, packed)
            if self.call.stopped is not None or not packed.rows:
                self._succeed(batch, 0)
                return
            message = packed.message
            if len(message) > self._transport.sizes.most and len(items) > 1:
                raise ServerError(f"{len(message):,} bytes are more than was taken so far", too_large=True, sent=False)
            size = len(message)
            budget.hold(size)
            batch.sent = True
            repeatable, answer_by = self.call.resend, self._answer_by
            if watch is None:
                received = await self._transport.exchange(
                    request_id, message, repeatable=repeatable, answer_by=answer_by
                )
            else:
                received = await watch.exchange(
                    self._transport, batch, request_id, message, repeatable=repeatable, answer_by=answer_by
                )
            del message, packed
            reply = received.reply
            error = read_error(reply)
            if not isinstance(error, TransportError):  # else what is behind the gateway is away
                self.call.answered(received.received_at - received.sent_at, size + received.size, batch)
                if self._awaited is not None:
                    self._tell_outage()
            if error is not None:
                if self._reports:
                    await self._report(received, request_id, batch, error)
                told = True
                raise error
            missing = self._answer.place(indices, items, reply, len(items), request_id)
            if self._reports:
                await self._report(received, request_id, batch, None)
            for position in missing:
                self.call.refuse(_unanswered(indices[position], items[position]))
            self._unfinished.settle(indices)
            self._succeed(batch, len(items) - len(missing))
            if self._progress is not None:
                self._progress.advance(len(items), size, received.size)
        except InterruptedByForkError:
            self.call.interrupt(batch)
        except CallbackError as error:
            self.call.stop(error)
        except CasdkError as error:
            if self._fail(batch, error, request_id) == "lost" and not told:
                await self._report_lost(request_id, error)
        finally:
            if size:
                budget.release(size)

    def _succeed(self, batch: Batch, rows: int) -> None:
        self.call.succeed(batch, rows)
        if self._watch is not None:
            self._watch.succeed(batch, rows)
        self.give()

    def _fail(self, batch: Batch, error: CasdkError, request_id: str) -> Outcome:
        now = self._loop.time()
        outcome = self.call.fail(batch, error, now)
        wait = max(0.0, batch.not_before - now)
        self._tell_outage(error)
        if self._watch is not None:
            self._watch.fail(batch, error, outcome, wait)
        which = (self._transport.endpoint, request_id, len(batch), batch.indices[0], batch.attempts)
        said = "%s: request %s of %d items from item %d failed on attempt %d"
        if outcome == "wait":
            LOG.debug(f"{said}, and is sent again when the server is back: %s", *which, error)
        elif outcome == "repeat":
            LOG.warning(f"{said}, and is sent again in %.2f s: %s", *which, wait, error)
        elif outcome == "split":
            why = ", as it is too large" if getattr(error, "too_large", False) else " to find the item"
            LOG.info(f"{said}, and is halved{why}: %s", *which, error)
        else:
            LOG.log(logging.WARNING if outcome == "lost" else logging.DEBUG, f"{said} for good: %s", *which, error)
        self.give()
        return outcome

    def _tell_outage(self, error: CasdkError | None = None) -> None:
        """Say in the log and on the bar that the call waits for the server, or that it does no more."""
        outage, ended = self.call.outage, self._awaited
        self._awaited = awaited = None if outage is None or outage.given_up else outage
        if awaited is ended:
            return
        if self._progress is not None:
            self._progress.wait(awaited is not None)
        server, where = self._transport.server, self._transport.endpoint
        if awaited is not None:
            if server.wait(self.call):
                LOG.warning("%s is away: waiting for it, for %g s at most: %s", where, self.call.patience, error)
        elif outage is not None:
            server.leave(self.call)
        elif ended is not None and server.is_back():
            LOG.info("%s answers again after %.1f s", where, self._loop.time() - ended.since)

    async def _pack(self, batch: Batch, request_id: str, patient: bool) -> Packed:
        items, verdicts, pack = batch.items, batch.verdicts, self._packer.pack
        if DOCUMENT in verdicts:
            # Documents may be of the caller's own class: where they are packed they are asked for their URLs, too.
            find = partial(urls_of, items, verdicts, self._candidates)
            found = await self._on_worker(lambda: find() or pack(request_id, items, verdicts), patient)
            if isinstance(found, Packed):
                return found
            urls = found
        else:
            urls = urls_of(items, verdicts, None)
        fetched = None
        if urls and self._transport.sources.fetch_urls:  # the packer refuses the others
            fetched, batch.errors = await self._transport.downloads.fetch(urls)
        return await self._on_worker(lambda: pack(request_id, items, verdicts, fetched), patient)

    async def _on_worker(self, pack: Callable[[], T], patient: bool) -> T:
        while True:
            # One after the other, as far as there are threads: the size is known when it is packed, and counts then.
            async with self._transport.packing:
                if not (patient and self._bytes.full):
                    packed: T = await self.caller.apart(pack, engine().workers)
                    return packed
            await self._bytes.room()

    def _sent(self, batch: Batch, packed: Packed) -> tuple[Sequence[int], Sequence[Any]]:
        """Return indices and items that went into the message; see to those that did not."""
        if packed.taken < len(batch):
            self.call.cut(batch.part(packed.taken))
            batch.indices = batch.indices[: packed.taken]
            batch.items = batch.items[: packed.taken]
            batch.verdicts = batch.verdicts[: packed.taken]
        if not packed.failures:
            return batch.indices, batch.items
        for position, kind, reason in packed.failures:
            item = batch.items[position]
            url = _place_of(item)
            cause: BaseException | None = packed.causes.get(position)
            if (lost := (batch.errors or {}).get(url)) is not None:
                cause, reason = lost, f"{reason}: {lost}"
            elif kind == "not_image" and reason.startswith("it ") and url and url[:5].lower() != "data:":
                reason = f"{url}: {reason}"
            self.call.refuse(failure_of(kind, batch.indices[position], item, reason, cause))
        kept = batch.without({position for position, _, _ in packed.failures})
        batch.indices, batch.items, batch.verdicts = kept.indices, kept.items, kept.verdicts
        return batch.indices, batch.items

    # telling

    async def _report(self, received: Received, request_id: str, batch: Batch, error: CasdkError | None) -> None:
        hooks = self._hooks
        assert hooks is not None
        stamps = (
            batch.read_at,
            batch.taken_at,
            batch.packed_at,
            received.sent_at,
            received.received_at,
            perf_counter(),
        )
        response = read_response(received.reply, request_id, stamps, received.connecting)
        if hooks.keep:
            hooks.responses.append((batch.indices[0], response))
        await self._call_back(hooks.on_done if error is None else hooks.on_error, response)
        await self._call_back(hooks.on_always, response)

    async def _report_lost(self, request_id: str, error: CasdkError) -> None:
        assert self._hooks is not None  # on_error is what lets a batch be lost
        status = Status(code=1, description=str(error), name=type(error).__name__)
        response = Response(header=Header(request_id=request_id), status=status, docs=DocumentArray())
        await self._call_back(self._hooks.on_error, response)
        await self._call_back(self._hooks.on_always, response)

    async def _call_back(self, function: Callback | None, response: Response) -> None:
        if function is None:
            return
        try:
            await self.caller.call(partial(function, response))
        except Exception as error:
            if isinstance(error.__cause__, StopIteration):  # which Python lets no coroutine raise
                error = error.__cause__
            raise CallbackError(f"a callback raised {type(error).__name__}: {error}") from error


def _ring_once(bell: asyncio.Future[None]) -> None:
    if not bell.done():
        bell.set_result(None)


def _place_of(item: object) -> str:
    """Return the path or URL that an item is or has; a Document's from its own slot, as a subclass's may be code."""
    if isinstance(item, str):
        return item
    uri = URI.__get__(item) if isinstance(item, Document) else ""
    return uri if type(uri) is str else ""


def _unanswered(index: int, item: object) -> NoEmbeddingError:
    return NoEmbeddingError(index, item, "the server answered without an embedding for it")
