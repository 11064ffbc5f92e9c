"""Waits for the end of grpc.aio's calls, so that they are deallocated, and drops their frames from errors."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

__all__ = ["PendingReply", "without_frames"]


class PendingReply:
    """Awaits the reply of a call. If the task that does so is cancelled, it resets the call and awaits its end.

    grpc.aio frees the C structures of a call when its own task takes gRPC's event, and never if that task is cancelled,
    as it is by awaiting the call and by ``call.cancel()``: a kilobyte a call, and a reply that has come meanwhile
    (https://github.com/grpc/grpc/issues/43360). This has only the methods of a future that a task needs, because
    a real future between the two tasks would cost a turn of the loop.
    """

    __slots__ = ("_asyncio_future_blocking", "_call", "_task", "add_done_callback", "get_loop")

    def __init__(self, call: Any) -> None:
        self._asyncio_future_blocking = False
        self._call = call
        # There is none if interceptors of an instrumentation are around the call.
        self._task: asyncio.Task[object] | None = getattr(call, "_call_response", None)
        if self._task is not None:
            self.add_done_callback = self._task.add_done_callback
            self.get_loop = self._task.get_loop

    def cancel(self, msg: object = None) -> bool:
        """Reset the call; the task that awaits this is cancelled when the call has ended."""
        self._call._cancel("taken back by the caller")
        return False

    def __await__(self) -> Generator[Any, None, bytes | None]:
        """Return the reply; grpc.aio says None where the server sent none, or less than one, and success."""
        if self._task is not None and not self._task.done():
            self._asyncio_future_blocking = True
            yield self
        return (yield from self._call.__await__())  # type: ignore[no-any-return]


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
