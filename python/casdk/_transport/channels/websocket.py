"""websocket and websockets: every request of a client on one socket, replies paired by id."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from casdk._rust import Message, request_id_of
from casdk._transport.channels.base import Channel, Headers
from casdk._transport.channels.inspection import ConnectionEndedError, checked
from casdk._transport.channels.options import DEFAULTS, ExchangeOptions
from casdk._transport.channels.separation import Separation
from casdk._transport.channels.websocket_connection import REQUESTS, Connection
from casdk._transport.connecting import Connector, host_field
from casdk.errors import TransportError

__all__ = ["CHANNEL", "WebsocketChannel"]

ONLY: Final = ""
"""The id of a request that is the only one on its connection, and whose answer has no id."""


class WebsocketChannel(Channel):
    """One connection for all calls; a new one when it broke, went silent, or when the credential changed.

    A server may close an idle connection at any time, even while the next requests are on their way. So if a connection
    that was used before ends without an answer to any of them, requests that may be repeated are sent once more on a
    new one.

    Attributes:
        connection: The connection for the next request, if there is one.
        host: The ``host`` of handshakes.
    """

    has_waiters = True

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.connection: Connection | None = None
        self.host = host_field(self.endpoint)
        self._connector = Connector(self.endpoint, self.tls, self.proxy, self.timeouts.connect)
        self._opening = asyncio.Lock()
        self._open: set[Connection] = set()
        """The connections whose sockets are open."""
        self._separation = Separation()

    @property
    def is_connected(self) -> bool:
        return self.connection is not None and self.connection.usable

    async def exchange(
        self,
        request_id: str,
        message: bytes | memoryview,
        headers: Headers,
        options: ExchangeOptions = DEFAULTS,
    ) -> Message:
        separation = self._separation
        untried, once = len(message) > separation.accepted_bytes, not options.repeatable
        if untried or once:
            await separation.enter(untried, once)
        try:
            connection = self.connection
            if once and connection is not None and not connection.waiting:
                # Two turns of the loop, so that an end that has come already is noticed: one polls, one handles it.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                connection = self.connection
            if (
                options.check is not None
                or connection is None
                or not connection.usable
                or connection.headers != headers
            ):
                connection = await self._ready(headers, options)
            try:
                reply = await connection.call(request_id, message, options.answer_by)
            except TransportError:
                if not connection.stale or once:
                    raise
                connection = await self._ready(headers, options)
                reply = await connection.call(request_id, message, options.answer_by)
            separation.accepted_bytes = max(separation.accepted_bytes, len(message))
            return reply
        finally:
            if untried or once:
                separation.leave(untried, once)

    async def _ready(self, headers: Headers, options: ExchangeOptions) -> Connection:
        """Return the connection for a request, checked if it has to be."""
        check, connect = options.check, partial(self._connected, headers, options.context)
        return await (connect() if check is None else checked(check, self.endpoint, connect, self._ask_on))

    async def _ask_on(self, connection: Connection, request_id: str, message: bytes | memoryview) -> Message:
        if not connection.usable:
            raise ConnectionEndedError
        try:
            return await connection.call(request_id, message, None)
        except TransportError:
            if connection.stale:
                raise ConnectionEndedError from None
            raise

    async def _connected(self, headers: Headers, context: Headers) -> Connection:
        async with self._opening:
            before = self.connection
            if before is not None and before.usable and before.headers == headers:
                return before
            self.connection = connection = await self._connect(headers, context, REQUESTS, request_id_of)
            self.connected()
            if before is not None:
                self.leave(before)
            return connection

    async def _connect(
        self, headers: Headers, context: Headers, path: str, identify: Callable[[Message], str]
    ) -> Connection:
        connection = await self._connector.connect(
            lambda: Connection(self, headers, context, path, identify), Connection.opened
        )
        if not connection.lost.done():
            self._open.add(connection)
        return connection

    async def dry_run(self, headers: Headers) -> bytes | None:
        # A connection of its own, which `Connection.call` closes at its end, since it is not the one for requests.
        connection = await self._connect(headers, (), "/dry_run", lambda _: ONLY)
        return bytes(await connection.call(ONLY, b"", None))

    def leave(self, connection: Connection) -> None:
        """Begin no more requests on a connection; it is closed when those in flight on it have ended."""
        if connection is self.connection:
            self.connection = None
        if not connection.waiting:
            connection.close()

    def forget(self, connection: Connection) -> None:
        """Note that the socket of a connection is closed."""
        self._open.discard(connection)

    async def aclose(self) -> None:
        # First the connection that is being opened, which would stay open otherwise.
        self._connector.close()
        async with self._opening:
            self.connection = None
        connections = tuple(self._open)
        for connection in connections:
            connection.close()
        if connections:
            await asyncio.wait([connection.lost for connection in connections])


CHANNEL = WebsocketChannel
