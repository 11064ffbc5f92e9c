"""Content -> chunks: reads the user's iterable where it has to be read: on the engine, or where the caller is."""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import numpy as np

from casdk._engine.threads import check_process, start
from casdk.errors import InputTypeError, InputValueError

if TYPE_CHECKING:
    from casdk._engine.callers import Caller

__all__ = ["Feed", "is_held", "length_of"]

T = TypeVar("T")

FILL_SECONDS: Final = 0.002
"""How long a caller's iterator may go on filling further batches before the first one is sent."""
CONTAINERS: Final[tuple[type[Iterable[Any]], ...]] = (list, tuple, set, frozenset, type({}.keys()), type({}.values()))
"""Containers whose iteration runs no code of the caller's: the engine reads them by itself."""
MOST_AT_ONCE_ITEMS: Final = 1024
"""Items that are read without a break from an iterable that may have to be left in the middle of a chunk."""


def is_held(content: object) -> bool:
    """Whether iterating this runs no code of the caller's, as that of a list's subclass may."""
    kind = type(content)
    if kind in CONTAINERS:
        return True
    iterate = getattr(kind, "__iter__", None)
    return any(iterate is container.__iter__ for container in CONTAINERS)


def length_of(content: Any) -> int | None:
    """Return how many items there are, if the content knows; its ``__len__`` may fail, as `list` allows, too."""
    if not hasattr(type(content), "__len__"):
        return None
    try:
        return len(content)
    except (TypeError, ValueError, OverflowError):
        return None


class Feed:
    """Reads one call's content, chunk by chunk; `casdk._calls.reading` has one and looks at the items.

    An iterable that may run the caller's code is read where the caller is: in the thread of a sync call, on the loop of
    an async one.

    Attributes:
        total: Items in all, if known.
        size: Items per chunk, from the next one on; may be changed by the engine.
        direct: Whether the engine reads it itself, without asking the caller.

    Args:
        content: The user's iterable, which has passed ``check_content``.
        size: Items per chunk.
        reader: ``"thread"`` reads it in a thread of its own instead, in a copy of the caller's context, so that its
            blocking cannot outlive a deadline.
        timeout: Seconds of the call, if it has so many only: the caller then stops after the item that it is reading.

    Raises:
        InputValueError: A thread is to read an async iterable.
    """

    total: int | None
    direct: bool
    _asynchronous = False
    _closed = False
    _reader: Reader | None = None
    _iterator: Any = None
    _list: list[Any] | None = None
    _position = 0
    _gate: list[None] | None = None
    _task: asyncio.Task[Any] | None = None
    _untaken: deque[list[Any]] = deque(maxlen=0)
    """Chunks that were posted to the engine, which has not taken them; of a list there never are any."""

    def __init__(
        self, content: Any, size: int, reader: Literal["caller", "thread"] = "caller", timeout: float | None = None
    ) -> None:
        self.size = size
        if type(content) is not list and issubclass(type(content), np.ndarray) and content.dtype.kind in "UO":
            content = content.ravel().tolist()
        if type(content) is list:  # as it is most of the time
            self.total, self.direct, self._list = len(content), True, content
            return
        self._untaken = deque()
        self.total = length_of(content)
        self.direct = is_held(content)
        self._asynchronous = isinstance(content, AsyncIterable)
        threaded = reader == "thread"
        if threaded and self._asynchronous:
            raise InputValueError("reader='thread' reads a sync iterable; an async one belongs to its loop")
        if threaded and not self.direct:
            self._reader = Reader()
            self._open = partial(_begin, content)  # called in that thread, since `iter` runs the caller's code, too
        else:
            self._iterator = _begin(content, asynchronous=self._asynchronous)
        # The caller reads no more items at a time than this list has entries (`_fill`). When the call is over, the
        # engine empties the list, which ends a `zip` that is under way: no further item is taken from the iterable.
        if timeout is not None and not self.direct:
            self._gate = [None] * min(size, MOST_AT_ONCE_ITEMS)

    async def read(self, most: int, caller: Caller[Any], take: Callable[[list[Any]], None]) -> bool:
        """Read up to ``most`` chunks where the iterable has to be read. What it raises is raised here as it is.

        Args:
            most: Chunks.
            caller: Where the call came from.
            take: Gets each chunk on the engine as soon as it is there, since the next one may take long.

        Returns:
            Whether that was the end.
        """
        if self._reader is not None:
            return bool(caller.unwrap(*await self._reader.call(lambda: self._read(most, caller, take))))
        read = self._read_asynchronously if self._asynchronous else self._read
        ended: bool = await caller.call(lambda: read(most, caller, take))
        return ended

    def read_held(self, most: int) -> list[list[Any]]:
        """Return up to ``most`` chunks of a container; none means the end."""
        chunks: list[list[Any]] = []
        content, size = self._list, self.size
        if content is not None:
            start = self._position
            self._position = end = start + most * size
            for at in range(start, min(end, len(content)), size):
                chunks.append(content[at : at + size])  # noqa: PERF401 - a comprehension is a function of its own
            return chunks
        while len(chunks) < most and (chunk := list(islice(self._iterator, size))):
            chunks.append(chunk)
        return chunks

    def _read(self, most: int, caller: Caller[Any], take: Callable[[list[Any]], None]) -> bool:
        if self._iterator is None:
            self._iterator = self._open()
        until = monotonic() + FILL_SECONDS
        for _ in range(most):
            if self._closed:
                break
            size = self.size  # the engine may change it meanwhile
            chunk = self._fill(size)
            if chunk:
                self._untaken.append(chunk)
                caller.post(take, chunk)
            if len(chunk) < size:
                return True
            if monotonic() > until:
                break
        return False

    def _fill(self, size: int) -> list[Any]:
        """Return the next chunk, a short one where the iterable ends or the call is over."""
        gate = self._gate
        if gate is None:
            return list(islice(self._iterator, size))
        chunk: list[Any] = []
        while left := size - len(chunk):
            # `zip` asks the gate first, so that it never drops an item that the iterator has returned already.
            part = [item for _, item in zip(islice(gate, left), self._iterator, strict=False)]
            chunk += part
            if not part or len(part) < min(left, len(gate)):
                break
        return chunk

    async def _read_asynchronously(self, most: int, caller: Caller[Any], take: Callable[[list[Any]], None]) -> bool:
        self._task = asyncio.current_task()
        until = monotonic() + FILL_SECONDS
        for _ in range(most):
            chunk: list[Any] = []
            size = self.size  # as above
            self._untaken.append(chunk)  # before it is full: if the call ends now, its items count as read
            while len(chunk) < size and not self._closed:
                try:
                    chunk.append(await anext(self._iterator))
                except StopAsyncIteration:
                    break
            if chunk:
                caller.post(take, chunk)
            if len(chunk) < size:
                return True
            if monotonic() > until:
                break
        return False

    def taken(self) -> None:
        """The oldest chunk that was posted has been taken."""
        self._untaken.popleft()

    def untaken(self) -> list[list[Any]]:
        """Return the chunks that were read and not taken when the call had ended."""
        chunks, self._untaken = self._untaken, deque()
        return [chunk for chunk in chunks if chunk]

    def close(self) -> None:
        """Read no more; runs on the engine, while the caller may still be waiting for an item."""
        self._closed = True
        if self._gate is not None:
            self._gate.clear()
        if self._reader is not None:
            self._reader.close()
        if self._task is not None and not self._task.done():
            with suppress(RuntimeError):  # its loop is closed
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)


