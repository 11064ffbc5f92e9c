"""The one place where a request becomes a reply, whatever it came by."""

from __future__ import annotations

import logging
import re
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from casdk.server.documents import complete, plain
from casdk.server.executors import Executor, on
from casdk.server.wire.jina_pb2 import DataRequestProto, RouteProto, StatusProto

__all__ = ["SMALL", "Dispatcher"]

logger: logging.Logger = logging.getLogger(__name__)

T = TypeVar("T")

GATEWAY = "gateway"
SMALL = 1 << 16
"""Messages below this many bytes are parsed and written on the loop: a thread would cost more."""
TARGET_CHARACTERS = 256
"""Longest ``target_executor`` that is read."""
SHOWN_CHARACTERS = 60
"""Characters of it that an error repeats."""

_TARGET = re.compile(r"\^?([\w/-]*)(\$|\.\*\$?)?")


class Dispatcher:
    """Takes requests through the executors and writes down the time of each.

    Args:
        executors: In the order a request meets them.
        workers: Threads for what is too large to parse on the loop.
    """

    def __init__(self, executors: Sequence[Executor], workers: ThreadPoolExecutor) -> None:
        self._executors = executors
        self._workers = workers

    async def answer(self, request: DataRequestProto) -> DataRequestProto:
        """Turn a request into its reply, in place.

        What an executor raises becomes the reply's status, with the documents as they came.

        Raises:
            google.protobuf.message.DecodeError: ``docs_bytes`` is no message.
        """
        gateway = RouteProto(executor=GATEWAY)
        gateway.start_time.FromNanoseconds(time.time_ns())
        header = request.header
        header.ClearField("status")
        if request.data.WhichOneof("documents") == "docs_bytes":
            request.data.docs.ParseFromString(request.data.docs_bytes)
        request.data.docs.SetInParent()
        complete(request.data.docs.docs)
        target, header.target_executor = header.target_executor, ""
        endpoint = header.exec_endpoint or "/"
        request.parameters.SetInParent()
        request.ClearField("routes")
        routes = await self._through(endpoint, target, request)
        gateway.end_time.FromNanoseconds(time.time_ns())
        request.routes.extend([gateway, *routes])
        return request

    async def _through(self, endpoint: str, target: str, request: DataRequestProto) -> list[RouteProto]:
        """Take a request through the executors; the first that fails is the last."""
        parameters = plain(request.parameters)
        routes: list[RouteProto] = []
        for executor in self._executors:
            if not executor.serves(endpoint):
                continue
            route = RouteProto(executor=executor.name)
            route.start_time.FromNanoseconds(time.time_ns())
            routes.append(route)
            try:
                if not _means(target, executor.name):
                    continue
                await executor(endpoint, request.data.docs.docs, parameters)
            except Exception as error:
                logger.info("%s failed on %s: %r", executor.name, endpoint, error)
                route.status.CopyFrom(_failure(error, executor))
                request.header.status.CopyFrom(route.status)
            route.end_time.FromNanoseconds(time.time_ns())
            if route.HasField("status"):
                break
        return routes

    async def answer_bytes(self, message: bytes) -> bytes:
        """Turn a serialized request into its serialized reply.

        Raises:
            google.protobuf.message.DecodeError: The bytes are no request.
        """
        request = await self.off_loop(lambda: DataRequestProto.FromString(message), len(message) >= SMALL)
        reply = await self.answer(request)
        return await self.off_loop(reply.SerializeToString, reply.ByteSize() >= SMALL)

    async def off_loop(self, work: Callable[[], T], large: bool) -> T:
        """Parse or write a message: on a thread if it is large, else here."""
        return await on(self._workers, work) if large else work()

    async def dry_run(self) -> StatusProto:
        """Answer whether the flow is ready; this one always is once it runs."""
        return StatusProto()


def _means(target: str, name: str) -> bool:
    """Return whether a request's ``target_executor`` means the executor of this name.

    jina runs it as a regular expression. Here nothing of a client's is run, since a short one can take for ever: it is
    read as the beginning of a name, with ``$`` as a whole name, and may be written ``^name``, ``name$`` or ``name.*``.

    Raises:
        ValueError: It would have to be run to know.
    """
    found = _TARGET.fullmatch(target) if len(target) <= TARGET_CHARACTERS else None
    if found is None:
        raise ValueError(
            f"targetExecutor {target[:SHOWN_CHARACTERS]!r} is a pattern, and this server runs none: "
            "write an executor's name, or the beginning of one"
        )
    beginning, end = found.groups()
    return name == beginning if end == "$" else name.startswith(beginning)


def _failure(error: Exception, executor: Executor) -> StatusProto:
    return StatusProto(
        code=StatusProto.ERROR,
        description=repr(error),
        exception=StatusProto.ExceptionProto(
            name=type(error).__name__,
            args=[str(argument) for argument in error.args],
            stacks=traceback.format_exception(error),
            executor=type(executor).__name__,
        ),
    )
