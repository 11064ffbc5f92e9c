"""Content -> chunks: reads the caller's iterable, on the engine if that runs none of the caller's code.

Any other iterable is read where the caller is, or in a thread of its own. `casdk._calls.reading` has a `Feed` for each
call.
"""

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
"""How long a caller's iterator may fill further chunks before the first one is sent."""
CONTAINERS: Final[tuple[type[Iterable[Any]], ...]] = (list, tuple, set, frozenset, type({}.keys()), type({}.values()))
"""Containers whose iteration runs none of the caller's code, so that the engine reads them itself."""
MOST_AT_ONCE_ITEMS: Final = 1024
"""The most items that are read in one go from an iterable whose reading may have to stop in the middle of a chunk."""


def is_held(content: object) -> bool:
    """Whether iterating this runs none of the caller's code; a subclass of list may have an iterator of its own."""
    kind = type(content)
    if kind in CONTAINERS:
        return True
    iterate = getattr(kind, "__iter__", None)
    return any(iterate is container.__iter__ for container in CONTAINERS)


def length_of(content: Any) -> int | None:
    """Return how many items there are, if the content knows; its ``__len__`` may fail, which `list` allows, too."""
    if not hasattr(type(content), "__len__"):
        return None
    try:
        return len(content)
    except (TypeError, ValueError, OverflowError):
        return None


class Feed:
    """Reads one call's content, chunk by chunk.

    An iterable that may run the caller's code is read where the caller is: in the thread of a sync call, on the loop of
    an async one.

    Args:
        content: The caller's iterable, which has passed ``check_content``.
        size: Items per chunk.
        reader: ``"thread"`` reads it in a thread of its own instead, in a copy of the caller's context, so that the
            call ends at its deadline even if the iterable blocks.
        timeout: Seconds of the call, if they are limited: then the caller can stop after the item that it is reading.

    Attributes:
        total: Items in all, if known.
        size: Items per chunk, from the next one on; the engine may change it.
        direct: Whether the engine reads it itself, without asking the caller.

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
    """Chunks that were posted to the engine and that it has not taken yet; for a list there never are any."""

    def __init__(
        self, content: Any, size: int, reader: Literal["caller", "thread"] = "caller", timeout: float | None = None
    ) -> None:
        self.size = size
        if type(content) is not list and issubclass(type(content), np.ndarray) and content.dtype.kind in "UO":
            content = content.ravel().tolist()
        if type(content) is list:  # the most frequent case
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
            self._open = partial(_begin, content)  # called in that thread, since `iter` may run the caller's code
        else:
            self._iterator = _begin(content, asynchronous=self._asynchronous)
        # The caller reads as many items at a time as this list has entries (`_fill`). When the call is over, the engine
        # empties the list, which ends the `zip` under way, so that no further item is taken from the iterable.
        if timeout is not None and not self.direct:
            self._gate = [None] * min(size, MOST_AT_ONCE_ITEMS)

    async def read(self, most: int, caller: Caller[Any], take: Callable[[list[Any]], None]) -> bool:
        """Read chunks where the iterable has to be read. An error of the iterable is raised here as it is.

        Args:
            most: The most chunks to read.
            caller: The thread or loop that the call came from.
            take: Gets each chunk on the engine as soon as it was read, since the next one may take long.

        Returns:
            Whether the content has ended.
        """
        if self._reader is not None:
            return bool(caller.unwrap(*await self._reader.call(caller, lambda: self._read(most, caller, take))))
        read = self._read_asynchronously if self._asynchronous else self._read
        ended: bool = await caller.call(lambda: read(most, caller, take))
        return ended

    def read_held(self, most: int) -> list[list[Any]]:
        """Return up to ``most`` chunks of a container, fewer at its end."""
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
        """Return the next chunk, which is shorter if the iterable ends or the call is over."""
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
            self._untaken.append(chunk)  # before it is full, so that its items count as read if the call ends now
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
        """Note that the engine has taken the oldest chunk that was posted."""
        self._untaken.popleft()

    def untaken(self) -> list[list[Any]]:
        """Return the chunks that were read and not taken before the call ended."""
        chunks, self._untaken = self._untaken, deque()
        return [chunk for chunk in chunks if chunk]

    def close(self) -> None:
        """Stop reading; runs on the engine, while the caller may still wait for an item."""
        self._closed = True
        if self._gate is not None:
            self._gate.clear()
        if self._reader is not None:
            self._reader.close()
        if self._task is not None and not self._task.done():
            with suppress(RuntimeError):  # its loop is closed
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)


def _begin(content: Any, *, asynchronous: bool = False) -> Any:
    """Return an iterator of the content; an error that the content's own code raises is passed on unchanged.

    `iter` is called on the content only once. Each chunk is read by a loop of its own, which calls `iter` again: an
    iterator that begins anew at each `iter` would return its first items for ever. `islice` around it prevents that.

    Raises:
        InputTypeError: The content has no iterator.
    """
    try:
        return aiter(content) if asynchronous else islice(content, None)
    except TypeError as error:
        here = error.__traceback__
        if here is not None and here.tb_next is not None:  # raised inside of the content's own code
            raise
        raise InputTypeError(f"content must be an iterable of items: {error}") from error


class Reader:
    """A thread that runs the caller's iterator for ``reader="thread"``, in a copy of the context it was made in.

    It is a daemon thread, since an iterator that blocks in it cannot be stopped.
    """

    def __init__(self) -> None:
        self._context = contextvars.copy_context()
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._started = False

    async def call(self, caller: Caller[Any], function: Callable[[], T]) -> tuple[T | None, BaseException | None]:
        """Run a function in the thread and wait for it; return its result and its error, one of them ``None``.

        The answer goes through the engine's mailbox, as the chunks do, so that they arrive in order. If the answer came
        before the last chunk, the call would end without the items of that chunk.
        """
        process = os.getpid()
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

        def set_answer(result: T | None, error: BaseException | None) -> None:
            if not answer.done():
                answer.set_result([result, error])

        def work() -> None:
            try:
                result = function()
            except BaseException as error:
                if os.getpid() != process:
                    raise
                caller.post(set_answer, None, error)
            else:
                check_process(process)
                caller.post(set_answer, result, None)

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
