"""websocket and websockets: every request of a client on one socket, replies paired by id (websockets)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from copy import copy
from typing import Any, Final, TypeVar
from weakref import WeakSet

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
)
from websockets.protocol import OPEN
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from casdk._engine.logging import logger_of
from casdk._rust import frame_message, request_id_of
from casdk._transport.channels.base import (
    LOG,
    SLICE_BYTES,
    TICK_SECONDS,
    Channel,
    Headers,
    slices,
    too_large,
)
from casdk._transport.channels.closes import SERVER_LIMIT, TOO_BIG, closed_with, handshake_refused, no_websocket
from casdk._transport.channels.frames import CLOSE_SECONDS, Connection
from casdk._transport.channels.separation import Separation
from casdk._transport.connecting import Connector
from casdk.errors import CasdkError, DeadlineError, ReplyError, TransportError

__all__ = ["CHANNEL"]

C = TypeVar("C", bound=ClientConnection)

SUBPROTOCOL: Final = Subprotocol("bytes")
"""Asked for, since the gateway speaks JSON without it; the gateway does not echo it."""
END: Final = b"\x00"
"""Jina's end of input, ``bytes(True)``: the server finishes what is in flight and closes."""
SMALL_BYTES: Final = 32 * 1024
"""Small messages are sent at once, up to so many bytes in one turn of the loop (websockets' ``write_limit``)."""


