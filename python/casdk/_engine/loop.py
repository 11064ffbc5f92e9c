"""The background event loop of a process, and the thread that it runs in.

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
"""Threads that read files and pack images, with the GIL released."""
READER_THREADS: Final = 8
"""Threads that read items of the caller's own types, whose code may be slow."""
CROP_THREADS: Final = os.cpu_count() or 1
"""Threads that decode and crop pictures, with the GIL released: one for each core."""
LOOKUP_THREADS: Final = 8
"""Threads in which asyncio looks up host names, each of which can take seconds."""
REUSED_BYTES: Final = 16 << 20
"""Messages up to this size are written to memory that was used before.

glibc returns freed memory to the system, so that each message costs a page fault for each 4 KiB. Once a block of this
size was freed, glibc keeps freed memory up to that size. The block is never written to, so it costs nothing itself.
This holds for the whole process, as it would after any array of 16 MiB was freed. Buffers of our own would not do the
same: messages are ``bytes``, and what is received and the rows of the result are allocated by glibc, too.
"""


class Engine:
    """The background loop and its thread. `casdk._engine.process.engine` makes the one of a process.

    Attributes:
        loop: The loop. The thread makes it, so it is there once the engine is running.
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
        bytearray(REUSED_BYTES)  # allocated to be freed at once, see `REUSED_BYTES`
        self.fork: asyncio.Future[None] | None = None
        """While a fork is under way, a future that is done when the fork is over. No connection is opened before that,
        since both processes would share it."""
        self._turn: Final = threading.Lock()
        self._begun: Final = threading.Event()
        self._error: Exception | None = None
        self._ident: int | None = None
        self._forker: int | None = None
        """The thread that forks."""
        self._pauses: Final = Pauses()
        self.running = False

    def start(self) -> None:
        """Run the loop in a daemon thread, so that interpreter exit never waits for it.

        Ctrl-C or a signal's handler may interrupt this at any line, and then it can be called again.

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
            # Made in this thread and not in the first caller's, since asyncio logs it: a handler that encodes would
            # run in the middle of the start.
            self.loop = asyncio.new_event_loop()
            self.loop.set_default_executor(Workers(LOOKUP_THREADS, "casdk-lookup"))
            if self.thread_model.patcher is None:  # with greenlets, another library waits for descriptors
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
        """Close what cannot be forked, then stop the loop until `resume`.

        The thread waits and does not end: a thread that ends runs the clean-up of OpenSSL and others long after
        `threading` reports its end, and a lock that it holds during a fork stays locked in the child for ever.
        """
        self._forker = threading.get_ident()
        pause = self._pauses.begin()
        # Posted even if another fork of this thread has begun the pause: it may not have posted this yet.
        self.loop.call_soon_threadsafe(self._begin_pause, pause)
        try:
            pause.wait()
        finally:
            # Once more, since Ctrl-C may have ended the first wait, and the fork must wait until the loop stands still.
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
        # A log handler that runs now holds locks, which would stay locked in the child for ever.
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
        message: str = EXITING,
        process: Callable[[], int] = os.getpid,
    ) -> str | None:
        """Return why the engine would not answer: its thread is in another process, or stopped by an exit.

        ``None`` means that it would. The functions are bound as defaults, because the names of modules are None near
        the end of an exit.
        """
        if exiting():
            return message
        if process() != self.pid:
            return "this process was forked in the middle of the call, which goes on in its parent: make another one"
        return None

    def check(self, *, error: type[ClosedError] = ClosedError) -> None:
        """Check that the engine would answer.

        Raises:
            ClosedError: It would not.
        """
        if (obstacle := self.obstacle()) is not None:
            raise error(obstacle)

    def check_caller(self) -> None:
        """Check that the engine does not wait for the current thread, which is about to wait for the engine.

        Raises:
            ClosedError: It does; a ConfigError as `ThreadModel.check_caller` has it.
        """
        modules = sys.modules
        if "gevent" in modules or "eventlet" in modules:  # a library may have patched the threads since the start
            self.thread_model.check_caller()
        thread = threading.get_ident()
        if thread in our_threads:
            raise ClosedError("casdk cannot be called from its own engine thread, nor from its workers")
        if thread == self._forker:
            raise ClosedError("casdk cannot be called in the middle of a fork of the same thread")

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """Run a function on the loop, soon."""
        self.mailbox.post(self.loop, contextvars.copy_context(), function, *arguments)
