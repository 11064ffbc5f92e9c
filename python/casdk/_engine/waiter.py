"""What a request waits for: its outcome, with which it goes on in the same turn of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any, ClassVar, Generic, TypeVar, cast

import msgspec

__all__ = ["Waiter"]

T = TypeVar("T")


class Waiter(msgspec.Struct, Generic[T], eq=False):
    """The outcome of one request; awaited once, by a task, or by a request that `casdk._calls.tasks` carries on.

    A future resumes who waits for it one turn of the loop later, by a handle and a task's step for each. Whoever waits
    for a reply goes on as soon as its bytes have been read. To asyncio this is an object like a future, as
    `asyncio.isfuture` has them.

    Attributes:
        outcome: What came, once something has.
        error: What ended the wait instead.
        done: Whether one of both is there.
        is_reply: Whether a reply came, and so nothing went wrong.
    """

    outcome: T = cast(Any, None)
    error: BaseException | None = None
    done: bool = False
    is_reply: bool = False
    _resume: Callable[[Waiter[T]], object] | None = None
    _context: Context = cast(Context, None)
    _task_loop: asyncio.AbstractEventLoop | None = None
    _asyncio_future_blocking: bool = False

    get_loop: ClassVar = staticmethod(asyncio.get_running_loop)
    """Returns the engine's loop: a waiter is used there and nowhere else."""

    # for the channel

    def reply(self, outcome: T) -> None:
        """Set the reply, and resume who waits: nothing may be half done."""
        self.outcome = outcome
        self.done = self.is_reply = True
        resume, self._resume = self._resume, None
        if resume is None:
            return
        if self._task_loop is not None and asyncio.current_task() is not None:
            # No task can be resumed inside another one.
            self._task_loop.call_soon(resume, self, context=self._context)
        else:
            self._context.run(resume, self)

    def set_result(self, outcome: T) -> None:
        """Set what is no reply, or none that is in order; who waits is resumed in the next turn of the loop."""
        self.outcome, self.done = outcome, True
        self._resume_soon()

    def set_exception(self, error: BaseException) -> None:
        """Set what ended the wait; who waits is resumed in the next turn of the loop."""
        self.error, self.done = error, True
        self._resume_soon()

    def _resume_soon(self) -> None:
        resume, self._resume = self._resume, None
        if resume is not None:
            # A loop that is being closed cancels its tasks while it does not run.
            loop = self._task_loop or asyncio.get_running_loop()
            loop.call_soon(resume, self, context=self._context)

    # for who waits

    def __await__(self) -> Generator[Any, None, None]:
        """Wait until it is done. The outcome is not returned, since a generator would be one more to resume."""
        if self.done:
            return iter(())  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
        self._asyncio_future_blocking = True
        return iter((self,))  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    def result(self) -> T:
        """Return what came, or raise what ended the wait."""
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame
        return self.outcome

    def when_done(self, resume: Callable[[Waiter[T]], object], context: Context) -> None:
        """Have this called with the waiter, in this context, when the wait is over: there is one who waits."""
        self._resume, self._context = resume, context

    def add_done_callback(self, resume: Callable[[Waiter[T]], object], *, context: Context) -> None:
        """Do the same for a task."""
        self._resume, self._context, self._task_loop = resume, context, asyncio.get_running_loop()

    def cancel(self, msg: str | None = None) -> bool:
        """End the wait with a `CancelledError`; return whether it was not over."""
        if self.done:
            return False
        self.set_exception(asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg))
        return True
