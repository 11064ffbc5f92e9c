"""The background event loop of a process, and the thread it turns in.

Every connection lives on this loop. It is started on first use, never at import (see `casdk._engine.process`).
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from casdk._engine import logging
from casdk._engine.forks import ConnectionOwner, Library, Pause, Pauses
from casdk._engine.greenlets import ThreadModel
from casdk._engine.mailbox import Mailbox
from casdk._engine.threads import Workers, check_process, our_threads, start
from casdk._wording import EXITING
from casdk.errors import ClosedError, TransportError

if TYPE_CHECKING:
    from casdk._engine.callers import Caller

__all__ = ["LOOKUP_THREADS", "READER_THREADS", "WORKER_THREADS", "Engine"]

logging.divert("asyncio", "concurrent.futures", "py.warnings")

WORKER_THREADS: Final = 2
"""They read files and pack images, GIL released."""
READER_THREADS: Final = 8
"""They read items of the caller's own types, whose code may take its time."""
CROP_THREADS: Final = os.cpu_count() or 1
"""They decode and crop pictures, GIL released: a thread for each core."""
LOOKUP_THREADS: Final = 8
"""In them asyncio looks up names of hosts, each of which can take seconds."""
REUSED_BYTES: Final = 16 << 20
"""Messages up to this size are written to memory that was used before.

glibc gives freed memory back to the system, and the next message costs a page fault for each 4 KiB of it, until a block
of this size was freed once: it takes that for the program's habit. The block is never touched, so it costs nothing.
This holds for the whole process, as it would after any array of 16 MiB was freed. It cannot be had by keeping buffers
of our own: messages are ``bytes``; what is received and the result's rows are glibc's, too.
"""


class Engine:
    """The loop and its thread. Use `engine`, not this class.

    Attributes:
        loop: Made by the thread, so it is there once the engine is running.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        self.pid: Final = os.getpid()
        self.thread_model: Final = ThreadModel()
        self.owners: Final[WeakSet[ConnectionOwner]] = WeakSet()
        self.libraries: Final[set[Library]] = set()
        """The libraries that the owners' connections are made with."""
        self.callers: Final[set[Caller[Any]]] = set()
        """Threads and loops that wait for the engine."""
        self.workers: Final = Workers(WORKER_THREADS, "casdk-pack")
        self.readers: Final = Workers(READER_THREADS, "casdk-read")
        self.croppers: Final = Workers(CROP_THREADS, "casdk-crop")
        self.mailbox: Final = Mailbox()
        bytearray(REUSED_BYTES)  # freed at once, which is all that it is for
        self.fork: asyncio.Future[None] | None = None
        """There while a fork is under way, and done when it is over. No connection is opened meanwhile, since both
        processes would have it."""
        self._turn: Final = threading.Lock()
        self._begun: Final = threading.Event()
        self._error: Exception | None = None
        self._ident: int | None = None
        self._forker: int | None = None
        """The thread that forks."""
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
        self.thread_model.check_start()
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
            self.loop.set_default_executor(Workers(LOOKUP_THREADS, "casdk-lookup"))
            if self.thread_model.patcher is None:  # what waits for descriptors there is not asyncio's
                self.mailbox.listen(self.loop)
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
        """Close what cannot be forked, then hold the loop still until `resume`.

        The thread waits and does not end: a thread that ends runs the clean-up of OpenSSL and others long after
        `threading` calls it ended, and a lock that it holds in a fork is locked in the child for ever.
        """
        self._forker = threading.get_ident()
        pause = self._pauses.begin()
        # Posted even if the pause is that of another fork, of this thread: its own post may not have been made yet.
        self.loop.call_soon_threadsafe(self._begin_pause, pause)
        try:
            pause.wait()
        finally:
            # Once more, since Ctrl-C may have ended the first wait, and nothing forks before the loop stands still.
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
        for owner in tuple(self.owners):
            await owner.before_fork()
        for library in self.libraries:
            await library.finish_closing()
        # A log handler that is at work holds locks, and in the child these would stay locked for ever.
        if logging.are_pending():
            await logging.emitted()

    async def forked(self) -> None:
        """Wait until no fork is under way; runs on the loop."""
        while self.fork is not None:
            await asyncio.shield(self.fork)

    def inside(self) -> bool:
        """Whether the current thread is the engine's."""
        return threading.get_ident() == self._ident

    def obstacle(
        self,
        exiting: Callable[[], bool] = sys.is_finalizing,
        said: str = EXITING,
        process: Callable[[], int] = os.getpid,
    ) -> str | None:
        """Return why nobody would answer here, if so: the engine's thread is in another process, or stopped by an exit.

        The functions it calls are bound as defaults, because the names of modules are None near the end of an exit.
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
            ClosedError: It does; a ConfigError as `ThreadModel.check_caller` has it.
        """
        modules = sys.modules
        if "gevent" in modules or "eventlet" in modules:  # who may have patched the threads since
            self.thread_model.check_caller()
        thread = threading.get_ident()
        if thread in our_threads:
            raise ClosedError("casdk cannot be called from its own engine thread, nor from its workers")
        if thread == self._forker:
            raise ClosedError("casdk cannot be called in the middle of a fork of the same thread")

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """Run a function on the loop, soon."""
        self.mailbox.post(self.loop, contextvars.copy_context(), function, *arguments)
