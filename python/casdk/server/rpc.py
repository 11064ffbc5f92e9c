"""The gRPC port: jina's gateway services on grpc.aio.

`gateway.py` makes one `RpcServer` for grpc and grpcs. It passes messages to the `Dispatcher` as bytes, and decides only
what a gRPC call may send and when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from casdk._rust import request_id_of
from casdk.errors import ReplyError
from casdk.server.access import Access
from casdk.server.answers import failure
from casdk.server.dispatch import Dispatcher
from casdk.server.forms import BINARY
from casdk.server.listeners import send_seconds
from casdk.server.memory import BusyError, Pressure, TooLargeError
from casdk.server.status import info
from casdk.wire.jina_pb2 import DataRequestProto, JinaInfoProto

__all__ = ["RpcServer"]

logger: logging.Logger = logging.getLogger(__name__)

NO_MEMORY = "the server has no memory for this now"
MOST_IN_FLIGHT = 128
"""Requests of one stream that are worked on at once, unless its ``__prefetch__`` asks for fewer."""
MOST_STREAMS = 128
"""Calls of one connection at once."""
PING_SECONDS = 10
"""Shortest time that a client may leave between two pings."""
HEALTH = "grpc.health.v1.Health"
SERVING = b"\x08\x01"
"""``grpc.health.v1.HealthCheckResponse`` with status SERVING."""

Code = grpc.StatusCode
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


class RpcServer:
    """Serves jina's gateway services; replies of a stream come as they are done.

    Args:
        dispatcher: Answers the messages.
        access: Decides who may send requests; the health check is open to all.
        max_message: Largest message taken, in bytes.
        closing: Set when the server drains: streams finish what they have read and end.
        pressure: While it is high, streams do likewise, and calls whose message has not arrived end.
    """

    def __init__(
        self, dispatcher: Dispatcher, access: Access, max_message: int, closing: asyncio.Event, pressure: Pressure
    ) -> None:
        self._dispatcher = dispatcher
        self._access = access
        self._closing = closing
        self._pressure = pressure
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_message),
                ("grpc.max_send_message_length", -1),
                # A compressed message is decompressed whole before its size is looked at.
                ("grpc.compression_enabled_algorithms_bitset", 1 << grpc.Compression.NoCompression.value),
                ("grpc.so_reuseport", 0),
                # When a thousand calls wait to be accepted, gRPC cancels calls of any client, so each gets a limit.
                ("grpc.max_concurrent_streams", MOST_STREAMS),
                # Clients ping while they wait for a reply. By default gRPC allows a ping every five minutes, and ends
                # the connection of a client that pings more often.
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
        """Refuse new calls, and cancel those that are still under way after so many seconds."""
        await self._server.stop(grace)

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        # All methods are streams here, also those with a single message. For other kinds of methods gRPC reads the
        # whole message before it calls the handler, so the handler could not check the token first.
        def method(service: str, name: str, answer: Callable[[AsyncIterator[bytes], Context], Awaitable[None]]) -> Any:
            async def admitted(messages: AsyncIterator[bytes], context: Context) -> None:
                try:
                    await self._admit(context)
                    await answer(messages, context)
                except grpc.aio.AbortError:
                    raise
                except Exception:
                    logger.exception("a call failed that should have been answered")
                    raise

            handler = grpc.stream_stream_rpc_method_handler(answer if service == HEALTH else admitted)
            return grpc.method_handlers_generic_handler(service, {name: handler})

        return (
            method("jina.JinaRPC", "Call", self._call),
            method("jina.JinaSingleDataRequestRPC", "process_single_data", self._single),
            method("jina.JinaGatewayDryRunRPC", "dry_run", self._dry_run),
            method("jina.JinaInfoRPC", "_status", self._status),
            method(HEALTH, "Check", self._check),
        )

    async def _single(self, messages: AsyncIterator[bytes], context: Context) -> None:
        try:
            with contextlib.closing(_Turn(self._pressure.high)) as turn:
                message = await turn.next(messages)
            async with self._dispatcher.replying(message or b"", BINARY) as reply:
                await _write(context, reply[0])
        except DecodeError as error:
            await context.abort(Code.INVALID_ARGUMENT, f"the message is no DataRequestProto: {error}")
        except TooLargeError as error:
            await context.abort(Code.RESOURCE_EXHAUSTED, f"the request is larger than max: {error}")
        except BusyError as error:
            await context.abort(Code.RESOURCE_EXHAUSTED, str(error))
        except _StoppedError:
            await context.abort(Code.RESOURCE_EXHAUSTED, NO_MEMORY)

    async def _call(self, messages: AsyncIterator[bytes], context: Context) -> None:
        stream = _Stream(context, self._dispatcher)
        try:
            with contextlib.closing(_Turn(self._pressure.high, self._closing)) as turn:
                await stream.run(messages, turn)
        except _StoppedError as stopped:
            if stopped.by is self._closing:
                await context.abort(Code.UNAVAILABLE, "the server is shutting down")
            await context.abort(Code.RESOURCE_EXHAUSTED, NO_MEMORY)

    async def _dry_run(self, messages: AsyncIterator[bytes], context: Context) -> None:
        await context.write((await self._dispatcher.dry_run()).SerializeToString())

    async def _status(self, messages: AsyncIterator[bytes], context: Context) -> None:
        await context.write(JinaInfoProto(**info()).SerializeToString())

    async def _check(self, messages: AsyncIterator[bytes], context: Context) -> None:
        await context.write(SERVING)

    async def _admit(self, context: Context) -> None:
        if not self._access.allows(_metadata(context).get("authorization")):
            await context.abort(Code.UNAUTHENTICATED, "the authorization is missing or wrong")


class _StoppedError(Exception):
    """Raised in a call whose messages the server stops reading, by one of its events."""

    def __init__(self, by: asyncio.Event) -> None:
        super().__init__()
        self.by = by


class _Turn:
    """Reads a call's messages until one of several events is set; used by `_single` and `_call`, which close it."""

    def __init__(self, *stops: asyncio.Event) -> None:
        self._stopping = {asyncio.ensure_future(stop.wait()): stop for stop in stops}

    async def next(self, messages: AsyncIterator[bytes]) -> bytes | None:
        """Return the next message, or None at their end.

        Raises:
            _StoppedError: One of the events was set before it was there.
        """
        reading = asyncio.ensure_future(anext(messages, None))
        try:
            await asyncio.wait((reading, *self._stopping), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                raise _StoppedError(next(stop for task, stop in self._stopping.items() if task.done()))
            return reading.result()
        finally:
            reading.cancel()

    def close(self) -> None:
        """Stop waiting for the events."""
        for task in self._stopping:
            task.cancel()


class _Stream:
    """One bidirectional call, whose requests are answered in parallel."""

    def __init__(self, context: Context, dispatcher: Dispatcher) -> None:
        self._context = context
        self._dispatcher = dispatcher
        metadata = _metadata(context)
        self._window = asyncio.Semaphore(_prefetch(metadata.get("__prefetch__")))
        self._in_order = str(metadata.get("__results_in_order__", "")).lower() == "true"
        self._writing = asyncio.Lock()

    async def run(self, messages: AsyncIterator[bytes], turn: _Turn) -> None:
        """Answer all requests until the client ends the stream.

        Raises:
            _StoppedError: The server stopped reading; the requests that it had read are answered.
        """
        last: asyncio.Task[None] | None = None
        stopped: _StoppedError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._window.acquire()
                    try:
                        message = await turn.next(messages)
                    except _StoppedError as error:
                        stopped = error
                        break
                    if message is None:
                        break
                    last = group.create_task(self._reply(message, last if self._in_order else None))
        except* grpc.aio.AbortError as group_error:
            raise group_error.exceptions[0] from None
        if stopped is not None:
            raise stopped

    async def _reply(self, message: bytes, before: asyncio.Task[None] | None) -> None:
        try:
            async with self._dispatcher.replying(message, BINARY) as reply:
                await self._write(reply[0], before)
        except (DecodeError, TooLargeError, BusyError) as error:
            refusal = DataRequestProto()
            refusal.header.request_id = await self._request_id(message, error)
            refusal.header.status.CopyFrom(failure(error, "gateway"))
            await self._write(refusal.SerializeToString(), before)
        finally:
            self._window.release()

    async def _write(self, reply: bytes, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await before
        async with self._writing:
            await _write(self._context, reply)

    async def _request_id(self, message: bytes, error: Exception) -> str:
        """Return the id for a refusal of a message; a message without an id ends the stream."""
        try:
            return request_id_of(message)
        except ReplyError:
            if not isinstance(error, DecodeError):
                return ""
            await self._context.abort(Code.INVALID_ARGUMENT, f"the message is no DataRequestProto: {error}")
            raise AssertionError("abort raises") from None


async def _write(context: Context, reply: bytes) -> None:
    """Send a reply, or end the call of a client that does not read it, because the reply is in memory until then."""
    try:
        async with asyncio.timeout(send_seconds(len(reply))):
            await context.write(reply)
    except grpc.aio.InternalError:
        logger.info("a client left before it was answered")
    except TimeoutError:
        await context.abort(Code.DEADLINE_EXCEEDED, "the client does not take the reply")


def _metadata(context: Context) -> dict[str, str | bytes]:
    return dict(context.invocation_metadata() or ())


def _prefetch(asked: str | bytes | None) -> int:
    try:
        return max(1, min(int(asked or MOST_IN_FLIGHT), MOST_IN_FLIGHT))
    except ValueError:
        return MOST_IN_FLIGHT
