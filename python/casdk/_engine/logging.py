"""Records that are logged on casdk's own threads, and the thread that emits them.

A handler, a filter and a record factory are the caller's code. One of them may encode, or wait for a lock that is held
by a thread that waits for the engine. So casdk's threads queue their records here, and a thread of its own makes and
emits them, in the order in which they were queued. Every wait for that thread has a limit.
"""

from __future__ import annotations

import atexit
import contextvars
import functools
import logging
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from casdk._engine.threads import check_process, our_threads, start, wait_for_thread
from casdk.errors import TransportError

__all__ = ["are_pending", "divert", "emitted", "flush", "handled", "logger_of"]

MOST_RECORDS: Final = 10_000
"""The most records that may wait to be emitted; further ones are counted and left out."""
END_SECONDS: Final = 0.05
"""Seconds that the end of a call waits for its records to be emitted, so that the log shows them before what the caller
logs next. A handler that takes longer, or that waits for the caller, gets them later."""
EXIT_SECONDS: Final = 1.0
"""Seconds that the end of the process waits for the last records."""
STAMPS: Final = (
    *("created", "msecs", "relativeCreated", "thread", "threadName"),
    *("process", "processName", "taskName"),
)
"""Attributes of a record that say when and where it was logged: they are copied, since it is made on another thread."""


class _Draft(logging.LogRecord):
    """The data of a record. The emitting thread makes the record, since the record factory is the caller's code."""

    extra: Mapping[str, object] | None = None


class _Diverted(logging.Logger):
    """A logger that runs none of the caller's code on casdk's threads, and takes no lock there.

    On all other threads it does what its own class does.
    """

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        if threading.get_ident() not in our_threads:
            return super().isEnabledFor(level)
        # The same result as that of the method above, without its lock: `dictConfig` holds the lock while it makes
        # handlers, which may be the caller's code, and encode. The level is looked up here, without calling methods,
        # since that is most of what logging costs a call that logs nothing.
        logger: logging.Logger = self
        while not logger.level and logger.parent is not None:
            logger = logger.parent
        return level >= logger.level and not self.disabled and self.manager.disable < level

    def makeRecord(self, *arguments: Any, **options: Any) -> logging.LogRecord:  # noqa: N802
        if threading.get_ident() not in our_threads:
            return super().makeRecord(*arguments, **options)
        return self._draft(*arguments, **options)

    def _draft(
        self,
        name: str,
        level: int,
        path: str,
        line: int,
        message: object,
        arguments: Any,
        exc_info: Any,
        function: str | None = None,
        extra: Mapping[str, object] | None = None,
        stack: str | None = None,
    ) -> _Draft:
        draft = _Draft(name, level, path, line, message, arguments, exc_info, function, stack)
        draft.extra = extra
        # Formatted at once, since the arguments may change before it is emitted, or be large. If that fails, it fails
        # again in the handler, which reports it.
        with suppress(Exception):
            draft.msg, draft.args = draft.getMessage(), None
        return draft

    def handle(self, record: logging.LogRecord) -> None:
        if isinstance(record, _Draft):
            _emitter().queue(_Delivery(functools.partial(self._emit, record)))
        else:
            super().handle(record)

    def _emit(self, draft: _Draft) -> None:
        record = super().makeRecord(
            draft.name,
            draft.levelno,
            draft.pathname,
            draft.lineno,
            draft.msg,
            (),
            draft.exc_info,
            draft.funcName,
            draft.extra,
            draft.stack_info,
        )
        record.args = draft.args or ()
        for stamp in STAMPS:
            if hasattr(draft, stamp):
                setattr(record, stamp, getattr(draft, stamp))
        super().handle(record)


class _Delivery:
    """One record that is to be emitted, in the context that it was logged in.

    Attributes:
        under_way: Whether the handlers are working on it now.
        called: Whether one of them has made a call of casdk.
    """

    def __init__(self, emit: Callable[[], None]) -> None:
        self._emit = emit
        self._context = contextvars.copy_context()
        self.under_way = self.called = False

    def note_call(self) -> None:
        """Note that a handler makes a call of casdk, whose own records are left out while the handler runs."""
        self.called = self.called or self.under_way

    def run(self) -> None:
        """Emit it."""
        self.under_way = True
        try:
            self._context.run(self._run)
        finally:
            self.under_way = False

    def _run(self) -> None:
        handled.set(self)
        self._emit()


handled: Final = contextvars.ContextVar[_Delivery | None]("casdk-record", default=None)
"""The record that handlers are working on in this context."""


