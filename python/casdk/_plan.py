"""One call, put together from what a verb knows and what the caller wants, and run on the engine."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine
from contextlib import nullcontext
from functools import partial
from time import monotonic
from typing import Any, Final, TypeAlias

import numpy as np

from casdk._batches import Repeats, Unfinished
from casdk._calls import Call, Window
from casdk._codecs import Packer
from casdk._driver import Driver, Hooks
from casdk._engine import Caller
from casdk._feeds import Feed, feed_of
from casdk._inputs import advise, read_chunk
from casdk._logging import are_pending, emitted, logger_of
from casdk._options import MINIBATCH, Options, route
from casdk._originals import Originals
from casdk._progress import Progress
from casdk._reading import Manner, Reading
from casdk._results import Answer, Matrix, Nothing
from casdk._transport import Transport
from casdk.errors import (
    CasdkError,
    ClosedError,
    InputTypeError,
    InputValueError,
    ItemError,
    NotDoneError,
    class_name,
    message_of,
)
from casdk.models import Response

__all__ = ["Check", "Job", "Plan", "end", "job_of", "moved"]

LOG: Final = logger_of("casdk.calls")
UNWATCHED: Final = nullcontext()
Job: TypeAlias = Callable[[Caller[Any]], Coroutine[Any, Any, Callable[[], Any]]]
"""Runs a call on the engine; what it returns makes the result where the caller is."""
PLAIN: Final = Manner(read_chunk)
Check: TypeAlias = Callable[[Caller[Any]], Awaitable[None]]
"""What is still to be done, or found out, when every reply is there."""
BELOW: Final = frozenset({"casdk", "asyncio", "grpc", "httpx", "httpcore", "anyio", "websockets", "ssl", "socket"})
"""Packages whose frames a traceback leads through before it comes to the caller's own code, if it does."""


class Plan:
    """One call before it runs.

    Args:
        transport: The way to the server.
        verb: Endpoint without the model.
        content: The user's iterable, checked.
        options: The call's options.
        answer: Collects the replies.
        manner: How its items are read.
        resend: Whether requests may be repeated once sent.
        candidates: Attribute of nested Documents that travel too.
        whole: Whether a Document travels whole, its uri too.
        allow_empty: Whether a Document without content may travel.
        batch_size: Items per request, unless the options say.
        repeats: Finds items that need not be sent again.
        storing: Whether requests change something on the server.
        merged: Whether it carries the items of several calls.
        answer_by: When the last of those gives up, in the engine's time.
        extra: Parameters the verb adds.
    """

    def __init__(
        self,
        transport: Transport,
        verb: str,
        content: Any,
        options: Options,
        answer: Answer,
        *,
        manner: Manner = PLAIN,
        resend: bool = True,
        candidates: str | None = None,
        whole: bool = False,
        allow_empty: bool = False,
        batch_size: int = MINIBATCH,
        repeats: Repeats | None = None,
        storing: bool = False,
        merged: bool = False,
        answer_by: float | None = None,
        **extra: Any,
    ) -> None:
        limits = transport.limits
        endpoint, parameters = route(verb, options.parameters, **extra)
        try:
            packer = Packer(
                transport.codec,
                endpoint,
                parameters,
                check_images=options.check_images,
                max_item_bytes=limits.max_item_bytes,
                max_message_bytes=limits.max_message_bytes,
                whole=whole,
                candidates=candidates,
                allow_empty=allow_empty,
                local_files=transport.sources.local_files,
                fetch_urls=transport.sources.fetch_urls,
            )
        except TypeError as error:  # of a parameter, which it names
            if options.parameters is None:  # a signal handler's
                raise
            raise InputTypeError(str(error)) from error.__cause__
        except Exception as error:  # of a parameter's own class
            if options.parameters is None:
                raise
            raise InputTypeError(f"parameters cannot be read: {class_name(error)}: {message_of(error)}") from error
        timeout = options.deadline_after(transport.timeouts.total)
        self.deadline = None if timeout is None else monotonic() + timeout
        size = options.batch_size or batch_size
        threaded = options.reader == "thread"
        if threaded and isinstance(content, AsyncIterable):
            raise InputValueError("reader='thread' reads a sync iterable; an async one belongs to its loop")
        self.feed: Feed = feed_of(content, size, threaded=threaded, hurried=timeout is not None)
        self.hooks = Hooks(options.on_done, options.on_error, options.on_always, options.return_responses)
        self.gathers = options.gathers
        self.answer = answer if self.gathers else Nothing(answer)
        unfinished = Unfinished(size)
        self.call = Call(
            window=transport.window if options.prefetch is None else Window(options.prefetch),
            retry=transport.retry,
            budget=transport.repeats,
            errors=options.errors,
            resend=resend,
            draw=random.random,
            tolerant=options.on_error is not None,
            on_refuse=partial(_refuse, self.answer, unfinished),
            server=transport.server,
        )
        self.left: dict[int, Any] = {}
        self._unfinished, self._repeats = unfinished, repeats
        self._verb, self._transport = verb[1:] or "profile", transport
        self.watch = None
        if transport.telemetry is not None:
            self.watch = transport.telemetry.watch(self._verb, endpoint, self.feed.total, merged)
        self.progress = Progress(verb[1:], self.feed.total) if options.show_progress else None
        manner = manner._replace(
            read=partial(manner.read, max_item_bytes=limits.max_item_bytes, sources=transport.sources),
            sources=transport.sources,
        )
        self.reading = Reading(self.call, self.feed, self.answer, manner, unfinished, repeats, self.progress)
        self.driver = Driver(
            transport,
            self.call,
            self.reading,
            packer,
            self.answer,
            candidates=candidates,
            deadline=self.deadline,
            answer_by=answer_by,
            hooks=self.hooks,
            progress=self.progress,
            unfinished=unfinished,
            storing=storing,
            watch=self.watch,
        )

    async def run(self, caller: Caller[Any], check: Check | None = None) -> CasdkError | None:
        """Run the call, with telemetry if the client wants it.

        Args:
            caller: Where the call came from.
            check: See `Check`.

        Returns:
            What stopped the call, without a traceback: the frames of one would keep all that the call has in memory.

        Raises:
            BaseException: What the caller's own code raised, or what took the call back, as it is.
        """
        try:
            await self._run(caller, check)
            return None
        except CasdkError as error:
            stopped = error
        except asyncio.CancelledError:
            if not self._transport.closed:
                raise
            stopped = ClosedError("the client was closed during the call")
        drop_frames(stopped)
        return stopped

    async def _run(self, caller: Caller[Any], check: Check | None) -> None:
        began = monotonic()
        with self.watch or UNWATCHED:
            try:
                with self.progress or UNWATCHED:
                    await self.driver.run(caller)
                if check is not None:
                    await check(caller)
            finally:
                if self.watch is not None:
                    self.watch.count(self.call.done)
                done, read, where = self.call.done, self.reading.count, self._transport.endpoint
                LOG.debug("%s at %s: %d of %d items done in %.3f s", self._verb, where, done, read, monotonic() - began)
                if self.progress is not None:
                    await self.progress.shown(self.deadline)
                if are_pending():
                    await emitted(self.deadline)

    def conclude(self, stopped: CasdkError | None) -> None:
        """Find out what became of each item, and tell the error how far the call came; runs where the caller is."""
        if stopped is not None:
            self.reading.take_rest()
        self.left = {} if stopped is None else self._unfinished.left()
        bad, left = self.call.bad, self.left
        for index, first in self._repeats.found if self._repeats is not None else ():
            if first in bad:
                bad[index] = moved(bad[first], index - first)
            elif first in left:
                left[index] = left[first]
        if stopped is not None:
            read = self.reading.count
            stopped.done = read - len(self.missing)
            stopped.total = read if self.feed.total is None and self.call.ended else self.feed.total
            stopped.attempts = stopped.attempts or self.call.attempts
            stopped.server = str(self._transport.endpoint)
            if not self.gathers:
                stopped.responses = self.responses()

    def rows(self, matrix: Matrix, stopped: CasdkError | None) -> np.ndarray[Any, Any] | None:
        """Return the rows of the items that were read; ``None`` if the call was stopped before there was any."""
        read = self.reading.count
        return matrix.finish(read, self.missing) if stopped is None else matrix.partial(read, self.missing)

    @property
    def missing(self) -> list[int]:
        """Indices without a result, ascending: of bad items, and of those that were read and not done."""
        return sorted({*self.call.bad, *self.left} if self.left else self.call.bad)

    def errors(self, stopped: CasdkError | None) -> dict[int, ItemError]:
        """Return one error for each item without a result, by index."""
        errors = dict(self.call.bad)
        reason = f"it was read, but not done when the call was stopped: {stopped}"
        for index, item in self.left.items():
            errors[index] = NotDoneError(index, item, reason, stopped)
        return errors

    def responses(self) -> list[Response] | None:
        """What a call returns that does not gather: nothing, or the responses in input order."""
        if not self.hooks.keep:
            return None
        return [response for _, response in sorted(self.hooks.responses, key=lambda kept: kept[0])]


