"""Waits for the end of grpc.aio's calls, so that they are deallocated, and drops their frames from errors."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

__all__ = ["answer", "without_frames"]


class CallEnd:
    """Awaits the end of a call, also if the task that awaits it is cancelled: then it resets the call, and waits on.

    grpc.aio frees the C structures of a call when its own task takes gRPC's event, and never if that task is cancelled,
    as it is by awaiting the call and by ``call.cancel()``: a kilobyte a call, and a reply that has come meanwhile
    (https://github.com/grpc/grpc/issues/43360). This has only the methods of a future that a task needs, because
    a real future between the two tasks would cost a turn of the loop.
    """

    __slots__ = ("_asyncio_future_blocking", "_call", "_task", "add_done_callback", "get_loop")

    def __init__(self, call: Any, task: asyncio.Task[object]) -> None:
        self._asyncio_future_blocking = False
        self._call = call
        self._task = task
        self.add_done_callback = task.add_done_callback
        self.get_loop = task.get_loop

    def cancel(self, msg: object = None) -> bool:
        """Reset the call; the task that awaits this is cancelled when the call has ended."""
        self._call._cancel("taken back by the caller")
        return False

    def __await__(self) -> Generator[CallEnd, None, None]:
        if not self._task.done():
            self._asyncio_future_blocking = True
            yield self


async def answer(call: Any) -> bytes | None:
    """Wait for a call's reply; grpc.aio says None where the server sent none, or less than one, and success."""
    task: asyncio.Task[object] | None = getattr(call, "_call_response", None)
    if task is not None:  # there is none if interceptors of an instrumentation are around the call
        await CallEnd(call, task)
    return await call  # type: ignore[no-any-return]


def without_frames(error: BaseException) -> BaseException:
    """Return the exception without the frames it came through, and so each one it came from.

    grpc's frames refer to the call, so that whoever stores the exception stores the call: grpc.aio's thread runs until
    the last call and channel of the process are gone, and a child forked meanwhile aborts or hangs in its first call.
    """
    seen: BaseException | None = error
    while seen is not None:
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__
    return error
