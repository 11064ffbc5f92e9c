"""Checks of connections, for libraries that choose the connection of a request themselves.

A library reports when it opens a connection, but not which one a request takes.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any

from casdk._transport.channels.base import Channel, Headers
from casdk._transport.channels.options import DEFAULTS, ExchangeOptions
from casdk.errors import ServerError, TransportError

__all__ = ["CountingChannel"]


class Mark:
    """Stands for all open connections in a `Check`; a `CountingChannel` makes a new one when a connection is opened."""

    def __init__(self) -> None:
        self.is_used = False


class CountingChannel(Channel):
    """The base of the channels on grpcio and httpx: it checks connections as far as a library allows.

    A check is made before the first request after each new connection, over any connection that the library takes; and
    once more before a reply counts, if another connection was opened meanwhile. A library may open a connection for any
    request, so a request that must not be repeated is preceded by a check each time.
    """

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self._mark = Mark()

    def connected(self) -> None:
        """Note and log that a connection was opened."""
        super().connected()
        if self._mark.is_used:
            self._mark = Mark()
        self._mark.is_used = True

    async def exchange(
        self,
        request_id: str,
        message: bytes | memoryview,
        headers: Headers,
        options: ExchangeOptions = DEFAULTS,
    ) -> bytes:
        """Send one request and wait for its reply, as `Channel.exchange` has it."""
        ask, check = partial(self._ask_any, headers), options.check
        if check is not None and not (options.repeatable and check.has_passed(self._mark)):
            await check.inspect(self._mark, ask)
        # The libraries take only bytes, so a buffer that Rust has lent is copied.
        message = bytes(message)
        reply = await self._exchange(request_id, message, headers, options)
        if check is not None and not check.has_passed(self._mark):
            try:
                await check.inspect(self._mark, ask, sent=True)
            except (TransportError, ServerError) as error:
                error.sent = True
                raise
        return reply

    async def _ask_any(self, headers: Headers, request_id: str, message: bytes | memoryview) -> bytes:
        return await self._exchange(request_id, bytes(message), headers)

    @abstractmethod
    async def _exchange(
        self,
        request_id: str,
        message: bytes,
        headers: Headers,
        options: ExchangeOptions = DEFAULTS,
    ) -> bytes:
        """Send one request without a check; the arguments are those of `exchange`."""
