"""websocket and websockets on the library websockets: every request of a client on one socket, replies paired by id."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from copy import copy
from functools import partial
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
from websockets.protocol import State
from websockets.typing import Subprotocol

from casdk._engine.logging import logger_of
from casdk._rust import request_id_of
from casdk._transport.channels.base import LOG, SLICE_BYTES, Channel, Headers, no_tunnel, run_out, slices, ssl_context
from casdk._transport.channels.base import too_large as refused_for_its_size
from casdk._transport.channels.closes import SERVER_LIMIT, TOO_BIG, closed_with, handshake_refused, no_websocket
from casdk._transport.channels.inspection import ConnectionEndedError, checked
from casdk._transport.channels.options import DEFAULTS, ExchangeOptions
from casdk._transport.channels.separation import Separation
from casdk._transport.connecting import ascii_authority, not_connected
from casdk.errors import CasdkError, ProxyError, ReplyError, TransportError

__all__ = ["CHANNEL", "WebsocketChannel"]

SUBPROTOCOL: Final = Subprotocol("bytes")
"""The subprotocol that the handshake asks for: without it the gateway speaks JSON. The gateway does not confirm it."""
END: Final = b"\x00"
"""Jina's end of input, ``bytes(True)``: the server finishes what is in flight and closes."""
CLOSE_SECONDS: Final = 1.0
"""How long a connection that is closed waits until the server has closed its end."""
CLOSED_HERE: Final = 1000
"""The code of a close by the client."""
PING_UNANSWERED: Final = 1011
"""The code with which websockets closes if a ping was not answered."""
RULES_BROKEN: Final = frozenset({1002, 1007})
"""The codes with which websockets closes if the server breaks the rules of the protocol."""


class Handshake(connect):
    """The library's handshake, which follows no redirect: a request is for the server that was named, and no other."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the refusal as it is."""
        return exc


class Connection(ClientConnection):
    """The library's connection, which closes as soon as a closing handshake has begun.

    By itself it would wait until the server ends its side, or until the next ping: for up to 20 seconds the requests
    would not get the error that a reply was too large, or that the server stops.
    """

    _ending: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        """Read received bytes."""
        super().data_received(data)
        if self.state is State.CLOSING and self._ending is None:
            self._ending = asyncio.ensure_future(self.close())


class Socket:
    """One open socket, with the requests that wait for a reply on it; a `WebsocketChannel` uses one at a time.

    Attributes:
        headers: The headers of its handshake.
        waiting: The future and the size of each request in flight, by the request's id.
    """

    def __init__(self, connection: ClientConnection, headers: Headers, channel: WebsocketChannel) -> None:
        self.headers = headers
        self.waiting: dict[str, tuple[asyncio.Future[bytes], int]] = {}
        self._open = True
        self._connection = connection
        self._channel = channel
        self._received_at = 0.0
        self._given_up = 0
        self._reader = asyncio.ensure_future(self._read())

    @property
    def usable(self) -> bool:
        """Whether a request can be begun on it."""
        return self._open and self._connection.state is State.OPEN

    async def _read(self) -> None:
        """Pass replies to their requests until the connection ends; then end the requests that still wait."""
        ended: CasdkError = self._channel.was_closed(sent=True)
        too_big = False
        try:
            while True:
                message = await self._connection.recv()
                self._received_at = asyncio.get_running_loop().time()
                if isinstance(message, str):
                    raise ReplyError(f"{self._channel.endpoint}: it sent text where a binary message belongs")
                waiter, _ = self.waiting.pop(request_id_of(message), (None, 0))
                if waiter is not None and not waiter.done():
                    waiter.set_result(message)
        except ConnectionClosed as error:
            # A cancelled request counts, since the server may still work at it.
            shared = len(self.waiting) + (self._given_up > 0) > 1
            ended = self._channel.ours(error, shared)
            too_big = error.rcvd is not None and error.rcvd.code == TOO_BIG
        except ReplyError as error:
            ended = error
        finally:
            self._open = False
            waiting, self.waiting = self.waiting, {}
            LOG.info("%s (%d requests were under way)", ended, len(waiting))
            # The largest request is certainly too large, whichever one the server refused; smaller ones may not be.
            largest = max([self._given_up, *(size for _, size in waiting.values())])
            for waiter, size in waiting.values():
                if not waiter.done():
                    is_largest = too_big and size == largest
                    # A copy for each call, since each adds to its error how many items were done.
                    said = f"{ended}: {SERVER_LIMIT}"
                    waiter.set_exception(refused_for_its_size(said) if is_largest else copy(ended))
        await self._connection.close()

    async def send(self, request_id: str, message: bytes | memoryview, answer_by: float | None) -> bytes:
        """Send a request and wait for its reply."""
        loop, channel = asyncio.get_running_loop(), self._channel
        waiter: asyncio.Future[bytes] = loop.create_future()
        began = loop.time()
        self.waiting[request_id] = waiter, len(message)
        try:
            async with asyncio.timeout(channel.timeouts.read):
                with contextlib.suppress(ConnectionClosed):  # then `_read` sets the error
                    await self._connection.send(message if len(message) <= SLICE_BYTES else slices(message))
                return await waiter
        except TimeoutError:
            self._retire_if_silent(began)
            raise channel.late() from None
        except asyncio.CancelledError:
            if channel.had_time(began, answer_by):
                self._retire_if_silent(began)
            raise
        finally:
            if self.waiting.pop(request_id, None) is not None:  # the server may still read it
                self._given_up = max(self._given_up, len(message))
            if not waiter.cancel() and not waiter.cancelled():
                waiter.exception()  # retrieved, since asyncio logs an exception that was never retrieved
            channel.close_unused(self)

    def _retire_if_silent(self, began: float) -> None:
        if self._received_at < began and self._open:
            LOG.info("%s answered nothing: its connection is not used again", self._channel.endpoint)
            self._open = False

    async def aclose(self) -> None:
        """Send the end of input, and close the socket."""
        was_open, self._open = self._open, False
        with contextlib.suppress(ConnectionClosed):
            if was_open and not self.waiting:
                await self._connection.send(END)
        await self._connection.close()
        await asyncio.wait([self._reader])


