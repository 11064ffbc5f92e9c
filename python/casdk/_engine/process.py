"""The engine of this process: it is started on first use, paused for a fork, and replaced in a forked child.

A child starts an engine of its own, since threads do not survive a fork, and sockets must not be shared between
processes.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import Any, Final, cast

from casdk._engine.loop import Engine
from casdk._engine.threads import our_threads
from casdk._wording import EXITING
from casdk.errors import ClosedError, TransportError

__all__ = ["engine", "notice_fork"]

_engine: Engine | None = None
_forks: Final[list[tuple[threading.RLock, Engine | None]]] = []
"""Forks that are under way, each with its lock and the engine that stands still for it: several if a signal's handler
forks in the middle of another fork of its thread."""
_engines: Final[dict[int, Engine]] = {}
"""The engine of this process, by its id."""
_locks: Final[dict[int, threading.RLock]] = {}
"""One lock for each process, by its id, since a child's copy may be locked for ever. Held while an engine starts and by
a fork. Reentrant: a signal's handler or a finalizer may make the first call in the middle of another first call."""


def _starting() -> threading.RLock:
    return _locks.setdefault(os.getpid(), threading.RLock())


def engine() -> Engine:
    """Return this process's engine; the first call starts it.

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
        # `setdefault` is atomic: if a signal's handler makes a call in the middle of another, both get the same engine.
        current = _engines.setdefault(os.getpid(), Engine())
        try:
            current.start()
        except TransportError:
            _engines.pop(os.getpid(), None)  # the next call tries again
            raise
        _engine = current
        return current


def notice_fork() -> None:
    """Forget the parent's engine if this process was forked without Python's hooks, as uWSGI forks."""
    if _engine is not None and _engine.pid != os.getpid():
        with _starting():
            if _engine is not None and _engine.pid != os.getpid():
                _leave_parent(closed=False)


# Without this, the exit of a child would deallocate objects of its parent.
atexit.register(notice_fork)


def _leave_parent(closed: bool) -> None:
    """Drop, in a forked child, the engine of the parent and what belongs to it.

    Args:
        closed: Whether the connections were closed before the fork.
    """
    global _engine
    parent, _engine = _engine, None
    _engines.clear()
    our_threads.clear()  # new threads of the child may get the same ids
    if parent is None:
        return
    if parent.inside():
        # The code that forked ran on the loop, which must not go on here: its sockets belong to the parent.
        parent.loop.stop()
        with suppress(AttributeError):  # a loop of uvloop has no such attribute
            cast(Any, parent.loop)._ready.clear()
    _never_deallocate((parent, [owner.after_fork_in_child() for owner in tuple(parent.owners)]))
    if not closed:
        for library in parent.libraries:
            library.mark_forked()
    error = ClosedError(str(parent.obstacle()))
    for caller in tuple(parent.callers):
        # Of the parent's threads only the one that forked goes on in the child.
        if caller.thread == threading.get_ident():
            caller.end_in_child(error)


def _never_deallocate(things: object) -> None:
    """Raise the reference count, so that even the exit does not deallocate these: it would use the parent's sockets."""
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
    if not _forks:
        # This is the child of a signal's handler that forked in the middle of this fork, and has cleared the list.
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