class Socket:
    """One open socket, and who waits for which reply and until when: the oldest first, as all wait equally long.

    Attributes:
        waiting: Who waits, until when, and for how large a request, by its id.
        open: Whether it can be written to.
        retired: Whether it may have gone silent: no request is begun on it any more.
    """

    def __init__(self, connection: Connection, headers: Headers, channel: WebsocketChannel) -> None:
        self.connection = connection
        self.headers = headers
        self.waiting: dict[str, tuple[asyncio.Future[bytes], float, int]] = {}
        self.open = True
        self.retired = False
        self._timer: asyncio.TimerHandle | None = None
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._pinger = self._loop.call_later(channel.ping_seconds, self._ping)
        self._broken: CasdkError | None = None
        self._unsent = 0
        self._given_up = 0
        self._reader = asyncio.ensure_future(self._read())
        connection.begin(self._deliver, self._refuse, channel.limits.max_reply_bytes)

    def _deliver(self, message: bytes) -> None:
        try:
            waiter, _, _ = self.waiting.pop(request_id_of(message), (None, 0.0, 0))
        except ReplyError as error:
            self._break(error)
        else:
            if waiter is not None and not waiter.done():
                waiter.set_result(message)

    @property
    def usable(self) -> bool:
        """Whether a request can be begun on it."""
        return self.open and self.connection.protocol.state is OPEN

    def _break(self, error: CasdkError) -> None:
        self._broken = self._broken or error
        self.connection.transport.abort()

    def _refuse(self, reason: str) -> None:
        self._break(ReplyError(f"{self._channel.endpoint}: {reason}"))

    async def _read(self) -> None:
        ended: CasdkError = self._channel.was_closed(sent=True)
        too_big = False
        try:
            async for _ in self.connection:  # ends with the connection; messages go to `_deliver` and never come here
                pass
        except ConnectionClosed as error:
            # A request that was given up counts, since the server may still work at it.
            shared = len(self.waiting) + (self._given_up > 0) > 1
            ended = _closed(error, str(self._channel.endpoint), shared)
            too_big = error.rcvd is not None and error.rcvd.code == TOO_BIG
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
            # Whichever request the server refused, the largest was too large; whether a smaller one was, nobody knows.
            largest = max([self._given_up, *(size for _, _, size in waiting.values())])
            for waiter, _, size in waiting.values():
                if not waiter.done():
                    is_largest = too_big and size == largest
                    # A copy for each call, since the call adds to it what it had finished.
                    waiter.set_exception(too_large(f"{ended}: {SERVER_LIMIT}") if is_largest else copy(ended))

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
        elif left < unsent:  # the ping waits behind a large message, which the server is still reading
            self._pinger = self._loop.call_later(self._channel.pong_seconds, self._expect_pong, asked_at, left)
        else:
            seconds = self._channel.pong_seconds
            self._break(TransportError(f"{self._channel.endpoint} did not answer a ping within {seconds:g} s"))

    async def send(self, request_id: str, message: bytes, answer_by: float | None) -> bytes:
        loop = self._loop
        waiter: asyncio.Future[bytes] = loop.create_future()
        began = loop.time()
        deadline = began + self._channel.timeouts.read
        self.waiting[request_id] = waiter, deadline, len(message)
        # One timer for all requests, since one for each would cost more than anything else here.
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
            if self.waiting.pop(request_id, None) is not None:  # the server may still read it
                self._given_up = max(self._given_up, len(message))
            if not waiter.cancel() and not waiter.cancelled():
                waiter.exception()  # retrieved, or asyncio would log that nobody has
            if not self.waiting and self is not self._channel.socket and self.open:
                if self.retired:
                    self.connection.transport.abort()  # a closing handshake would wait for an answer
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
            self._unsent + len(message) > SMALL_BYTES
            or protocol.state is not OPEN
            or protocol.expect_continuation_frame
            or transport.get_write_buffer_size()
        ):
            return False
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent += len(message)
        # As `send_binary` does in six times the time. The frame goes into the library's list, which keeps the order.
        protocol.writes.append(frame_message(message))
        return True

    def _flush(self) -> None:
        self._unsent = 0
        # If it is not open any more, the library has sent what there was when it closed it.
        if (protocol := self.connection.protocol).state is OPEN:
            self.connection.transport.writelines(protocol.data_to_send())

    async def _write(self, message: bytes, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self.connection.send(message if len(message) <= SLICE_BYTES else slices(message))
        except TimeoutError:
            raise self._late() from None

    def _expire(self) -> None:
        self._timer = None
        loop = self._loop
        for waiter, deadline, _ in self.waiting.values():
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
        self._closed = False
        self._connector = Connector(self.endpoint, self.tls, self.proxy, self.timeouts.connect)
        self._retired: WeakSet[Socket] = WeakSet()
        self._separation = Separation()

    async def exchange(
        self,
        request_id: str,
        message: bytes,
        headers: Headers,
        context: Headers = (),
        answer_by: float | None = None,
        repeatable: bool = True,
    ) -> bytes:
        separation = self._separation
        untried, once = len(message) > separation.accepted_bytes, not repeatable
        if untried or once:
            await separation.enter(untried, once)
        try:
            socket = self.socket
            if socket is None or not socket.usable or socket.headers != headers:
                socket = await self._connected(headers, context)
            reply = await socket.send(request_id, message, answer_by)
            separation.accepted_bytes = max(separation.accepted_bytes, len(message))
            return reply
        finally:
            if untried or once:
                separation.leave(untried, once)

    def retire(self, socket: Socket) -> None:
        """Send no more requests on a socket; it is closed when those in flight there have ended."""
        if self.socket is socket:
            self.socket = None
        if socket.waiting:
            self._retired.add(socket)

    async def _connected(self, headers: Headers, context: Headers) -> Socket:
        async with self._opening:
            socket = self.socket
            if socket is not None and socket.usable and socket.headers == headers:
                return socket
            connection = await self._connect((*headers, *context), "/", Connection)
            if self._closed:  # in the same turn of the loop as the connection was opened
                connection.transport.abort()  # not `close`: the call is being cancelled, and the next await ends it
                raise self.was_closed(sent=False)
            self.socket = Socket(connection, headers, self)
            self.connected()
            if socket is not None and socket.open and not socket.waiting:
                await socket.aclose()
            return self.socket

    async def dry_run(self, headers: Headers) -> bytes | None:
        connection = await self._connect(headers, "/dry_run", ClientConnection)
        try:
            async with asyncio.timeout(self.timeouts.read):
                with contextlib.suppress(ConnectionClosed):  # some servers answer and close before they have read
                    await connection.send(b"")
                status = await connection.recv(decode=False)
        except TimeoutError:
            raise DeadlineError(f"{self.endpoint} sent no reply within {self.timeouts.read:g} s") from None
        except ConnectionClosed as error:
            raise _closed(error, str(self.endpoint)) from error
        finally:
            await connection.close()
        return status

    async def _connect(self, headers: Headers, path: str, kind: type[C]) -> C:
        uri = parse_uri(f"{'wss' if self.endpoint.tls else 'ws'}://{self.endpoint.authority}{path}")

        def connection() -> C:
            protocol = ClientProtocol(
                uri, subprotocols=[SUBPROTOCOL], max_size=self.limits.max_reply_bytes, logger=WIRE_LOG
            )
            # It sends no pings, since `Socket` does.
            return kind(protocol, ping_interval=None, close_timeout=CLOSE_SECONDS)

        async def shake_hands(connection: C) -> None:
            await connection.handshake(headers, "casdk")

        try:
            return await self._connector.connect(connection, shake_hands)
        except (InvalidHandshake, ConnectionClosed, EOFError) as error:
            raise _refused(error, str(self.endpoint)) from error

    async def aclose(self) -> None:
        self._closed = True
        # First what is still being opened, which would stay open otherwise.
        self._connector.close()
        async with self._opening:
            socket, self.socket = self.socket, None
        for retired in tuple(self._retired):
            retired.connection.transport.abort()
        if socket is not None:
            await socket.aclose()


CHANNEL = WebsocketChannel


def _refused(error: Exception, where: str) -> CasdkError:
    if isinstance(error, InvalidStatus):
        retry_after = next(iter(error.response.headers.get_all("Retry-After")), None)
        return handshake_refused(error.response.status_code, retry_after, where)
    if not isinstance(error, InvalidMessage):
        return no_websocket(str(error), where)
    if isinstance(error.__cause__, EOFError | ConnectionError):
        return TransportError(f"{where}: the connection was closed during the handshake", sent=False)
    return no_websocket(str(error.__cause__), where)


CREDENTIAL: Final = re.compile("(authorization: ).*", re.IGNORECASE)


def _redact(record: logging.LogRecord) -> bool:
    """Hide the credentials that websockets logs among the headers, at DEBUG."""
    record.msg, record.args = CREDENTIAL.sub(r"\1***", record.getMessage()), ()
    return True


WIRE_LOG: Final = logger_of("casdk.connections.websocket")
"""Used in place of the library's logger, which would show the credential."""
WIRE_LOG.addFilter(_redact)


def _closed(error: ConnectionClosed, where: str, shared: bool = False) -> CasdkError:
    """Return the error of a socket's end.

    Args:
        error: How it ended.
        where: The server.
        shared: Whether more than one request was in flight on it.
    """
    frame = error.rcvd
    if frame is None:
        if error.sent is not None and error.sent.code == 1009:
            return ReplyError(f"{where}: the reply is larger than Limits.max_reply_bytes")
        if error.sent is not None and error.sent.code in (1002, 1007):
            return ReplyError(f"{where}: {error.sent.reason or 'the server broke the websocket protocol'}")
        return TransportError(f"{where}: the connection was closed without a word")
    return closed_with(frame.code, frame.reason, where, shared=shared)