class WebsocketChannel(Channel):
    """One socket for all calls; a new one when it broke, went silent, or when the credential changed."""

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self._socket: Socket | None = None
        self._sockets: set[Socket] = set()
        """The sockets that are open, or being closed."""
        self._closing: set[asyncio.Task[None]] = set()
        self._opening = asyncio.Lock()
        self._underway: set[asyncio.Timeout] = set()
        self._secure: dict[str, Any] = {}
        self._closed = False
        self._separation = Separation()

    async def exchange(
        self,
        request_id: str,
        message: bytes | memoryview,
        headers: Headers,
        options: ExchangeOptions = DEFAULTS,
    ) -> bytes:
        separation = self._separation
        untried, once = len(message) > separation.accepted_bytes, not options.repeatable
        await separation.enter(untried, once)
        try:
            check, connect = options.check, partial(self._ready, headers, options.context)
            socket = await (connect() if check is None else checked(check, self.endpoint, connect, self._ask_on))
            reply = await socket.send(request_id, message, options.answer_by)
            separation.accepted_bytes = max(separation.accepted_bytes, len(message))
            return reply
        finally:
            separation.leave(untried, once)

    async def _ask_on(self, socket: Socket, request_id: str, message: bytes | memoryview) -> bytes:
        if not socket.usable:
            raise ConnectionEndedError
        return await socket.send(request_id, message, None)

    async def _ready(self, headers: Headers, context: Headers) -> Socket:
        async with self._opening:
            before = self._socket
            if before is not None and before.usable and before.headers == headers:
                return before
            connection = await self._connect((*headers, *context), "/")
            self._socket = socket = Socket(connection, headers, self)
            self._sockets.add(socket)
            self.connected()
            if before is not None:
                self.close_unused(before)
            return socket

    def close_unused(self, socket: Socket) -> None:
        """Close a socket on which nothing is in flight, unless it is the one for the next request."""
        if socket in self._sockets and not socket.waiting and not (socket is self._socket and socket.usable):
            self._sockets.discard(socket)
            task = asyncio.ensure_future(socket.aclose())
            self._closing.add(task)  # a loop keeps only weak references to its tasks
            task.add_done_callback(self._closing.discard)

    async def dry_run(self, headers: Headers) -> bytes | None:
        connection = await self._connect(headers, "/dry_run")
        try:
            async with asyncio.timeout(self.timeouts.read):
                with contextlib.suppress(ConnectionClosed):  # some servers answer and close before they have read
                    await connection.send(b"")
                return await connection.recv(decode=False)
        except TimeoutError:
            raise self.late() from None
        except ConnectionClosed as error:
            raise self.ours(error) from error
        finally:
            await connection.close()

    async def _connect(self, headers: Headers, path: str) -> ClientConnection:
        endpoint = self.endpoint
        if self._closed:
            raise self.was_closed(sent=False)
        if endpoint.tls and not self._secure:
            name = self.tls.server_name or endpoint.host
            self._secure = {"ssl": ssl_context(self.tls, ["http/1.1"]), "server_hostname": name}
        try:
            async with asyncio.timeout(self.timeouts.connect) as limit:
                self._underway.add(limit)
                try:
                    return await Handshake(
                        f"{'wss' if endpoint.tls else 'ws'}://{ascii_authority(endpoint)}{path}",
                        additional_headers=headers,
                        user_agent_header="casdk",
                        subprotocols=[SUBPROTOCOL],
                        # Without compression, since a few kilobytes could become gigabytes.
                        compression=None,
                        proxy=self.proxy,
                        open_timeout=None,
                        ping_interval=self.ping_seconds,
                        ping_timeout=self.pong_seconds,
                        close_timeout=CLOSE_SECONDS,
                        max_size=self.limits.max_reply_bytes,
                        logger=WIRE_LOG,
                        create_connection=Connection,
                        **self._secure,
                    )
                finally:
                    self._underway.discard(limit)
        except TimeoutError:
            if self._closed:
                raise self.was_closed(sent=False) from None
            seconds = self.timeouts.connect
            raise TransportError(f"no connection to {endpoint} within {seconds:g} s", sent=False) from None
        except (InvalidHandshake, ConnectionClosed, EOFError) as error:
            raise self._refused(error) from error
        except OSError as error:
            raise not_connected(endpoint, error) from error

    def _refused(self, error: Exception) -> CasdkError:
        """Return our error for a handshake that failed."""
        where = str(self.endpoint)
        if isinstance(error, InvalidProxyStatus):
            response = error.response
            return no_tunnel(self.endpoint, f"{response.status_code} {response.reason_phrase}")
        if isinstance(error, InvalidProxyMessage):
            return ProxyError(f"{where}: the proxy does not speak HTTP", retryable=False, sent=False)
        if isinstance(error, InvalidStatus):
            retry_after = next(iter(error.response.headers.get_all("Retry-After")), None)
            return handshake_refused(error.response.status_code, retry_after, where)
        if not isinstance(error, InvalidMessage):
            return no_websocket(str(error), where)
        if isinstance(error.__cause__, EOFError | ConnectionError):
            return TransportError(f"{where}: the connection was closed during the handshake", sent=False)
        return no_websocket(str(error.__cause__), where)

    def ours(self, error: ConnectionClosed, shared: bool = False) -> CasdkError:
        """Return our error for the end of a connection.

        Args:
            error: How it ended.
            shared: Whether more than one request was in flight on it.
        """
        where = str(self.endpoint)
        if error.rcvd is not None and error.rcvd_then_sent is not False:
            return closed_with(error.rcvd.code, error.rcvd.reason, where, shared=shared)
        code = None if error.sent is None else error.sent.code
        if code == CLOSED_HERE:
            return self.was_closed(sent=True)
        if code == TOO_BIG:
            return ReplyError(f"{where}: the reply is larger than Limits.max_reply_bytes")
        if error.sent is not None and code in RULES_BROKEN:
            return ReplyError(f"{where}: {error.sent.reason or 'the server broke the websocket protocol'}")
        if code == PING_UNANSWERED:
            return TransportError(f"{where} did not answer a ping within {self.pong_seconds:g} s")
        return TransportError(f"{where}: the connection was closed without a word")

    async def aclose(self) -> None:
        self._closed = True
        # First the socket that is being opened, which would stay open otherwise.
        run_out(self._underway)
        async with self._opening:
            self._socket = None
        sockets, self._sockets = self._sockets, set()
        for socket in sockets:
            await socket.aclose()
        if self._closing:
            await asyncio.wait(self._closing)


CHANNEL = WebsocketChannel

CREDENTIAL: Final = re.compile("(authorization: ).*", re.IGNORECASE)


def _redact(record: logging.LogRecord) -> bool:
    """Hide the credentials that websockets logs among the headers, at DEBUG."""
    record.msg, record.args = CREDENTIAL.sub(r"\1***", record.getMessage()), ()
    return True


WIRE_LOG: Final = logger_of("casdk.connections.websocket")
"""Used in place of the library's logger, which would show the credential."""
WIRE_LOG.addFilter(_redact)
