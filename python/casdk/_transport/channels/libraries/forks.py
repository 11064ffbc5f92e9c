"""Forks and grpcio: its threads have to end before a fork, or the child must not use it; `grpc.py` calls this."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from pathlib import Path
from typing import Final

from casdk._transport.channels.base import LOG
from casdk.errors import ConfigError

__all__ = ["check_fork", "finish_closing", "mark_forked"]

CLOSING_TURNS: Final = 20
"""Turns of the loop that a fork waits for gRPC's threads to end, before it runs a garbage collection."""
CLOSING_SECONDS: Final = 0.5
"""Seconds that it waits after those turns."""
THEIRS: Final = "grpc.aio objects that are not casdk's are in use: gRPC may abort or hang in a forked child"

_forked_in_use = False


async def finish_closing() -> None:
    """Wait until gRPC's threads have ended: a child forked before aborts or hangs in its first call.

    grpc.aio's thread runs until the last call and channel of the process are deallocated. For a cancelled call that
    takes turns of the loop, and for one in a reference cycle a garbage collection. Then the threads of the core end.
    """
    for _ in range(CLOSING_TURNS):
        if not _polling():
            break
        await asyncio.sleep(0)
    else:
        gc.collect()
    give_up = time.monotonic() + CLOSING_SECONDS
    while _polling() or _core_runs():
        if time.monotonic() > give_up:
            if _polling():
                LOG.warning(THEIRS)
            return
        await asyncio.sleep(0.001)


def mark_forked() -> None:
    """Note, in a forked child, that gRPC was in use in the parent: locks of its threads are locked here for ever."""
    global _forked_in_use
    _forked_in_use = True


def check_fork() -> None:
    """Check that gRPC can be used here.

    Raises:
        ConfigError: It cannot.
    """
    if _forked_in_use:
        raise ConfigError(
            "grpcio does not survive how this process was forked: without Python's hooks, from one in which grpcio was "
            'in use; leave out transport="libraries", or with uWSGI, set lazy-apps or py-call-uwsgi-fork-hooks to true'
        )


def _polling() -> bool:
    """Whether grpc.aio's thread runs (``PollerCompletionQueue._poll_wrapper`` in grpcio's completion_queue.pyx.pxi)."""
    return any("_poll_wrapper" in thread.name for thread in threading.enumerate())


def _core_runs() -> bool:
    """Whether threads of gRPC's core run, by their names on Linux; on other systems it is not known."""
    for task in Path("/proc/self/task").glob("*/comm"):
        try:
            name = task.read_text()
        except OSError:  # it has ended
            continue
        if name.startswith(("grpc", "event_engine", "lifeguard")):
            return True
    return False
