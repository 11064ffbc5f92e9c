"""Checks of connections that a library chooses by itself: it says when it opens one, and not which a request takes."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any

from casdk._transport.channels.base import Channel, Headers
from casdk._transport.channels.inspection import Check
from casdk.errors import ServerError, TransportError

__all__ = ["CountingChannel"]


class Mark:
    """Stands for the connections that are open, for a `Check`: there is another one as soon as one is opened."""

    def __init__(self) -> None:
        self.is_used = False


class CountingChannel(Channel):
    """What a channel on a library can have of a check.

    It is made before the first request after each new connection, over whichever connection the library takes, and once
    more before a reply counts if another was opened meanwhile. As nobody knows whether a library opens one for a
    request, what must not be repeated is preceded by a check each time.
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
        context: Headers = (),
        answer_by: float | None = None,
        repeatable: bool = True,
        check: Check | None = None,
    ) -> bytes:
        """Send one request and wait for its reply, as `Channel.exchange` has it."""
        ask = partial(self._ask_any, headers)
        if check is not None and not (repeatable and check.has_passed(self._mark)):
            await check.inspect(self._mark, ask)
        # The libraries take bytes: what is only lent is copied.
        message = bytes(message)
        reply = await self._exchange(request_id, message, headers, context, answer_by, repeatable)
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
        context: Headers = (),
        answer_by: float | None = None,
        repeatable: bool = True,
    ) -> bytes:
        """Do the same, whatever the connection is."""
