"""How a thread, or a task on another loop, waits for a call that runs on the engine.

`Client` calls the functions at the end of this file: `run_call` for a call with one result, `run_pieces` for a stream,
and their twins for an event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, TypeVar, cast
from weakref import WeakSet

import msgspec

from casdk._engine.callers import Caller, Ending, EscapedError, Job, Member
from casdk._engine.loop import Engine
from casdk._engine.mailbox import mailbox_of
from casdk._engine.process import engine, notice_fork
from casdk.errors import ClosedError, ConfigError, InputTypeError

__all__ = ["run", "run_async", "run_call", "run_call_async", "run_on_worker", "run_pieces", "run_pieces_async"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

WATCH_SECONDS: Final = 0.5
"""How often an engine looks for callers' loops that were closed."""
_watching: Final[WeakSet[Engine]] = WeakSet()
"""The engines that look for them, since a call from a loop is under way."""
Report: TypeAlias = Callable[[object, BaseException | None], None]
"""A function that gets the result of the caller's own code, or its error."""


class Runs(Protocol[T_co]):
    """A call that runs on the engine, and makes its result where its caller is: a `casdk._calls.run.Run`."""

    async def run(self, caller: Caller[Any]) -> Callable[[], T_co]:
        """Run on the engine; return a function that makes the result."""
        ...


def _error_for_caller(error: BaseException) -> BaseException:
    """Return the error that the caller gets, from the one that ended its call on the engine."""
    if isinstance(error, asyncio.CancelledError):
        return ClosedError("the client was closed during the call")
    return error.original if isinstance(error, EscapedError) else error


class _Ask(msgspec.Struct, eq=False):
    """Message to a waiting thread: run the caller's own code, and report its result."""

    function: Callable[[], Any]
    report: Report


class _Piece(msgspec.Struct, eq=False):
    """Message to a waiting thread: here is a piece of the result."""

    piece: Any
    taken: Callable[[], None]


class _End(msgspec.Struct, eq=False):
    """Message to a waiting thread: the call is over."""

    result: Any
    error: BaseException | None

    def outcome(self) -> Any:
        """Return the result or raise the error, once: the error is dropped here, since its traceback refers to this."""
        error = self.error
        if error is None:
            return self.result
        self.error = None
        try:
            raise _error_for_caller(error)
        finally:
            del error


class _ThreadCaller(Caller[T]):
    """A thread of the caller's that waits for a call and runs the caller's own code for it; one for each sync call."""

    _messages: queue.SimpleQueue[_Ask | _Piece | _End]

    def _ask(self, function: Callable[[], Any], report: Report) -> None:
        self._messages.put(_Ask(function, report))

    def _put(self, piece: Any, taken: Callable[[], None]) -> None:
        self._messages.put(_Piece(piece, taken))

    def _cancel(self) -> None:
        super()._cancel()
        # A new queue, since pieces that were not taken refer to this caller, and the queue to them: a reference cycle.
        self._messages = queue.SimpleQueue()

    def receive(self, endings: list[Ending]) -> None:
        for _, result, error in endings:
            self._messages.put(_End(result, error))

    def end_in_child(self, error: ClosedError) -> None:
        # A message ends the wait of the thread, which may be inside `get`: a signal's handler may fork there.
        self._messages.put(_End(None, error))

    def serve(self) -> T:
        """Wait for the result of a call that hands over no pieces."""
        self._messages = queue.SimpleQueue()
        try:
            self.begin()
            ended = self._wait()
        except BaseException:
            self.cancel()
            raise
        finally:
            self.engine.callers.discard(self)
        assert isinstance(ended, _End)
        return ended.outcome()  # type: ignore[no-any-return]

    def pieces(self) -> Generator[Any, None, T]:
        """Yield the pieces as they come; return the result."""
        self._messages = queue.SimpleQueue()
        try:
            self.begin()
            while isinstance(message := self._wait(), _Piece):
                message.taken()
                piece = message.piece
                del message  # the traceback of an error would keep the piece in memory
                yield piece
                del piece
        except BaseException:
            self.cancel()
            raise
        finally:
            self.engine.callers.discard(self)
        return message.outcome()  # type: ignore[no-any-return]

    def _wait(self) -> _Piece | _End:
        """Run the caller's code that the call asks for, until the call hands over a piece or is over."""
        while True:
            if self.engine.obstacle() is not None:
                self.engine.check()
            message = self._messages.get()
            if not isinstance(message, _Ask):
                return message
            self._run(message.function, message.report)

    def _run(self, function: Callable[[], Any], report: Report) -> None:
        """Run the caller's own code in this thread, and report what it returned or raised."""
        try:
            result = _not_awaitable(function())
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as raised:
            if self.engine.obstacle() is not None:
                raise
            report(None, raised)
        else:
            self.engine.check()
            report(result, None)


