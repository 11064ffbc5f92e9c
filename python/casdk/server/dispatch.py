"""Turns a request into its reply, for all ports: it reserves memory, parses, runs the executors and writes the reply.

`rpc.py`, `web.py` and `sockets.py` pass messages to the one `Dispatcher` of the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from casdk.server.answers import failure
from casdk.server.executors import Executor, on
from casdk.server.forms import Form, request_bytes
from casdk.server.memory import BusyError, Memory
from casdk.wire.jina_pb2 import DataRequestProto, RouteProto, StatusProto
from casdk.wire.values import plain, shown

__all__ = ["Dispatcher"]

logger: logging.Logger = logging.getLogger(__name__)

T = TypeVar("T")

GATEWAY = "gateway"
SMALL_BYTES = 1 << 16
"""Smaller messages are parsed and written on the loop, because a thread would cost more."""
FEW_VALUES = 1024
"""Messages of fewer values are parsed on the loop, for the same reason."""
LITTLE_BYTES = 1 << 20
"""Memory of a small request with its reply; small requests have memory of their own."""
WAIT_SECONDS = 30.0
"""Longest wait for memory that other requests hold."""
NAME_CHARACTERS = 256
"""Longest endpoint and ``target_executor`` that are read."""

_TARGET = re.compile(r"\^?([\w/-]*)(\$|\.\*\$?)?")


class Dispatcher:
    """Runs requests through the executors, and records the time of each.

    Args:
        executors: The executors, in the order in which a request passes them.
        workers: Threads that parse and write large messages.
        dim: Numbers in an embedding.
        requests: Memory for messages and what they are parsed to.
        replies: Memory for replies until they are sent. A request always reserves ``requests`` before ``replies``, so
            that requests cannot wait for each other in a circle.
        little: Memory for small requests, so that they do not wait for large ones.
    """

    def __init__(
        self,
        executors: Sequence[Executor],
        workers: ThreadPoolExecutor,
        dim: int,
        requests: Memory,
        replies: Memory,
        little: Memory,
    ) -> None:
        self._executors = executors
        self._workers = workers
        self._dim = dim
        self._requests = requests
        self._replies = replies
        self._little = little

    @contextlib.asynccontextmanager
    async def replying(self, message: bytes, form: Form) -> AsyncIterator[list[bytes]]:
        """Turn a message into its reply, in pieces; their memory is reserved until the ``async with`` ends.

        If an executor raises, the reply has the error as its status, and the documents as they came.

        Raises:
            google.protobuf.message.DecodeError: The bytes are no request in protobuf.
            casdk.wire.json_form.FormError: The bytes are no request in JSON.
            TooLargeError: The request would need more memory than the server has.
            BusyError: Other requests held the memory for too long.
        """
        large = len(message) >= SMALL_BYTES
        weight = await self._off_loop(lambda: form.weigh(message), large)
        large = large or weight[0] + weight[1] > FEW_VALUES
        async with contextlib.AsyncExitStack() as held:
            amount = request_bytes(message, weight) + form.reply_bytes(message, weight[0], self._dim)
            is_little = amount <= LITTLE_BYTES
            await _hold(
                held, *((self._little, amount) if is_little else (self._requests, request_bytes(message, weight)))
            )
            request, documents = await self._off_loop(lambda: form.read(message), large)
            parameters = await self._off_loop(lambda: plain(request.parameters), large)
            found = sum(each.reply_bytes(request, parameters) for each in self._executors)
            if not is_little or found > LITTLE_BYTES:
                await _hold(held, self._replies, form.reply_bytes(message, documents, self._dim) + found)
            reply = await self._answer(request, parameters)
            yield await self._off_loop(lambda: form.write(reply), large or reply.ByteSize() >= SMALL_BYTES)

    async def _answer(self, request: DataRequestProto, parameters: dict[str, object]) -> DataRequestProto:
        """Turn a request into its reply, in place."""
        gateway = RouteProto(executor=GATEWAY)
        gateway.start_time.FromNanoseconds(time.time_ns())
        header = request.header
        target, header.target_executor = header.target_executor, ""
        routes = await self._through(header.exec_endpoint or "/", target, request, parameters)
        gateway.end_time.FromNanoseconds(time.time_ns())
        request.routes.extend([gateway, *routes])
        return request

    async def _through(
        self, endpoint: str, target: str, request: DataRequestProto, parameters: dict[str, object]
    ) -> list[RouteProto]:
        """Run a request through the executors, up to the first that fails."""
        routes: list[RouteProto] = []
        for executor in self._executors:
            if not executor.serves(endpoint):
                continue
            route = RouteProto(executor=executor.name)
            route.start_time.FromNanoseconds(time.time_ns())
            routes.append(route)
            try:
                if len(endpoint) > NAME_CHARACTERS:
                    raise ValueError(f"no endpoint {shown(endpoint)}")
                if not _means(target, executor.name):
                    continue
                await executor(endpoint, request.data.docs.docs, parameters)
            except Exception as error:
                logger.info("%s failed on %s: %s", executor.name, shown(endpoint), shown(error))
                route.status.CopyFrom(failure(error, type(executor).__name__))
                request.header.status.CopyFrom(route.status)
            route.end_time.FromNanoseconds(time.time_ns())
            if route.HasField("status"):
                break
        return routes

    async def _off_loop(self, work: Callable[[], T], large: bool) -> T:
        """Parse or write a message, on a worker thread if it is large."""
        return await on(self._workers, work) if large else work()

    async def dry_run(self) -> StatusProto:
        """Return whether the flow is ready; this flow always is once the server runs."""
        return StatusProto()


async def _hold(held: contextlib.AsyncExitStack, memory: Memory, amount: int) -> None:
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await held.enter_async_context(memory.hold_on_loop(amount))
    except TimeoutError:
        raise BusyError(f"other requests hold the memory for {memory.name}") from None


def _means(target: str, name: str) -> bool:
    """Return whether a request's ``target_executor`` selects the executor of this name.

    jina matches it as a regular expression. This server does not run regular expressions of clients, because a short
    one can take for ever. It accepts the beginning of a name, or with ``$`` a whole name, written as ``name``,
    ``^name``, ``name$`` or ``name.*``.

    Raises:
        ValueError: It is another regular expression.
    """
    found = _TARGET.fullmatch(target) if len(target) <= NAME_CHARACTERS else None
    if found is None:
        raise ValueError(
            f"targetExecutor {shown(target)} is a pattern, and this server runs none: "
            "write an executor's name, or the beginning of one"
        )
    beginning, end = found.groups()
    return name == beginning if end == "$" else name.startswith(beginning)
