"""The awaitable that a request waits for: like a future, but it resumes the request in the same turn of the loop.

The channels make one for each request, and set its outcome; `casdk._engine.steps` and tasks wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any, ClassVar, Generic, TypeVar, cast

import msgspec

__all__ = ["Waiter"]

T = TypeVar("T")


class Waiter(msgspec.Struct, Generic[T], eq=False):
    """The outcome of one request; awaited once, by a task or by a coroutine that runs in `Steps`.

    A future resumes its awaiter one turn of the loop later, by a handle and a task's step for each. A waiter resumes
    it as soon as the bytes of the reply have been read. To asyncio it is an object like a future, as `asyncio.isfuture`
    defines them.

    Attributes:
        outcome: The reply, or what came in its place, once something came.
        error: The error that ended the wait instead.
        done: Whether there is an outcome or an error.
        is_reply: Whether the outcome is a reply, so that nothing went wrong.
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

    # called by the channel

    def reply(self, outcome: T) -> None:
        """Set the reply, and resume the awaiter at once; so the channel calls this when its own state is consistent."""
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
        """Set an outcome that is no good reply; the awaiter is resumed in the next turn of the loop."""
        self.outcome, self.done = outcome, True
        self._resume_soon()

    def set_exception(self, error: BaseException) -> None:
        """Set the error that ended the wait; the awaiter is resumed in the next turn of the loop."""
        self.error, self.done = error, True
        self._resume_soon()

    def _resume_soon(self) -> None:
        resume, self._resume = self._resume, None
        if resume is not None:
            # The loop does not run if it is being closed, which cancels its tasks.
            loop = self._task_loop or asyncio.get_running_loop()
            loop.call_soon(resume, self, context=self._context)

    # called by the awaiter

    def __await__(self) -> Generator[Any, None, None]:
        """Wait until it is done. The outcome is not returned, since a generator would be one more to resume."""
        if self.done:
            return iter(())  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
        self._asyncio_future_blocking = True
        return iter((self,))  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    def result(self) -> T:
        """Return the outcome, or raise the error that ended the wait."""
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame
        return self.outcome

    def when_done(self, resume: Callable[[Waiter[T]], object], context: Context) -> None:
        """Call a function with the waiter, in a context, when the wait is over; there is only one awaiter."""
        self._resume, self._context = resume, context

    def add_done_callback(self, resume: Callable[[Waiter[T]], object], *, context: Context) -> None:
        """Do the same as `when_done` for a task, which calls this method of futures."""
        self._resume, self._context, self._task_loop = resume, context, asyncio.get_running_loop()

    def cancel(self, msg: str | None = None) -> bool:
        """End the wait with a `CancelledError`; return whether it was still waited for."""
        if self.done:
            return False
        self.set_exception(asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg))
        return True
