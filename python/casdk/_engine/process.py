"""The engine of this process: started on first use, held still for a fork, forgotten in a forked child.

A child starts an engine of its own: grpc.aio misbehaves with two loops in one process, and sockets must not be shared
between processes.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import Any, Final, cast

from casdk._engine.loop import Engine
from casdk._engine.threads import forget_ours
from casdk._wording import EXITING
from casdk.errors import ClosedError, TransportError

__all__ = ["engine", "notice_fork"]

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
