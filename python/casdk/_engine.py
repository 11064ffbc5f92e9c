"""The one background event loop of a process, and what it knows of those who wait for it.

Every connection lives on this loop. It is started on first use, never at import, and a forked child starts its own:
grpc.aio misbehaves with two loops in one process, and sockets must not be shared between processes.

A call runs here, but the caller's own code (its iterable, its callbacks) must not: a `Caller` is the call's way back
to the thread or the loop it came from.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar, cast
from weakref import WeakSet

from casdk import _logging
from casdk._forks import Library, Pause, Pauses, Resident
from casdk._greenlets import PATCHERS, Ground
from casdk._mailbox import Mailbox
from casdk._threads import Workers, check_process, forget_ours, is_ours, start
from casdk.errors import EXITING, ClosedError, TransportError

__all__ = [
    "READERS",
    "WORKERS",
    "Caller",
    "Ending",
    "Engine",
    "EscapedError",
    "Job",
    "Member",
    "Resident",
    "engine",
    "notice_fork",
    "tell",
]

_logging.divert("asyncio", "concurrent.futures", "py.warnings")

T = TypeVar("T")

WORKERS: Final = 2
"""Threads that read files and pack images, GIL released."""
READERS: Final = 8
"""Threads in which items of the caller's own types are read: theirs is the code, and it may take its time."""
LOOKUPS: Final = 8
"""Threads in which asyncio looks up names, each of which can take seconds."""
KEPT: Final = 16 << 20
"""Bytes of the largest messages whose memory is used again.

glibc gives freed memory back to the system, and the next message costs a page fault for each 4 KiB of it, until a block
of this size was freed once: it takes that for the program's habit. The block is never touched, so it costs nothing.
This holds for the whole process, as it would after any array of 16 MiB was freed. It cannot be had by keeping buffers
of our own: messages are ``bytes``; what receives, gRPC's copies and the result's rows are glibc's, too.
"""


class Engine:
    """The loop and its thread. Use `engine`, not this class.

    Attributes:
        loop: Made by the thread, so it is there once the engine is running.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        self.pid: Final = os.getpid()
        self.ground: Final = Ground()
        self.residents: Final[WeakSet[Resident]] = WeakSet()
        self.libraries: Final[set[Library]] = set()
        """What the residents' connections are made with."""
        self.callers: Final[set[Caller[Any]]] = set()
        """Those that wait for it."""
        self.workers: Final = Workers(WORKERS, "casdk-pack")
        self.readers: Final = Workers(READERS, "casdk-read")
        self.mailbox: Final = Mailbox()
        bytearray(KEPT)
        self.fork: asyncio.Future[None] | None = None
        """While a fork is under way: what opens a connection then has it in both processes."""
        self._turn: Final = threading.Lock()
        self._begun: Final = threading.Event()
        self._error: Exception | None = None
        self._ident: int | None = None
        self._forker: int | None = None
        self._pauses: Final = Pauses()
        self.running = False

    def start(self) -> None:
        """Run the loop in a thread; a daemon, so that interpreter exit never waits for it.

        Ctrl-C or a signal's handler may hit this anywhere, also when the thread has begun: it can be called again.

        Raises:
            TransportError: The system has no thread or no file descriptors left.
        """
        if self.running:
            return
        self.ground.check_start()
        if not self._begun.is_set():
            start(self._run, "casdk-engine", ours=True)
            self._begun.wait()
        if self._error is not None:
            raise TransportError(f"casdk's event loop cannot be made: {self._error}", sent=False) from self._error
        self.running = True

    def _run(self) -> None:
        if not self._turn.acquire(blocking=False):
            return
        self._ident = threading.get_ident()
        try:
            # Here and not where the first caller is, since asyncio logs it: a handler that encodes would be called in
            # the middle of the start.
            self.loop = asyncio.new_event_loop()
            self.loop.set_default_executor(Workers(LOOKUPS, "casdk-lookup"))
            asyncio.set_event_loop(self.loop)
        except Exception as error:
            self._error = error
            return
        finally:
            self._begun.set()
        try:
            self.loop.run_forever()
        finally:
            check_process(self.pid)

    def pause(self) -> None:
        """Let go of what cannot be forked, then hold the loop still until `resume`.

        The thread waits and does not end: a thread that ends runs the clean-up of OpenSSL and others long after
        `threading` calls it ended, and a lock that it holds in a fork is locked in the child for ever.
        """
        self._forker = threading.get_ident()
        pause = self._pauses.begin()
        # Also where another fork of this thread has begun it: that one may have got no further than this line.
        self.loop.call_soon_threadsafe(self._begin_pause, pause)
        try:
            pause.wait()
        finally:
            pause.wait()

    def _begin_pause(self, pause: Pause) -> None:
        if pause.task is None:
            self.fork = self.loop.create_future()
            pause.task = self.loop.create_task(self._stand_still(pause))

    async def _stand_still(self, pause: Pause) -> None:
        try:
            await self._quiesce()
        finally:
            pause.hold()
            fork, self.fork = self.fork, None
            assert fork is not None
            fork.set_result(None)

    def resume(self) -> None:
        """Let the loop go on after `pause`."""
        self._pauses.end()
        self._forker = None

    async def _quiesce(self) -> None:
        for resident in tuple(self.residents):
            await resident.before_fork()
        for library in self.libraries:
            await library.settle()
        if _logging.are_pending():  # a handler that is at work holds locks, which the child would have for ever
            await _logging.emitted()

    async def forked(self) -> None:
        """Wait until no fork is under way."""
        while self.fork is not None:
            await asyncio.shield(self.fork)

    def inside(self) -> bool:
        """Whether the current thread is the engine's."""
        return threading.get_ident() == self._ident

    def obstacle(
        self,
        *,
        exiting: Callable[[], bool] = sys.is_finalizing,
        said: str = EXITING,
        process: Callable[[], int] = os.getpid,
    ) -> str | None:
        """Say why nobody would answer here: the engine's thread is in another process, or stands still for an exit.

        What it needs is bound to it: as an exit ends, the names of modules are None.
        """
        if exiting():
            return said
        if process() != self.pid:
            return "this process was forked in the middle of the call, which goes on in its parent: make another one"
        return None

    def check(self, *, error: type[ClosedError] = ClosedError) -> None:
        """Check that somebody would answer.

        Raises:
            ClosedError: Nobody would.
        """
        if (obstacle := self.obstacle()) is not None:
            raise error(obstacle)

    def check_caller(self) -> None:
        """Check that the engine does not wait for the current thread, which is about to wait for the engine.

        Raises:
            ClosedError: It does; a ConfigError as `Ground.check_caller` has it.
        """
        if not PATCHERS.keys().isdisjoint(sys.modules):
            self.ground.check_caller()
        if is_ours():
            raise ClosedError("casdk cannot be called from its own engine thread, nor from its workers")
        if self._forker is not None and self._forker == threading.get_ident():
            raise ClosedError("casdk cannot be called in the middle of a fork of the same thread")

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """Run a function on the loop, soon."""
        self.mailbox.post(self.loop, contextvars.copy_context(), function, *arguments)


