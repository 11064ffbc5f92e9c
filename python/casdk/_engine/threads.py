"""Threads of casdk's own, which work for the engine until the process ends.

The engine runs in one of them, and `Workers` are pools of them; logging and the progress bar have one each.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

from casdk.errors import ClosedError, TransportError

__all__ = ["Workers", "check_process", "our_threads", "start", "wait_for_thread"]

P = ParamSpec("P")
T = TypeVar("T")


def start(work: Callable[[], object], name: str, *, ours: bool = False) -> None:
    """Run a function in a daemon thread, so that interpreter exit never waits for it.

    Args:
        work: The function.
        name: Name of the thread.
        ours: Whether callers wait for the thread, which therefore must not wait for them.

    Raises:
        TransportError: The system gives no more threads, or Python is exiting.
    """
    try:
        threading.Thread(target=_run, args=(work, os.getpid(), ours), name=name, daemon=True).start()
    except RuntimeError as error:
        if "new thread" not in str(error):  # another RuntimeError, which Ctrl-C during a start can cause
            raise
        message = f"the thread {name} cannot be started: {error}"
        raise TransportError(message, retryable=False, sent=False) from error


def _run(work: Callable[[], object], process: int, ours: bool) -> None:
    thread = threading.get_ident()
    if ours:
        our_threads.add(thread)
    try:
        work()
    except BaseException as error:
        if os.getpid() == process:
            raise
        _end_child(error)
    finally:
        our_threads.discard(thread)


def _end_child(error: BaseException) -> NoReturn:
    """End a process that was forked in a thread of casdk's: it has no other thread."""
    if not isinstance(error, SystemExit):
        threading.excepthook(threading.ExceptHookArgs([*sys.exc_info(), threading.current_thread()]))
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    status = error.code if isinstance(error, SystemExit) else 1
    os._exit(status if isinstance(status, int) else int(status is not None))


our_threads: Final[set[int]] = set()
"""Ids, as `threading.get_ident` has them, of the threads that callers wait for.

It is no `threading.local`, since one that was made before gevent patched `threading` would be shared by all greenlets.
"""


def check_process(process: int) -> None:
    """Check that the code that ran in a thread of casdk's has not forked.

    Raises:
        ClosedError: It has forked, and this is the child, which ends by this error.
    """
    if os.getpid() != process:
        raise ClosedError("this process was forked in the middle of a call, which goes on in its parent")


class Workers(ThreadPoolExecutor):
    """Threads that take work from a queue, for a loop's `run_in_executor`.

    The threads of ``concurrent.futures`` refuse all work as soon as the main thread ends, and the exit waits for them;
    but other threads and ``atexit`` handlers still make calls then. This is a subclass of its executor only because
    asyncio takes no other class as the default executor; none of its code is used.

    Args:
        most_threads: The most threads; each is started when all others are busy.
        name: Name of the threads, before their number.
    """

    def __init__(self, most_threads: int, name: str) -> None:
        super().__init__(most_threads)
        self._most_threads = most_threads
        self._name = name
        self._process = os.getpid()
        self._queue: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._count_lock = threading.Lock()
        self._started = 0
        self._unfinished = 0

    def submit(self, function: Callable[P, T], /, *arguments: P.args, **options: P.kwargs) -> Future[T]:
        """Run a function in one of the threads.

        Raises:
            TransportError: No thread is running, and none can be started.
        """
        future: Future[T] = Future()
        with self._count_lock:
            if self._started == 0 or (self._unfinished >= self._started and self._started < self._most_threads):
                self._start_another()
            self._unfinished += 1
        self._queue.put((future, partial(function, *arguments, **options)))
        return future

    async def call(self, function: Callable[[], T]) -> tuple[T | None, BaseException | None]:
        """Run a function in one of the threads and wait for it; return its result and its error, one of them ``None``.

        Raises:
            TransportError: No thread is running, and none can be started.
        """
        outcome = await asyncio.get_running_loop().run_in_executor(self, self._outcome_of, function)
        # Popped, since the traceback of the error will refer to this frame, and so to the list: a reference cycle.
        error, result = outcome.pop(), outcome.pop()
        return result, error

    def _outcome_of(self, function: Callable[[], T]) -> list[Any]:
        try:
            return [function(), None]
        except BaseException as error:  # returned, since `Future.set_exception` refuses StopIteration
            if os.getpid() != self._process:
                raise
            return [None, error]

    def _start_another(self) -> None:
        try:
            start(self._work, f"{self._name}_{self._started}", ours=True)
        except TransportError:
            if self._started == 0:
                raise
            return  # the threads that are running will do the work
        self._started += 1

    def _work(self) -> None:
        while True:
            future, work = self._queue.get()
            if future.set_running_or_notify_cancel():
                self._finish(future, work)
            else:
                self._count_out()
            del future, work  # so that an idle thread keeps no object in memory

    def _finish(self, future: Future[Any], work: Callable[[], Any]) -> None:
        try:
            result = work()
        except BaseException as error:
            if os.getpid() != self._process:
                raise
            self._count_out()
            future.set_exception(error)
        else:
            check_process(self._process)
            self._count_out()
            future.set_result(result)

    def _count_out(self) -> None:
        # Called before the future is done: the code that waits for it may submit work at once, and this thread is free.
        with self._count_lock:
            self._unfinished -= 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: the threads end with the process."""


async def wait_for_thread(
    ask: Callable[[Callable[[], object]], bool], seconds: float, deadline: float | None, give_up: Callable[[], object]
) -> None:
    """Wait on a loop until a thread calls a function, or until that has taken too long.

    Args:
        ask: Passes the function to the thread; returns whether the thread will call it.
        seconds: The most seconds to wait.
        deadline: When the wait ends at the latest, in the loop's time.
        give_up: Called if it has taken too long.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    if deadline is not None:
        until = min(until, deadline)
    if until <= loop.time():
        return
    done: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not done.done():
            done.set_result(None)

    def notify() -> None:
        with suppress(RuntimeError):  # the loop is closed, so no code waits on it
            loop.call_soon_threadsafe(end)

    def expire() -> None:
        give_up()
        end()

    if not ask(notify):
        return
    timer = loop.call_at(until, expire)
    try:
        await done
    finally:
        timer.cancel()
