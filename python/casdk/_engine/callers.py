"""The thread or the loop that a call came from, seen from the engine: the call's way back.

A call runs on the engine, but the caller's own code (its iterable, its callbacks) must not.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast

from casdk._engine import logging
from casdk._engine.process import engine
from casdk._engine.threads import Workers
from casdk.errors import ClosedError

__all__ = ["Caller", "Ending", "EscapedError", "Job", "Member", "tell"]

T = TypeVar("T")


class EscapedError(BaseException):
    """What the caller's own code raised to end more than a call: asyncio would end the engine with it, too.

    Attributes:
        original: What was raised: a ``KeyboardInterrupt``, ``SystemExit``, ``CancelledError``...
    """

    def __init__(self, original: BaseException) -> None:
        super().__init__(original)
        self.original = original


class Cancellable(Protocol):
    """What a call became on the engine: a task, or a share in one."""

    def cancel(self) -> object:
        """Take it back."""


class Member:
    """A call that joins others, where its caller is; it tells by itself how it ended."""

    def join(self, caller: Caller[Any]) -> None:
        """Begin, and be the caller's task."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Take it back; runs on the engine."""
        raise NotImplementedError


Job: TypeAlias = "Callable[[Caller[T]], Coroutine[Any, Any, T]] | Member"


class Caller(ABC, Generic[T]):
    """The thread or the loop a call came from, seen from the engine.

    Args:
        job: Begins the call on the engine, or joins others.

    Attributes:
        task: What runs on the engine, once it does.
        loop: The caller's, if it is on one.
        engine: The one it waits for.
        thread: The one that waits.
        context: What surrounded the call when it began.
    """

    task: Cancellable | None = None
    loop: asyncio.AbstractEventLoop | None = None
    context: contextvars.Context
    _cancelled = False

    def __init__(self, job: Job[T]) -> None:
        self._job: Job[T] | None = job
        self.engine = engine()
        self.engine.check_caller()
        logging.begin_call()

    def begin(self) -> None:
        """Start the job."""
        # Before anything else, since the handler of a signal may fork in any line.
        self.thread = threading.get_ident()
        self.engine.callers.add(self)
        self.context = contextvars.copy_context()
        # The job leads back here: a cycle would keep the result, long after its owner dropped it.
        job, self._job = self._job, None
        if isinstance(job, Member):
            job.join(self)
        elif job is not None:
            self.engine.mailbox.post(self.engine.loop, self.context, self._start, job)

    def _start(self, job: Callable[[Caller[T]], Coroutine[Any, Any, T]]) -> None:
        if self._cancelled:
            return
        try:
            work = job(self)
        except Exception as error:
            tell([(self, None, error)])
            return
        self.engine.loop.create_task(self._carry_out(work))

    async def _carry_out(self, work: Coroutine[Any, Any, T]) -> None:
        # It tells by itself how the job ended: a task's callback would, a turn of the loop later.
        if self._cancelled:  # in the turn before
            work.close()
            return
        self.task = asyncio.current_task()
        try:
            result = await work
        except BaseException as error:
            tell([(self, None, error)])
        else:
            tell([(self, result, None)])

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """Run a function on the engine, soon, from any thread."""
        self.engine.post(function, *arguments)

    def cancel(self) -> None:
        """Take the call back, from any thread."""
        if self.engine.obstacle() is None:
            self.engine.post(self._cancel)

    def _cancel(self) -> None:
        self._cancelled = True
        if self.task is not None:
            self.task.cancel()

    async def call(self, function: Callable[[], Any]) -> Any:
        """Run the caller's own code where the caller is, and wait for it.

        Args:
            function: May return an awaitable if the caller is a loop.
        """
        answer: asyncio.Future[list[Any]] = self.engine.loop.create_future()

        def settle(result: object, error: BaseException | None) -> None:
            if not answer.done():
                answer.set_result([result, error])  # a future takes not every exception for one

        self._ask(function, lambda result, error: self.engine.post(settle, result, error))
        outcome = await answer
        # Taken out: what an error's traceback leads to must not lead back to it.
        error, result = outcome.pop(), outcome.pop()
        try:
            return self.heed(result, error)
        finally:
            del error

    async def apart(self, function: Callable[[], T], workers: Workers | None = None) -> T:
        """Run what may run code of the caller's objects, on a worker and in a copy of the caller's context."""
        call = (workers or self.engine.readers).call
        return cast(T, self.heed(*await call(partial(self.context.copy().run, function))))

    @staticmethod
    def heed(result: Any, error: BaseException | None) -> Any:
        """Return what the caller's own code returned, or raise on the engine what it raised.

        Raises:
            EscapedError: It was no ``Exception``; the caller gets the original.
        """
        if error is None:
            return result
        try:
            raise error if isinstance(error, Exception) else EscapedError(error)
        finally:
            del error

    def give(self, piece: Any, taken: Callable[[], None]) -> None:
        """Hand over a piece of a stream; ``taken`` runs on the engine when the caller has it."""
        self._put(piece, lambda: self.engine.post(taken))

    @abstractmethod
    def _put(self, piece: Any, taken: Callable[[], None]) -> None: ...

    @abstractmethod
    def _ask(self, function: Callable[[], Any], answer: Callable[[object, BaseException | None], None]) -> None: ...

    @abstractmethod
    def abandon(self, error: ClosedError) -> None:
        """End in a forked child, where nobody answers."""

    @abstractmethod
    def hear(self, endings: list[Ending]) -> None:
        """Take how calls ended: this one's, and those of others on the same loop."""


Ending: TypeAlias = "tuple[Caller[Any], Any, BaseException | None]"
"""A caller, and the result of its call or what ended it."""


def tell(endings: list[Ending]) -> None:
    """Tell callers how their calls ended; each loop is woken once, for all of them: who is woken takes the GIL."""
    together: dict[asyncio.AbstractEventLoop, list[Ending]] = {}
    for ending in endings:
        caller = ending[0]
        caller.task = None
        loop = caller.loop
        if loop is None:
            caller.hear([ending])
        elif loop in together:
            together[loop].append(ending)
        else:
            together[loop] = [ending]
    for ended in together.values():
        ended[0][0].hear(ended)