_engine: Engine | None = None
_forks: Final[list[tuple[threading.RLock, Engine | None]]] = []
"""Forks that are under way, each with its lock and the engine that stands still for it: several if a signal's handler
forks in the middle of another fork of its thread."""
_engines: Final[dict[int, Engine]] = {}
"""The one of this process, by its id."""
_locks: Final[dict[int, threading.RLock]] = {}
"""Held while an engine starts, and by a fork. Reentrant: a signal's handler or a finalizer may make the first call in
the middle of another first call of its thread. By the process's id: a child's copy may be locked for ever."""


def _starting() -> threading.RLock:
    return _locks.setdefault(os.getpid(), threading.RLock())


def engine() -> Engine:
    """Return this process's engine, started if need be.

    Raises:
        ClosedError: Python is exiting.
        TransportError: It cannot be started.
    """
    global _engine
    current = _engine
    if sys.is_finalizing():
        raise ClosedError(EXITING)
    if current is not None and current.running and current.pid == os.getpid():
        return current
    notice_fork()
    with _starting():
        # One step for Python: of two calls in this thread, one in the middle of the other, the first to get here wins.
        current = _engines.setdefault(os.getpid(), Engine())
        try:
            current.start()
        except TransportError:
            _engines.pop(os.getpid(), None)  # the next call tries again
            raise
        _engine = current
        return current


def notice_fork() -> None:
    """Look whether this process was forked by what runs no hook of Python's, as uWSGI forks."""
    if _engine is not None and _engine.pid != os.getpid():
        with _starting():
            if _engine is not None and _engine.pid != os.getpid():
                _leave_parent(closed=False)


atexit.register(notice_fork)  # else the exit would deallocate what the child has of its parent


def _leave_parent(closed: bool) -> None:
    """Forget, in a forked child, the engine of the parent and what belongs to it.

    Args:
        closed: Whether the connections were closed before the fork.
    """
    global _engine
    parent, _engine = _engine, None
    _engines.clear()
    forget_ours()
    if parent is None:
        return
    if parent.inside():  # what has forked ran on the loop, which must not turn here: its sockets are the parent's
        parent.loop.stop()
        with suppress(AttributeError):  # uvloop's
            cast(Any, parent.loop)._ready.clear()
    _keep_for_ever((parent, [resident.after_fork_in_child() for resident in tuple(parent.residents)]))
    if not closed:
        for library in parent.libraries:
            library.strand()
    error = ClosedError(str(parent.obstacle()))
    for caller in tuple(parent.callers):
        if caller.thread == threading.get_ident():  # the only one that there is here
            caller.abandon(error)


def _keep_for_ever(things: object) -> None:
    """Let nothing of this be deallocated, not even at exit: it would speak to sockets or threads of the parent's."""
    from ctypes import py_object, pythonapi

    pythonapi.Py_IncRef(py_object(things))


def _before_fork() -> None:
    notice_fork()
    lock = _starting()
    lock.acquire()
    current = _engine
    if current is not None and (not current.running or current.inside()):
        current = None
    _forks.append((lock, current))
    if current is not None:
        current.pause()


def _after_fork_in_parent() -> None:
    if not _forks:  # this is the child of a fork in the middle of this one
        return
    lock, paused = _forks.pop()
    if paused is not None and all(other is not paused for _, other in _forks):
        paused.resume()
    lock.release()


def _after_fork_in_child() -> None:
    paused = _forks.pop()[1] if _forks else None
    _forks.clear()
    _leave_parent(closed=paused is not None)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


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
        _logging.begin_call()

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