def _not_awaitable(result: Any) -> Any:
    """Return the result of the caller's own code, in a sync call.

    Raises:
        InputTypeError: It is a coroutine, from an async iterable or a callback, which a sync call cannot await.
    """
    if isinstance(result, Coroutine):
        result.close()
        raise InputTypeError("an async iterable or a coroutine function needs the async twin: aencode, arank...")
    return result


class _LoopCaller(Caller[T]):
    """A task on a loop of the caller's that waits for a call; one for each async call."""

    _done: asyncio.Future[T] | None
    _pieces: asyncio.Queue[tuple[Any, Callable[[], None]] | None] | None = None
    _running: asyncio.Task[Any] | None = None

    def __init__(self, job: Job[T]) -> None:
        super().__init__(job)
        if self.engine.thread_model.patcher is not None:
            raise ConfigError(
                f"with {self.engine.thread_model.patcher}, use the verbs that are not async: greenlets share one loop"
            )

    def begin(self) -> None:
        try:
            self.loop = loop = asyncio.get_running_loop()
        except RuntimeError:  # no loop, or one of another library, as trio's
            raise ConfigError(
                "the async verbs need a running asyncio loop; elsewhere call the others in a thread, as "
                "`await trio.to_thread.run_sync(client.encode, content)` does"
            ) from None
        self._done = loop.create_future()
        super().begin()
        if self.engine not in _watching:
            _watching.add(self.engine)
            self.engine.post(_watch, self.engine)

    def _deliver(self, function: Callable[..., object], *arguments: object) -> None:
        assert self.loop is not None
        try:
            mailbox_of(self.loop).post(self.loop, self.context, function, *arguments)
        except RuntimeError:  # the caller's loop is closed, so no task waits any more
            self._cancel()

    def _ask(self, function: Callable[[], Any], report: Report) -> None:
        self._deliver(self._run, function, report)

    def _run(self, function: Callable[[], Any], report: Report) -> None:
        try:
            result = function()
            # Inside of the try, since `isinstance` may run code of the result's class.
            awaits = isinstance(result, Coroutine)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as raised:
            self._report(report, None, raised)
            return
        if not awaits:
            self._report(report, result, None)
            return
        task = asyncio.get_running_loop().create_task(result)
        self._running = task  # a loop keeps only weak references to its tasks

        def done(task: asyncio.Task[Any]) -> None:
            error: BaseException | None = asyncio.CancelledError() if task.cancelled() else task.exception()
            self._report(report, None if error is not None else task.result(), error)

        task.add_done_callback(done)

    def _report(self, report: Report, result: object, error: BaseException | None) -> None:
        if self.engine.obstacle() is None:
            report(result, error)
        else:
            notice_fork()

    def end_in_child(self, error: ClosedError) -> None:
        assert self.loop is not None
        if not self.loop.is_closed():
            _separate_from_parent(self.loop)
            endings: list[tuple[_LoopCaller[Any], Any, BaseException | None]] = [(self, None, error)]
            self.loop.call_soon(_finish_all, endings)

    def _put(self, piece: Any, taken: Callable[[], None]) -> None:
        if (pieces := self._pieces) is not None:
            self._deliver(pieces.put_nowait, (piece, taken))

    def receive(self, endings: list[Ending]) -> None:
        self._deliver(_finish_all, endings)

    def finish(self, result: T, error: BaseException | None) -> None:
        """Wake the task that waits, with the result or the error; runs on the caller's loop."""
        if self._pieces is not None:
            self._pieces.put_nowait(None)
        if self._done is None or self._done.done():
            return
        if error is None:
            self._done.set_result(result)
        else:
            self._done.set_exception(_error_for_caller(error))

    async def serve(self) -> T:
        """Wait for the result."""
        self.begin()
        assert self._done is not None
        try:
            self.engine.check()
            return await self._done
        except asyncio.CancelledError:
            self._leave()
            raise
        finally:
            self.engine.callers.discard(self)
            self._done = None  # its error's traceback would refer to this frame: a reference cycle

    async def pieces(self) -> AsyncGenerator[Any, None]:
        """Yield the pieces as they come; raise the error that ended the call early."""
        pieces: asyncio.Queue[tuple[Any, Callable[[], None]] | None] = asyncio.Queue()
        self._pieces = pieces
        self.begin()
        assert self._done is not None
        try:
            self.engine.check()
            while (message := await pieces.get()) is not None:
                piece, taken = message
                taken()
                yield piece
                del message, piece, taken  # the traceback of an error would keep the piece in memory
                self.engine.check()
            await self._done
            self._result()()
        except BaseException:
            self._leave()
            raise
        finally:
            self.engine.callers.discard(self)

    def _result(self) -> Any:
        """Return the result, and drop the future: an error's traceback refers to this caller, and so to the future."""
        done, self._done = self._done, None
        assert done is not None
        return done.result()

    def _leave(self) -> None:
        self.cancel()
        self._pieces = None  # pieces that were not taken refer to this caller: a reference cycle
        if self._done is not None:
            # Cancelled, since asyncio logs the error of a future that was never retrieved.
            self._done.cancel()
        if self._running is not None:
            self._running.cancel()


