"""The grpc door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from casdk.server.access import Access
from casdk.server.dispatch import Dispatcher
from casdk.server.status import info
from casdk.server.wire.jina_pb2 import JinaInfoProto

__all__ = ["RpcServer"]

IN_FLIGHT = 128
"""Requests of one stream worked on at once, unless its ``__prefetch__`` asks for fewer."""
PING_SECONDS = 10
"""Seconds from one ping of a client to the next."""
SERVING = b"\x08\x01"
"""``grpc.health.v1.HealthCheckResponse`` with status SERVING."""

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


class RpcServer:
    """Serves jina's gateway services; replies of a stream come as they are done.

    Args:
        dispatcher: What answers.
        access: Who may ask; the health check is open.
        max_message: Largest message taken, in bytes.
        closing: Set when the server drains: streams finish what they have read and end.
    """

    def __init__(self, dispatcher: Dispatcher, access: Access, max_message: int, closing: asyncio.Event) -> None:
        self._dispatcher = dispatcher
        self._access = access
        self._closing = closing
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_message),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                # Clients may ask whether a connection still is one while they wait for a reply; gRPC would allow it
                # every five minutes, and end the connection of one that asks more often.
                ("grpc.http2.min_ping_interval_without_data_ms", PING_SECONDS * 1000),
            ]
        )
        self._server.add_generic_rpc_handlers(self._handlers())

    def bind(self, authority: str, tls: tuple[Path, Path] | None = None) -> int:
        """Listen on ``host:port``, with certificate and key if it is to be secure, and return the port.

        Raises:
            RuntimeError: The port is taken.
        """
        if tls is None:
            return int(self._server.add_insecure_port(authority))
        certificate, key = (path.read_bytes() for path in tls)
        return int(self._server.add_secure_port(authority, grpc.ssl_server_credentials([(key, certificate)])))

    async def start(self) -> None:
        """Begin to answer."""
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Take no new calls, and give those under way so many seconds."""
        await self._server.stop(grace)

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        def unary(service: str, method: str, answer: Callable[[bytes, Context], Awaitable[bytes]]) -> Any:
            handler = grpc.unary_unary_rpc_method_handler(answer)
            return grpc.method_handlers_generic_handler(service, {method: handler})

        call = grpc.stream_stream_rpc_method_handler(self._call)
        return (
            grpc.method_handlers_generic_handler("jina.JinaRPC", {"Call": call}),
            unary("jina.JinaSingleDataRequestRPC", "process_single_data", self._single),
            unary("jina.JinaGatewayDryRunRPC", "dry_run", self._dry_run),
            unary("jina.JinaInfoRPC", "_status", self._status),
            unary("grpc.health.v1.Health", "Check", self._check),
        )

    async def _single(self, message: bytes, context: Context) -> bytes:
        await self._admit(context)
        return await self._answer(message, context)

    async def _call(self, messages: AsyncIterator[bytes], context: Context) -> None:
        await self._admit(context)
        stream = _Stream(context, lambda message: self._answer(message, context))
        if not await stream.run(messages, self._closing):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")

    async def _dry_run(self, message: bytes, context: Context) -> bytes:
        await self._admit(context)
        return (await self._dispatcher.dry_run()).SerializeToString()

    async def _status(self, message: bytes, context: Context) -> bytes:
        await self._admit(context)
        return JinaInfoProto(**info()).SerializeToString()

    async def _check(self, message: bytes, context: Context) -> bytes:
        return SERVING

    async def _answer(self, message: bytes, context: Context) -> bytes:
        try:
            return await self._dispatcher.answer_bytes(message)
        except DecodeError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the message is no DataRequestProto: {error}")
            raise AssertionError("abort raises") from error

    async def _admit(self, context: Context) -> None:
        if not self._access.allows(_metadata(context).get("authorization")):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the authorization is missing or wrong")


class _Stream:
    """One bidirectional call: answers its requests side by side."""

    def __init__(self, context: Context, answer: Callable[[bytes], Coroutine[None, None, bytes]]) -> None:
        self._context = context
        self._answer = answer
        metadata = _metadata(context)
        self._window = asyncio.Semaphore(_prefetch(metadata.get("__prefetch__")))
        self._in_order = str(metadata.get("__results_in_order__", "")).lower() == "true"
        self._writing = asyncio.Lock()

    async def run(self, messages: AsyncIterator[bytes], closing: asyncio.Event) -> bool:
        """Answer until the client has sent all, or the server closes; return whether it was the former."""
        last: asyncio.Task[None] | None = None
        stop = asyncio.ensure_future(closing.wait())
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._window.acquire()
                    reading = asyncio.ensure_future(anext(messages, None))
                    await asyncio.wait((reading, stop), return_when=asyncio.FIRST_COMPLETED)
                    if not reading.done():
                        reading.cancel()
                        return False
                    if (message := reading.result()) is None:
                        return True
                    last = group.create_task(self._reply(message, last if self._in_order else None))
        except* grpc.aio.AbortError as group_error:
            raise group_error.exceptions[0] from None
        finally:
            stop.cancel()

    async def _reply(self, message: bytes, before: asyncio.Task[None] | None) -> None:
        try:
            reply = await self._answer(message)
            if before is not None:
                await before
            async with self._writing:
                await self._context.write(reply)
        finally:
            self._window.release()


def _metadata(context: Context) -> dict[str, str | bytes]:
    return dict(context.invocation_metadata() or ())


def _prefetch(given: str | bytes | None) -> int:
    try:
        return max(1, min(int(given or IN_FLIGHT), IN_FLIGHT))
    except ValueError:
        return IN_FLIGHT
