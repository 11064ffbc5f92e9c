"""websocket and websockets: every request of a client on one socket, replies paired by id (websockets)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
from collections.abc import AsyncIterator, Callable
from socket import gaierror
from typing import Any, Final, cast
from weakref import WeakSet

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
)
from websockets.protocol import OPEN
from websockets.typing import Subprotocol

from casdk._channels.addresses import Address, Addresses
from casdk._channels.base import (
    LOG,
    SLICE,
    TICK_SECONDS,
    Channel,
    Headers,
    is_plain,
    no_tls,
    refused_for_now,
    run_out,
    slices,
    ssl_context,
)
from casdk._channels.causes import cause_of, without_grpc
from casdk._logging import logger_of
from casdk._rust import frame_message, request_id_of
from casdk._uri import counterpart
from casdk.errors import (
    AuthError,
    CasdkError,
    DeadlineError,
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
AWAY_CLOSES: Final = frozenset({1000, 1001, 1005, 1011, 1012, 1014})
"""Codes under a request of a server that goes, or has lost what is behind it: 1011 is what jina's gateway closes with
where it answers 503 over http. 1013, "try again later", is another one's 429."""


SMALL: Final = 32 * 1024
"""Bytes that an empty buffer takes without waiting for the server to read (websockets' ``write_limit``)."""


WHOLE: Final = 0x82
"""First byte of a binary message in one frame: what every reply is."""
LAST: Final = 0x80
"""Bit of a frame that begins no fragments."""
SHORT: Final = 125
"""Bytes of the longest frame whose length stands in its second byte, and of the longest one that carries no data."""


class Connection(ClientConnection):
    """The library's, but that a reply is handed over where it arrives, in as few copies as that takes.

    On its way through the library a reply is copied five times, queued, and its reader woken: half of what it costs to
    receive it. Here frames are told apart, and all of them but whole binary messages go to the library.

    Attributes:
        deliver: Takes such a message; without it, all go to the library.
        largest: Bytes of the largest one; the library refuses what is larger.
        received_at: When the last bytes came, in the engine's time.
    """

    def __init__(self, *settings: Any, **options: Any) -> None:
        super().__init__(*settings, **options)
        self.deliver: Callable[[bytes], None] | None = None
        self.largest = 0
        self.received_at = self.loop.time()
        # Whether what comes next begins a frame: nobody knows if the library has begun one that is not all there.
        self._apart = False
        self._head = b""
        self._pieces: list[memoryview] = []
        self._missing = 0

    def data_received(self, data: bytes) -> None:
        """Take bytes of the network."""
        self.received_at = self.loop.time()
        deliver = self.deliver
        if deliver is None or not self._apart:
            opening = self.response is None
            super().data_received(data)
            self._apart = opening and self.response is not None and data.endswith(b"\r\n\r\n")
            return
        if self._missing:
            taken = min(self._missing, len(data))
            self._pieces.append(memoryview(data)[:taken])
            self._missing -= taken
            if self._missing:
                return
            pieces, self._pieces = self._pieces, []
            deliver(b"".join(pieces))
            data = data[taken:]
        elif self._head:
            data, self._head = self._head + data, b""
        self._take_apart(data, deliver)

    def _take_apart(self, data: bytes, deliver: Callable[[bytes], None]) -> None:
        at = 0
        while at < len(data):
            kind, start, size = _frame(data, at)
            end = start + size
            if kind == WHOLE and size <= self.largest:
                if end > len(data):
                    self._pieces, self._missing = [memoryview(data)[start:]], end - len(data)
                    return
                deliver(data[start:end])
            elif kind & LAST and size <= SHORT:
                if end > len(data):
                    self._head = data[at:]
                    return
                super().data_received(data[at:end])
            else:  # fragments, or what the library has to refuse
                self._apart = False
                super().data_received(data[at:])
                return
            at = end