def _watch(engine: Engine) -> None:
    """Stop the calls whose loops were closed meanwhile: no code on these loops can do it. Runs on the engine."""
    # First of all, so that a call that begins from now on starts the watch again.
    _watching.discard(engine)
    waiting = [caller for caller in tuple(engine.callers) if caller.loop is not None]
    for caller in waiting:
        if caller.loop is not None and caller.loop.is_closed():
            engine.callers.discard(caller)
            caller._cancel()
    if waiting and engine not in _watching:
        _watching.add(engine)
        engine.loop.call_later(WATCH_SECONDS, _watch, engine)


def _separate_from_parent(loop: asyncio.AbstractEventLoop) -> None:
    """Give a loop in a forked child a selector and a pipe of its own, and wake it.

    asyncio leaves parent and child with one epoll and one pipe. Bytes that one of them reads from the pipe are lost for
    the other, and when the child closes its loop, nothing wakes the parent's any more. uvloop needs no help here.
    """
    if not isinstance(loop, BaseSelectorEventLoop):
        return
    opened = cast(Any, loop)
    shared = opened._selector
    with type(shared)() as own:
        for key in tuple(shared.get_map().values()):
            own.register(key.fileobj, key.events)
        if hasattr(shared, "fileno"):
            # The descriptor keeps its number: if a signal's handler has forked, the loop may be waiting for it now.
            os.dup2(own.fileno(), shared.fileno(), inheritable=False)
    opened._close_self_pipe()
    opened._make_self_pipe()
    opened._write_to_self()


def _finish_all(endings: list[tuple[_LoopCaller[Any], Any, BaseException | None]]) -> None:
    for caller, result, error in endings:
        caller.finish(result, error)


def run(job: Callable[[Caller[T]], Coroutine[Any, Any, T]]) -> T:
    """Run a job on the engine, as a task, and wait for it in this thread, even if a loop is running in it.

    Ctrl-C stops the job; its clean-up goes on in the background.
    """
    as_task: Job[T] = partial(_as_task, job)
    return _ThreadCaller(as_task).serve()


def run_async(job: Callable[[Caller[T]], Coroutine[Any, Any, T]]) -> Coroutine[Any, Any, T]:
    """Run a job on the engine, as a task, and wait for it on this loop; cancelling the own task stops the job."""
    as_task: Job[T] = partial(_as_task, job)
    return _LoopCaller(as_task).serve()


async def _as_task(job: Callable[[Caller[T]], Coroutine[Any, Any, T]], caller: Caller[T]) -> T:
    await asyncio.sleep(0)  # a coroutine that waits for anything but a reply gets a task
    return await job(caller)


def run_call(call: Runs[T] | Member) -> T:
    """Run a call on the engine, wait for it in this thread, and make its result here."""
    job: Job[Callable[[], T]] = call if isinstance(call, Member) else call.run
    return _ThreadCaller(job).serve()()


async def run_call_async(call: Runs[T] | Member) -> T:
    """Run a call on the engine, wait for it on this loop, and make its result here."""
    job: Job[Callable[[], T]] = call if isinstance(call, Member) else call.run
    return (await _LoopCaller(job).serve())()


async def run_on_worker(function: Callable[..., T], *arguments: Any) -> T:
    """Run a function that would block this loop on a worker, in a copy of the current context."""
    work = partial(contextvars.copy_context().run, function, *arguments)
    return await asyncio.get_running_loop().run_in_executor(engine().readers, work)


def run_pieces(job: Job[Callable[[], object]]) -> Generator[Any, None, Any]:
    """Run a job on the engine, yield its pieces, then call the function it returns; closing the generator stops it."""
    (yield from _ThreadCaller(job).pieces())()


def run_pieces_async(job: Job[Callable[[], object]]) -> AsyncGenerator[Any, None]:
    """`run_pieces` on this loop."""
    return _LoopCaller(job).pieces()
