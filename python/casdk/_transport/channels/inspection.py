"""Checks of a connection before requests go over it, since behind each connection there may be another server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, Protocol, TypeAlias, TypeVar

from casdk._rust import Message
from casdk._transport.address import Endpoint
from casdk.errors import TransportError

__all__ = ["MOST_CONNECTIONS", "Ask", "Check", "ConnectionEndedError", "checked", "ends_each"]

MOST_CONNECTIONS: Final = 5
"""Connections that are checked for one request at most, because the one before ended before it could be used."""

C = TypeVar("C")

Ask: TypeAlias = Callable[[str, bytes | memoryview], Awaitable[bytes | Message]]
"""Sends a request of this id and these bytes over the connection that is checked, and over no other."""


class ConnectionEndedError(Exception):
    """A connection ended, or took no more requests, before the server had begun with one of its check."""


class Check(Protocol):
    """What a connection has to be found right by before a certain request goes over it."""

    def has_passed(self, connection: object) -> bool:
        """Whether this connection was found right."""
        ...

    async def inspect(self, connection: object, ask: Ask, *, sent: bool = False) -> None:
        """Find out whether a connection is right; requests that wait for the same answer ask once.

        Args:
            connection: The connection.
            ask: Sends a request over it.
            sent: Whether the request that this is for has been answered already.

        Raises:
            CasdkError: It is not, or that could not be found out.
            ConnectionEndedError: As `ask` raises it: another connection has to be asked.
        """


def ends_each(endpoint: Endpoint) -> TransportError:
    """Return the error of a request for which no connection lasted long enough to be checked."""
    return TransportError(f"{endpoint} ends each connection before it could be checked", sent=False)


async def checked(
    check: Check,
    endpoint: Endpoint,
    connect: Callable[[], Awaitable[C]],
    ask: Callable[[C, str, bytes | memoryview], Awaitable[bytes | Message]],
) -> C:
    """Return a connection that was found right, in the turn of the loop in which it is open.

    Args:
        check: What it has to be found right by.
        endpoint: The server.
        connect: Returns the connection that is open, or opens another one.
        ask: Sends a request over a connection.

    Raises:
        CasdkError: As `Check.inspect`.
    """
    for _ in range(MOST_CONNECTIONS):
        connection = await connect()
        if check.has_passed(connection):
            return connection
        with suppress(ConnectionEndedError):
            await check.inspect(connection, partial(ask, connection))
    raise ends_each(endpoint)