def _frame(data: bytes, at: int) -> tuple[int, int, int]:
    """Return a frame's first byte, where its payload begins and its size.

    A head that is cut off reads as a short frame that ends beyond the data, a masked frame as one of fragments.
    """
    if at + 1 == len(data):
        return LAST, at + 2, 0
    size = data[at + 1]
    if size <= SHORT:
        return data[at], at + 2, size
    if size > SHORT + 2:
        return 0, at, size
    start = at + (4 if size == SHORT + 1 else 10)
    if start > len(data):
        return LAST, start, 0
    return data[at], start, int.from_bytes(data[at + 2 : start])


class Opening(connect):
    """The library's, but that it follows no redirect: that is an answer of a server that speaks no websocket."""

    def process_redirect(self, exc: Exception) -> Exception:
        """Return what ends it."""
        return exc


class Socket:
    """One open socket: who waits for which reply, and until when; the oldest first, as all wait equally long.

    Attributes:
        waiting: Who waits, by the request's id.
        open: Whether it can be written to.
        retired: Whether it may have gone silent: no request is begun on it any more.
    """

    def __init__(self, connection: Connection, headers: Headers, channel: WebsocketChannel) -> None:
        self.connection = connection
        connection.deliver, connection.largest = self._deliver, channel.limits.max_reply_bytes
        self.headers = headers
        self.waiting: dict[str, tuple[asyncio.Future[bytes], float]] = {}
        self.open = True
        self.retired = False
        self._timer: asyncio.TimerHandle | None = None
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._pinger = self._loop.call_later(channel.ping_seconds, self._ping)
        self._broken: CasdkError | None = None
        self._unsent = 0
        self._reader = asyncio.ensure_future(self._read())

    def _deliver(self, message: bytes) -> None:
        try:
            waiter, _ = self.waiting.pop(request_id_of(message), (None, 0.0))
        except ReplyError as error:
            self._break(error)
        else:
            if waiter is not None and not waiter.done():
                waiter.set_result(message)

    def _break(self, error: CasdkError) -> None:
        self._broken = error
        self.connection.transport.abort()

    async def _read(self) -> None:
        ended: CasdkError = self._channel.was_closed(sent=True)
        try:
            async for message in self.connection:  # what came in fragments
                if isinstance(message, str):
                    self._break(ReplyError("the server sent text where a binary message belongs"))
                else:
                    self._deliver(message)
        except ConnectionClosed as error:
            ended = _closed(error, str(self._channel.endpoint))
        except OSError as error:
            ended = TransportError(str(error))
        finally:
            self.open = False
            ended = self._broken or ended
            waiting, self.waiting = self.waiting, {}
            LOG.info("%s (%d requests were under way)", ended, len(waiting))
            self._pinger.cancel()
            if self._timer is not None:
                self._timer.cancel()
            for waiter, _ in waiting.values():
                if not waiter.done():
                    waiter.set_exception(ended)

    def _ping(self) -> None:
        """Ask whether the connection still is one, if nothing was received of late; ask again later."""
        now, due = self._loop.time(), self.connection.received_at + self._channel.ping_seconds
        if now < due - TICK_SECONDS:
            self._pinger = self._loop.call_at(due, self._ping)
            return
        protocol, transport = self.connection.protocol, self.connection.transport
        if protocol.state is OPEN:
            protocol.send_ping(b"")
            self._flush()
        unsent = transport.get_write_buffer_size()
        self._pinger = self._loop.call_later(self._channel.pong_seconds, self._expect_pong, now, unsent)

    def _expect_pong(self, asked_at: float, unsent: int) -> None:
        left = self.connection.transport.get_write_buffer_size()
        if self.connection.received_at >= asked_at:
            self._ping()
        elif left < unsent:  # the ping is behind a large message, whose bytes are still taken
            self._pinger = self._loop.call_later(self._channel.pong_seconds, self._expect_pong, asked_at, left)
        else:
            seconds = self._channel.pong_seconds
            self._break(TransportError(f"{self._channel.endpoint} did not answer a ping within {seconds:g} s"))

    async def send(self, request_id: str, message: bytes, answer_by: float | None) -> bytes:
        loop = self._loop
        waiter: asyncio.Future[bytes] = loop.create_future()
        began = loop.time()
        deadline = began + self._channel.timeouts.read
        self.waiting[request_id] = waiter, deadline
        # One timer for all: one for each request costs more than anything else here does.
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._expire)
        try:
            if not self._post(message):
                await self._write(message, deadline)
            return await waiter
        except ConnectionClosed:
            if not waiter.done():
                await asyncio.wait([self._reader])
            if not waiter.done():
                raise self._channel.was_closed(sent=True) from None
            return await waiter
        except DeadlineError:
            self._retire_if_silent(began)
            raise
        except asyncio.CancelledError:
            if self._channel.had_time(began, answer_by):
                self._retire_if_silent(began)
            raise
        finally:
            self.waiting.pop(request_id, None)
            if not waiter.cancel() and not waiter.cancelled():
                waiter.exception()  # retrieved, whoever was not there to await it
            if not self.waiting and self is not self._channel.socket and self.open:
                if self.retired:
                    self.connection.transport.abort()  # a good-bye would wait for an answer
                else:
                    await self.aclose()

    def _retire_if_silent(self, began: float) -> None:
        if self.connection.received_at < began and self.open and not self.retired:
            self.retired = True
            LOG.info("%s answered nothing: its connection is not used again", self._channel.endpoint)
            self._channel.retire(self)

    def _post(self, message: bytes) -> bool:
        """Send a message that need not wait, in one system call with others of the same turn of the loop."""
        protocol, transport = self.connection.protocol, self.connection.transport
        if (
            self._unsent + len(message) > SMALL
            or protocol.state is not OPEN
            or protocol.expect_continuation_frame
            or transport.get_write_buffer_size()
        ):
            return False
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent += len(message)
        # As `send_binary` would, with a Frame and in six times the time; among the library's own, which keeps order.
        protocol.writes.append(frame_message(message))
        return True

    def _flush(self) -> None:
        self._unsent = 0
        # Otherwise the library, which closed it, has sent what there was.
        if (protocol := self.connection.protocol).state is OPEN:
            self.connection.transport.writelines(protocol.data_to_send())

    async def _write(self, message: bytes, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self.connection.send(message if len(message) <= SLICE else slices(message))
        except TimeoutError:
            raise self._late() from None

    def _expire(self) -> None:
        self._timer = None
        loop = self._loop
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
        self._closed = False
        self._connecting: set[asyncio.Timeout] = set()
        self._addresses = Addresses()
        self._retired: WeakSet[Socket] = WeakSet()

    async def exchange(
        self,
        request_id: str,
        message: bytes,
        headers: Headers,
        context: Headers = (),
        answer_by: float | None = None,
    ) -> bytes:
        socket = self.socket
        if socket is None or not socket.open or socket.headers != headers:
            socket = await self._connected(headers, context)
        return await socket.send(request_id, message, answer_by)

    def retire(self, socket: Socket) -> None:
        """Begin no request any more on a socket, which ends with those that are in flight there."""
        if self.socket is socket:
            self.socket = None
        if socket.waiting:
            self._retired.add(socket)

    async def _connected(self, headers: Headers, context: Headers) -> Socket:
        async with self._opening:
            socket = self.socket
            if socket is not None and socket.open and socket.headers == headers:
                return socket
            connection = await self._connect((*headers, *context))
            if self._closed:  # in the turn in which it was there
                await connection.close()
                raise self.was_closed(sent=False)
            self.socket = Socket(connection, headers, self)
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

    async def _connect(self, headers: Headers, path: str = "/") -> Connection:
        if self._closed:
            raise self.was_closed(sent=False)
        uri = f"{'wss' if self.endpoint.tls else 'ws'}://{self.endpoint.authority}{path}"
        options: dict[str, Any] = {}
        if self.endpoint.tls:
            if self._context is None:
                self._context = ssl_context(self.tls, ["http/1.1"])
            options["ssl"] = self._context
            if self.tls.server_name is not None:
                options["server_hostname"] = self.tls.server_name
        address: Address | None = None
        try:
            async with self._until_closed(self.timeouts.connect):
                sock, address = await self._addresses.reach(self.endpoint, self.proxy, self.timeouts.connect)
                connection = await Opening(
                    uri,
                    sock=sock,
                    create_connection=Connection,
                    subprotocols=[SUBPROTOCOL],
                    additional_headers=headers,
                    user_agent_header="casdk",
                    compression=None,
                    max_size=self.limits.max_reply_bytes,
                    open_timeout=None,
                    close_timeout=1,
                    logger=WIRE_LOG,
                    ping_interval=None,  # see `Socket`
                    proxy=None,  # the socket's other end is the server already
                    **options,
                )
                return cast(Connection, connection)
        except ProxyError:
            raise
        except TimeoutError:
            if self._closed:
                raise self.was_closed(sent=False) from None
            if address is not None:
                self._addresses.avoid(address)
            seconds = self.timeouts.connect
            raise TransportError(f"no connection to {self.endpoint} within {seconds:g} s", sent=False) from None
        except (OSError, InvalidHandshake, ConnectionClosed, EOFError) as error:
            if address is not None and isinstance(error, OSError):
                self._addresses.avoid(address)
            if is_plain(str(error)):
                raise no_tls(self.endpoint) from error
            raise _refused(error, str(self.endpoint)) from error

    @contextlib.asynccontextmanager
    async def _until_closed(self, seconds: float) -> AsyncIterator[None]:
        async with asyncio.timeout(seconds) as limit:
            self._connecting.add(limit)
            try:
                yield
            finally:
                self._connecting.discard(limit)

    async def aclose(self) -> None:
        self._closed = True
        # What is still being opened is nobody's yet, and would stay open.
        run_out(self._connecting)
        async with self._opening:
            socket, self.socket = self.socket, None
        for retired in tuple(self._retired):
            retired.connection.transport.abort()
        if socket is not None:
            await socket.aclose()


CHANNEL = WebsocketChannel


def _refused(error: Exception, where: str) -> CasdkError:
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        said = f"{where}: the server answered the handshake with HTTP {status}"
        if status in (401, 403):
            return AuthError(said)
        retry_after = next(iter(error.response.headers.get_all("Retry-After")), None)
        if (refused := refused_for_now(said, status, retry_after, sent=False)) is not None:
            return refused
        if status >= 500:
            return ServerError(said)
        other = counterpart(where.partition("://")[0], channel="http")
        return ProtocolMismatchError(f"{said}: this port speaks HTTP but no websocket; use {other}://", retryable=False)
    if isinstance(error, ssl.SSLError):
        said = f"{where}: {cause_of(str(error)) or error}"
        return TLSError(said, retryable=isinstance(error, ssl.SSLEOFError), sent=False)
    if isinstance(error, InvalidMessage):
        cause = error.__cause__
        if isinstance(cause, EOFError | ConnectionError):
            return TransportError(f"{where}: the connection was closed during the handshake", sent=False)
        return ProtocolMismatchError(f"{where}: this port does not speak websocket ({cause})", retryable=False)
    if isinstance(error, InvalidHandshake):
        return ProtocolMismatchError(f"{where}: this port does not speak websocket ({error})", retryable=False)
    away = not isinstance(error, gaierror)
    said = str(cause_of(str(error)) or error) or "the connection broke while it was made"
    return TransportError(f"{where}: {said}", sent=False, away=away)


CREDENTIAL: Final = re.compile("(authorization: ).*", re.IGNORECASE)


def _redact(record: logging.LogRecord) -> bool:
    """Hide the credentials that websockets logs among the headers, at DEBUG."""
    record.msg, record.args = CREDENTIAL.sub(r"\1***", record.getMessage()), ()
    return True


WIRE_LOG: Final = logger_of("casdk.connections.websocket")
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
    said = f"{where}: the server closed the connection with {frame.code} {without_grpc(frame.reason)}".rstrip()
    if frame.code in AUTH_CLOSES:
        return AuthError(said)
    return TransportError(said, retryable=frame.code not in FINAL_CLOSES, away=frame.code in AWAY_CLOSES)