def _begin(content: Any, *, asynchronous: bool = False) -> Any:
    """Return an iterator of the content; what the content's own code raises is raised as it is.

    `iter` is called on the content only once. Each chunk is read by a loop of its own, which calls `iter` again: an
    iterator that begins anew at each `iter` would return its first items for ever. `islice` around it prevents that.

    Raises:
        InputTypeError: The interpreter says that there is none.
    """
    try:
        return aiter(content) if asynchronous else islice(content, None)
    except TypeError as error:
        here = error.__traceback__
        if here is not None and here.tb_next is not None:  # raised by Python code of the content's, deeper down
            raise
        raise InputTypeError(f"content must be an iterable of items: {error}") from error


class Reader:
    """A thread that runs a user's iterator for ``reader="thread"``, in a copy of the context in which this is made.

    It is a daemon, since an iterator that blocks in it cannot be stopped.
    """

    def __init__(self) -> None:
        self._context = contextvars.copy_context()
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._started = False

    async def call(self, function: Callable[[], T]) -> tuple[T | None, BaseException | None]:
        """Run a function in the thread and wait for it; return what it returned, and what it raised."""
        loop, process = asyncio.get_running_loop(), os.getpid()
        answer: asyncio.Future[list[Any]] = loop.create_future()

        def set_answer(result: T | None, error: BaseException | None) -> None:
            if not answer.done():
                answer.set_result([result, error])

        def work() -> None:
            try:
                result = function()
            except BaseException as error:
                if os.getpid() != process:
                    raise
                loop.call_soon_threadsafe(set_answer, None, error)
            else:
                check_process(process)
                loop.call_soon_threadsafe(set_answer, result, None)

        if not self._started:
            start(self._run, "casdk-reader")
            self._started = True
        self._inbox.put(work)
        outcome = await answer
        # Popped, as in `Caller.call`, so that the list does not hold the error.
        error, result = outcome.pop(), outcome.pop()
        return result, error

    def _run(self) -> None:
        while (work := self._inbox.get()) is not None:
            self._context.run(work)

    def close(self) -> None:
        """End the thread as soon as the iterator returns."""
        self._inbox.put(None)
