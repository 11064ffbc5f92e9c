"""websocket and websockets: every request of a client on one socket, replies paired by id (websockets)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidStatus,
)
from websockets.exceptions import (
    ProxyError as ForeignProxyError,
)
from websockets.typing import Subprotocol

from casdk._channels.base import LOG, SLICE, Channel, Headers, is_plain, no_tls, slices, ssl_context
from casdk._rust import request_id_of
from casdk.errors import (
    AuthError,
    CasdkError,
    DeadlineError,
    OverloadedError,
    ProtocolMismatchError,
    ProxyError,
    ReplyError,
    ServerError,
    TLSError,
    TransportError,
)

__all__ = ["CHANNEL"]

SUBPROTOCOL: Final = Subprotocol("bytes")
"""Asked for, since the gateway speaks JSON without it; the gateway does not echo it."""
END: Final = b"\x00"
"""Jina's end of input, ``bytes(True)``: the server finishes what is in flight and closes."""
AUTH_CLOSES: Final = frozenset({1008, 4401, 4403})
FINAL_CLOSES: Final = frozenset({1002, 1003, 1007, 1009, 1010})


SMALL: Final = 32 * 1024
"""Bytes that an empty buffer takes without waiting for the server to read (websockets' ``write_limit``)."""


class Socket:
    """One open socket: who waits for which reply, and until when; the oldest first, as all wait equally long."""

    def __init__(self, connection: ClientConnection, headers: Headers, channel: WebsocketChannel) -> None:
        self.connection = connection
        self.headers = headers
        self.waiting: dict[str, tuple[asyncio.Future[bytes], float]] = {}
        self.open = True
        self._timer: asyncio.TimerHandle | None = None
        self._channel = channel
        self._reader = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        ended: CasdkError = TransportError(f"the connection to {self._channel.endpoint} was closed")
        try:
            async for message in self.connection:
                if isinstance(message, str):
                    raise ReplyError("the server sent text where a binary message belongs")
                waiter, _ = self.waiting.pop(request_id_of(message), (None, 0.0))
                if waiter is not None and not waiter.done():
                    waiter.set_result(message)
        except ConnectionClosed as error:
            ended = _closed(error, str(self._channel.endpoint))
        except (CasdkError, OSError) as error:
            ended = error if isinstance(error, CasdkError) else TransportError(str(error))
        finally:
            self.open = False
            waiting, self.waiting = self.waiting, {}
            LOG.info("%s (%d requests were under way)", ended, len(waiting))
            if self._timer is not None:
                self._timer.cancel()
            for waiter, _ in waiting.values():
                if not waiter.done():
                    waiter.set_exception(ended)
            if isinstance(ended, ReplyError):
                self.connection.transport.abort()

    async def send(self, request_id: str, message: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bytes] = loop.create_future()
        deadline = loop.time() + self._channel.timeouts.read
        self.waiting[request_id] = waiter, deadline
        # One timer for all: one for each request costs more than anything else here does.
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._expire)
        try:
            await self._write(message, deadline)
            return await waiter
        except ConnectionClosed:
            if not waiter.done():
                await asyncio.wait([self._reader])
            if not waiter.done():
                raise TransportError(f"the connection to {self._channel.endpoint} was closed") from None
            return await waiter
        finally:
            self.waiting.pop(request_id, None)
            if not waiter.cancel() and not waiter.cancelled():
                waiter.exception()  # retrieved, whoever was not there to await it
            if not self.waiting and self is not self._channel.socket and self.open:
                await self.aclose()

    async def _write(self, message: bytes, deadline: float) -> None:
        if len(message) <= SMALL and not self.connection.transport.get_write_buffer_size():
            await self.connection.send(message)
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self.connection.send(message if len(message) <= SLICE else slices(message))
        except TimeoutError:
            raise self._late() from None

    def _expire(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        for waiter, deadline in self.waiting.values():
            if waiter.done():
                continue
            if deadline > loop.time():
                self._timer = loop.call_at(deadline, self._expire)
                return
            waiter.set_exception(self._late())

    def _late(self) -> DeadlineError:
        channel = self._channel
        return DeadlineError(f"{channel.endpoint} sent no reply within {channel.timeouts.read:g} s")

    async def aclose(self) -> None:
        self.open = False
        with contextlib.suppress(ConnectionClosed):
            if not self.waiting:
                await self.connection.send(END)
        await self.connection.close()
        await asyncio.wait([self._reader])


class WebsocketChannel(Channel):
    """One socket for all calls; a new one when it broke or when the credential changed."""

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.socket: Socket | None = None
        self._opening = asyncio.Lock()
        self._context: ssl.SSLContext | None = None

    async def exchange(self, request_id: str, message: bytes, headers: Headers, context: Headers = ()) -> bytes:
        socket = self.socket
        if socket is None or not socket.open or socket.headers != headers:
            socket = await self._connected(headers, context)
        return await socket.send(request_id, message)

    async def _connected(self, headers: Headers, context: Headers) -> Socket:
        async with self._opening:
            socket = self.socket
            if socket is not None and socket.open and socket.headers == headers:
                return socket
            self.socket = Socket(await self._connect((*headers, *context)), headers, self)
            self.connected()
            if socket is not None and socket.open and not socket.waiting:
                await socket.aclose()
            return self.socket

    async def dry_run(self, headers: Headers) -> bytes | None:
        connection = await self._connect(headers, "/dry_run")
        try:
            async with asyncio.timeout(self.timeouts.read):
                with contextlib.suppress(ConnectionClosed):  # some answer before they are asked, and close
                    await connection.send(b"")
                status = await connection.recv(decode=False)
        except TimeoutError:
            raise DeadlineError(f"{self.endpoint} sent no reply within {self.timeouts.read:g} s") from None
        except ConnectionClosed as error:
            raise _closed(error, str(self.endpoint)) from error
        finally:
            await connection.close()
        return status

    async def _connect(self, headers: Headers, path: str = "/") -> ClientConnection:
        uri = f"{'wss' if self.endpoint.tls else 'ws'}://{self.endpoint.authority}{path}"
        options: dict[str, Any] = {}
        if self.endpoint.tls:
            if self._context is None:
                self._context = ssl_context(self.tls, ["http/1.1"])
            options["ssl"] = self._context
            if self.tls.server_name is not None:
                options["server_hostname"] = self.tls.server_name
        try:
            async with asyncio.timeout(self.timeouts.connect):
                return await connect(
                    uri,
                    subprotocols=[SUBPROTOCOL],
                    additional_headers=headers,
                    user_agent_header="casdk",
                    compression=None,
                    max_size=self.limits.max_reply_bytes,
                    open_timeout=None,
                    close_timeout=1,
                    logger=WIRE_LOG,
                    ping_timeout=self.timeouts.read,
                    proxy=self.proxy,
                    **options,
                )
        except TimeoutError:
            seconds = self.timeouts.connect
            raise TransportError(f"no connection to {self.endpoint} within {seconds:g} s", sent=False) from None
        except (OSError, InvalidHandshake, ConnectionClosed, EOFError) as error:
            if is_plain(str(error)):
                raise no_tls(self.endpoint) from error
            raise _refused(error, str(self.endpoint)) from error

    async def aclose(self) -> None:
        socket, self.socket = self.socket, None
        if socket is not None:
            await socket.aclose()

    def forget(self) -> None:
        self.socket = None
        self._opening = asyncio.Lock()


CHANNEL = WebsocketChannel


def _refused(error: Exception, where: str) -> CasdkError:
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        said = f"{where}: the server answered the handshake with HTTP {status}"
        if status in (401, 403):
            return AuthError(said)
        if status in (429, 503):
            return OverloadedError(said, retryable=True)
        if status >= 500:
            return ServerError(said, retryable=status in (502, 504))
        other = "https" if where.startswith("websockets:") else "http"
        return ProtocolMismatchError(f"{said}: this port speaks HTTP but no websocket; use {other}://", retryable=False)
    if isinstance(error, InvalidProxyStatus | InvalidProxyMessage | ForeignProxyError):
        return ProxyError(f"{where}: {error}", retryable=False, sent=False)
    if isinstance(error, ssl.SSLError):
        return TLSError(f"{where}: {error}", retryable=isinstance(error, ssl.SSLEOFError), sent=False)
    if isinstance(error, InvalidMessage):
        cause = error.__cause__
        if isinstance(cause, EOFError | ConnectionError):
            return TransportError(f"{where}: the connection was closed during the handshake", sent=False)
        return ProtocolMismatchError(f"{where}: this port does not speak websocket ({cause})", retryable=False)
    if isinstance(error, InvalidHandshake):
        return ProtocolMismatchError(f"{where}: this port does not speak websocket ({error})", retryable=False)
    return TransportError(f"{where}: {str(error) or 'the connection broke while it was made'}", sent=False)


def _redact(record: logging.LogRecord) -> bool:
    """Hide the credentials that websockets logs among the headers, at DEBUG."""
    if isinstance(record.args, tuple) and str(record.args[:1]).lower().find("authorization") >= 0:
        record.args = (record.args[0], "***", *record.args[2:])
    return True


WIRE_LOG: Final = logging.getLogger("casdk.connections.websocket")
"""The library's own would show the credential."""
WIRE_LOG.addFilter(_redact)


def _closed(error: ConnectionClosed, where: str) -> CasdkError:
    frame = error.rcvd
    if frame is None:
        if error.sent is not None and error.sent.code == 1009:
            return ReplyError(f"{where}: the reply is larger than Limits.max_reply_bytes")
        if error.sent is not None and error.sent.code == 1002:
            return ReplyError(f"{where}: {error.sent.reason or 'the server broke the websocket protocol'}")
        return TransportError(f"{where}: the connection was closed without a word")
    said = f"{where}: the server closed the connection with {frame.code} {frame.reason}".rstrip()
    if frame.code in AUTH_CLOSES:
        return AuthError(said)
    return TransportError(said, retryable=frame.code not in FINAL_CLOSES)
