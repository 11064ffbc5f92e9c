"""The thread or loop that a call came from, as the engine sees it: where results and errors are returned to.

A call runs on the engine, but the caller's own code (its iterable, its callbacks) must not. `casdk._engine.waiting` has
the two kinds of callers, a thread and a task on a loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar, cast

from casdk._engine import logging
from casdk._engine.process import engine
from casdk._engine.steps import Steps
from casdk._engine.threads import Workers
from casdk.errors import ClosedError

__all__ = ["Caller", "Ending", "EscapedError", "Job", "Member", "report_endings"]

T = TypeVar("T")


class EscapedError(BaseException):
    """Wraps an exception of the caller's that is not an `Exception`, since asyncio would end the engine's loop by it.

    Attributes:
        original: The exception: a ``KeyboardInterrupt``, ``SystemExit``, ``CancelledError``...
    """

    def __init__(self, original: BaseException) -> None:
        super().__init__(original)
        self.original = original


class Member:
    """A call that is merged with others, and so has no task of its own; `casdk._calls.merging` has the subclass.

    `Caller.begin` calls `join` instead of starting a coroutine, and the call reports its end by itself.
    """

    def join(self, caller: Caller[Any]) -> None:
        """Begin, and set itself as the `Caller.runner`; runs where the caller is."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Stop the call; runs on the engine."""
        raise NotImplementedError


Job: TypeAlias = "Callable[[Caller[T]], Coroutine[Any, Any, T]] | Member"


class Caller(ABC, Generic[T]):
    """The thread or loop that a call came from, as the engine sees it.

    `Run` and `Member` use it to run the caller's own code and to hand over pieces.

    Args:
        job: A function that makes the coroutine for the engine; or a call that is merged with others.

    Attributes:
        runner: The `Steps` or `Member` that runs the call on the engine, while it runs.
        loop: The caller's event loop, if the caller is on one.
        engine: The engine that the caller waits for.
        thread: Id of the thread that the call began in.
        context: The caller's context variables when the call began.
    """

    runner: Steps | Member | None = None
    context: contextvars.Context

    def __init__(self, job: Job[T]) -> None:
        self._job: Job[T] | None = job
        self.loop: asyncio.AbstractEventLoop | None = None
        self.engine = engine()
        self.engine.check_caller()
        if (record := logging.handled.get()) is not None:  # a log handler makes this call
            record.note_call()

    def begin(self) -> None:
        """Start the job."""
        # First of all, since a signal's handler may fork at any line, and the child looks up the callers by thread.
        self.thread = threading.get_ident()
        self.engine.callers.add(self)
        self.context = contextvars.copy_context()
        # The job refers to this caller, and so is dropped here: the cycle would keep the result in memory.
        job, self._job = self._job, None
        if isinstance(job, Member):
            job.join(self)
        elif job is not None:
            # In a copy of the context, since two threads cannot be in the same one at a time.
            self.engine.mailbox.post(self.engine.loop, self.context.copy(), self._start, job)

    def _start(self, job: Callable[[Caller[T]], Coroutine[Any, Any, T]]) -> None:
        self.runner = steps = Steps(self._carry_out(job))
        steps.go_on()

    async def _carry_out(self, job: Callable[[Caller[T]], Coroutine[Any, Any, T]]) -> None:
        # The end is reported here, since a done-callback of the task would run one turn of the loop later.
        try:
            result = await job(self)
        except BaseException as error:
            self.runner = None
            self.receive([(self, None, error)])
        else:
            self.runner = None
            self.receive([(self, result, None)])

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """Run a function on the engine soon; may be called from any thread."""
        self.engine.post(function, *arguments)

    def cancel(self) -> None:
        """Stop the call; may be called from any thread."""
        if self.engine.obstacle() is None:
            self.engine.post(self._cancel)

    def _cancel(self) -> None:
        if self.runner is not None:
            self.runner.cancel()

    async def call(self, function: Callable[[], Any]) -> Any:
        """Run the caller's own code where the caller is, and wait for it.

        Args:
            function: May return an awaitable if the caller is a loop.
        """
        reported: asyncio.Future[list[Any]] = self.engine.loop.create_future()

        def set_reported(result: object, error: BaseException | None) -> None:
            if not reported.done():
                # The error is part of a result, since `Future.set_exception` refuses StopIteration.
                reported.set_result([result, error])

        self._ask(function, lambda result, error: self.engine.post(set_reported, result, error))
        outcome = await reported
        # Popped, since the traceback of the error will refer to this frame, and so to the list: a reference cycle.
        error, result = outcome.pop(), outcome.pop()
        try:
            return self.unwrap(result, error)
        finally:
            del error

    async def run_on_worker(self, function: Callable[[], T], workers: Workers | None = None) -> T:
        """Run a function that may call the caller's own code, on a worker and in a copy of the caller's context."""
        call = (workers or self.engine.readers).call
        return cast(T, self.unwrap(*await call(partial(self.context.copy().run, function))))

    @staticmethod
    def unwrap(result: Any, error: BaseException | None) -> Any:
        """Return the result of the caller's own code, or raise its error on the engine.

        Raises:
            EscapedError: The error is no ``Exception``; the caller gets the original.
        """
        if error is None:
            return result
        try:
            raise error if isinstance(error, Exception) else EscapedError(error)
        finally:
            del error

    def hand_over(self, piece: Any, taken: Callable[[], None]) -> None:
        """Hand over a piece of a stream; ``taken`` runs on the engine when the caller has it."""
        self._put(piece, lambda: self.engine.post(taken))

    @abstractmethod
    def _put(self, piece: Any, taken: Callable[[], None]) -> None:
        """Pass a piece to the caller, who calls ``taken`` when it takes the piece."""

    @abstractmethod
    def _ask(self, function: Callable[[], Any], report: Callable[[object, BaseException | None], None]) -> None:
        """Run the caller's own code where the caller is, then call ``report`` there."""

    @abstractmethod
    def end_in_child(self, error: ClosedError) -> None:
        """End the wait in a forked child, where no engine would answer."""

    @abstractmethod
    def receive(self, endings: list[Ending]) -> None:
        """Take the ending of this call, and those of other calls from the same loop."""


Ending: TypeAlias = "tuple[Caller[Any], Any, BaseException | None]"
"""A caller, and the result or the error of its call."""


def report_endings(endings: list[Ending]) -> None:
    """Report the endings of merged calls to their callers. Each loop is woken only once, since waking takes the GIL."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Ending]] = {}
    for ending in endings:
        caller = ending[0]
        caller.runner = None
        loop = caller.loop
        if loop is None:
            caller.receive([ending])
        elif loop in by_loop:
            by_loop[loop].append(ending)
        else:
            by_loop[loop] = [ending]
    for endings_of_loop in by_loop.values():
        endings_of_loop[0][0].receive(endings_of_loop)