def job_of(
    plan: Plan,
    finish: Callable[[CasdkError | None], Any],
    check: Check | None = None,
    *,
    first: Callable[[], None] | None = None,
    originals: Originals | None = None,
) -> Job:
    """Return the job that runs a call.

    Args:
        plan: The call.
        finish: Makes the result where the caller is. If the call was stopped, it puts what was finished into the
            error and returns that.
        check: What is to be done when every reply is there.
        first: What is to be looked at before anything is sent, on a worker.
        originals: The caller's Documents.
    """
    held = [(plan, finish, check, first, originals)]
    del plan, finish, check, first, originals

    async def job(caller: Caller[Any]) -> Callable[[], Any]:
        # Taken out: the frame that waits for the job holds it, and an error's traceback leads to that frame.
        plan, finish, check, first, originals = held.pop()
        if first is not None:
            await caller.apart(first)
        stopped = await plan.run(caller, check)
        if caller.loop is not None and originals is not None and originals.are_many:
            # Where it would hold up the caller's loop, the result is made already.
            return partial(end, partial(_same, await caller.apart(partial(finish, stopped))))
        return partial(finish, None) if stopped is None else partial(end, partial(finish, stopped))

    return job


def _same(result: Any) -> Any:
    return result


def end(finish: Callable[[], Any]) -> Any:
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


def _refuse(answer: Answer, unfinished: Unfinished, error: ItemError) -> None:
    # No method of Plan's, which holds the call that holds this: a cycle keeps the result until a garbage collection.
    index = error.index
    error.item = unfinished.item(index, error.item)
    unfinished.settle([index])
    drop_frames(error)
    advise(error)
    answer.refused(error)


def drop_frames(error: BaseException) -> None:
    """Drop the tracebacks of an error, and of what led to it: their frames hold the call, its content and its rows.

    Frames of the caller's own code stay: what a callback raised is found by them.
    """
    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        one = chain.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        at = None if isinstance(one, CasdkError) else one.__traceback__
        while at is not None and at.tb_frame.f_globals.get("__name__", "").partition(".")[0] in BELOW:
            at = at.tb_next
        one.__traceback__ = at
        chain += one.__cause__, one.__context__, getattr(one, "cause", None)


def moved(error: ItemError, by: int) -> ItemError:
    """Return a copy of the error whose index is another."""
    copied = copy.copy(error)
    copied.index += by
    return copied
