"""Checks of a connection before requests go over it, since there may be another server behind each connection.

`casdk._calls.guard` implements `Check`; the channels call it, with `checked`.
"""

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
"""The most connections that are checked for one request; another one is, if the last one ended before it was used."""

C = TypeVar("C")

Ask: TypeAlias = Callable[[str, bytes | memoryview], Awaitable[bytes | Message]]
"""Sends a request, by its id and message, over the connection that is checked, and over no other."""


class ConnectionEndedError(Exception):
    """A connection ended, or took no more requests, before the server had begun with a request of its check."""


class Check(Protocol):
    """A check that a connection must pass before a certain request goes over it."""

    def has_passed(self, connection: object) -> bool:
        """Whether this connection has passed the check."""
        ...

    async def inspect(self, connection: object, ask: Ask, *, sent: bool = False) -> None:
        """Check a connection; requests that wait for the same connection share one check.

        Args:
            connection: The connection.
            ask: Sends a request over it.
            sent: Whether the request that this is for has been answered already.

        Raises:
            CasdkError: The connection does not pass, or the check failed.
            ConnectionEndedError: Raised by `ask`: another connection has to be checked.
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
    """Return a connection that has passed a check; it is still open in this turn of the loop.

    Args:
        check: The check.
        endpoint: The server.
        connect: Returns the connection that is open, or opens another one.
        ask: Sends a request over a connection.

    Raises:
        CasdkError: The errors of `Check.inspect`.
    """
    for _ in range(MOST_CONNECTIONS):
        connection = await connect()
        if check.has_passed(connection):
            return connection
        with suppress(ConnectionEndedError):
            await check.inspect(connection, partial(ask, connection))
    raise ends_each(endpoint)