class _Emitter:
    """The records of one process, and the thread that emits them.

    Attributes:
        late: Whether a handler was too slow for the end of a call, so that no call waits for it until it has finished.
    """

    def __init__(self) -> None:
        self.late = False
        self._waiting: Final[deque[_Delivery | Callable[[], object]]] = deque()
        self._wakeups: Final[queue.SimpleQueue[None]] = queue.SimpleQueue()
        self._turn: Final = threading.Lock()
        self._started = False
        self._current: _Delivery | None = None
        self._left_out = 0
        self._echoed = False

    @property
    def pending(self) -> bool:
        """Whether a record waits, or is being emitted."""
        return bool(self._waiting)

    def queue(self, delivery: _Delivery) -> None:
        """Queue a record, unless too many wait, or a handler's own call has logged it while that handler runs."""
        current = self._current
        if current is not None and current.called:
            # A handler that encodes each record makes a call, which logs records, which it would encode, and so on.
            if not self._echoed:
                self._echoed = True
                self.add(_Delivery(functools.partial(LOG.warning, ECHO)))
            return
        if len(self._waiting) >= MOST_RECORDS:
            self._left_out += 1
            return
        self.add(delivery)

    def add(self, step: _Delivery | Callable[[], object]) -> None:
        """Let the thread emit a record, or call a function after all records that were queued before."""
        # A record stays in the queue until it has been emitted, and so counts as pending until then.
        self._waiting.append(step)
        self._wakeups.put(None)
        if not self._started:
            with suppress(TransportError):  # the system gives no thread now; the next record tries again
                start(self._run, "casdk-log")
                self._started = True

    def _run(self) -> None:
        if not self._turn.acquire(blocking=False):
            return
        process = os.getpid()
        while True:
            self._wakeups.get()
            step = self._waiting[0]
            if isinstance(step, _Delivery):
                self._emit(step)
                check_process(process)
                self._waiting.popleft()
                self.late = False
            else:
                self._waiting.popleft()
                step()
            del step
            if self._left_out and len(self._waiting) < MOST_RECORDS // 2:
                left_out, self._left_out = self._left_out, 0
                self._emit(_Delivery(functools.partial(LOG.warning, LEFT_OUT, left_out)))

    def _emit(self, delivery: _Delivery) -> None:
        self._current = delivery
        try:
            delivery.run()
        except BaseException:  # raised by a handler; no other code reports it
            with suppress(BaseException):
                threading.excepthook(threading.ExceptHookArgs([*sys.exc_info(), threading.current_thread()]))
        self._current = None


ECHO: Final = (
    "a handler that gets casdk's records calls casdk: what casdk logs until such a handler returns is left out, "
    "or this would go on for ever"
)
LEFT_OUT: Final = "%d records were left out: they came faster than the handlers took them"
LOG: Final = logging.getLogger("casdk.logging")

_emitters: dict[int, _Emitter] = {}
"""The emitter of this process, by its id: a child makes its own, even if it was forked without Python's hooks."""
_of_parent: dict[int, _Emitter] = {}
"""The parent's emitter, in a forked child. It is held here so that nothing of it is deallocated."""


def _after_fork_in_child() -> None:
    global _emitters, _of_parent
    _of_parent, _emitters = _emitters, {}


def _emitter() -> _Emitter:
    process = os.getpid()
    found = _emitters.get(process)
    # Without a lock: the garbage collector may run a finalizer here that logs, too, and would wait for itself.
    return _emitters.setdefault(process, _Emitter()) if found is None else found


def logger_of(name: str) -> logging.Logger:
    """Return the logger of a name, for use on any thread."""
    logger = logging.getLogger(name)
    if not isinstance(logger, _Diverted):
        # The class is replaced, since a filter would run too late: after the locks and the record factory.
        kind = type(logger)
        logger.__class__ = type(kind.__name__, (_Diverted, kind), {})
    return logger


def divert(*packages: str) -> None:
    """Divert all existing loggers of libraries that log on casdk's threads; called after the import of a library."""
    for package in packages:
        logger_of(package)
    for name, logger in logging.Logger.manager.loggerDict.copy().items():
        if isinstance(logger, logging.Logger) and any(f"{name}.".startswith(f"{package}.") for package in packages):
            logger_of(name)


def are_pending() -> bool:
    """Whether the end of a call is to wait for records to be emitted."""
    if not _emitters:
        return False
    emitter = _emitters.get(os.getpid())
    if emitter is None or emitter.late or not emitter.pending:
        return False
    # A call that a handler makes must not wait: the handler's record is emitted only after the call.
    delivery = handled.get()
    return delivery is None or not delivery.under_way


async def emitted(deadline: float | None = None) -> None:
    """Wait until the records queued so far are emitted, or until that has taken too long.

    Args:
        deadline: When the call has to end, in the loop's time.
    """
    emitter = _emitter()

    def ask(notify: Callable[[], object]) -> bool:
        emitter.add(notify)
        return True

    def give_up() -> None:
        # The calls that end from now on do not wait for so slow a handler, until it has finished a record.
        emitter.late = True

    await wait_for_thread(ask, END_SECONDS, deadline, give_up)


def flush(seconds: float) -> bool:
    """Wait until the records queued so far are emitted.

    Args:
        seconds: To wait at most.

    Returns:
        Whether they are.
    """
    emitter = _emitters.get(os.getpid())
    if emitter is None or not emitter.pending:
        return True
    done = threading.Event()
    emitter.add(done.set)
    return done.wait(seconds)


atexit.register(flush, EXIT_SECONDS)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
