"""How the requests of a call find their server: each asks for its transport once, before it is sent.

A session has one `Way`, which its calls use: this one for a single server, `casdk._calls.pool.PooledWay` for several.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Final

from casdk._calls.choice import State
from casdk._calls.outages import ServerState
from casdk._engine.logging import logger_of
from casdk.errors import CasdkError, OverloadedError
from casdk.servers import ServerStatus

if TYPE_CHECKING:
    from casdk._calls.batches import Request
    from casdk._calls.hedging import Hedging
    from casdk._calls.pace import Pace
    from casdk._rust import Codec
    from casdk._transport.transport import Transport

__all__ = ["IndexWay", "Way", "log_rate", "status_of"]

LOG: Final = logger_of("casdk.connections")


class Way:
    """The servers that the requests of a call may go to: here there is one.

    Args:
        only: The transport of all requests; ``None`` if there are several servers.
        codecs: The forms that requests may have to be written in.
        state: Whether these servers are away.
        address: The servers' addresses, for errors and log lines that are not about one request.
        pace: Slows requests down if the one server refuses some; ``None`` if nothing does.

    Attributes:
        direct: The transport of requests about which nothing has to be noted; ``None`` if each has to ask for one.
        codec: The form that the next request is to be written in.
        has_waiters: Whether no request needs a task while it waits for its reply.
        open_until: From this time on, `open` is to be awaited before the next request, in the engine's time.
        is_fixed: Whether the servers stay the same as long as the client lives.
        hedging: Decides which requests are sent to a second server as well; ``None`` if none is.
    """

    def __init__(
        self,
        only: Transport | None,
        codecs: tuple[Codec, ...],
        state: ServerState,
        address: str,
        pace: Pace | None = None,
    ) -> None:
        self.only: Final = only
        self.direct = None if pace is not None and pace.allowance.watches else only
        self._pace = pace
        self.has_waiters: Final = only is not None and only.has_waiters
        self.codecs: Final = codecs
        self.codec: Codec = codecs[0]
        self.state = state
        self.address = address
        self.open_until = inf
        self.is_fixed = True
        self.hedging: Hedging | None = None

    @classmethod
    def to(cls, transport: Transport, state: ServerState, pace: Pace | None = None) -> Way:
        """Return the way to one server.

        Args:
            transport: The way to that server.
            state: Whether the server is away.
            pace: How fast requests may follow each other there; it slows down if the server refuses some.
        """
        return cls(transport, (transport.codec,), state, str(transport.endpoint), pace)

    @property
    def transports(self) -> list[Transport]:
        """The ways to all servers."""
        return [self.only] if self.only is not None else []

    def transport_for(self, request: Request, size: int) -> Transport | None:
        """Return the transport of a request that has been written.

        Args:
            request: The request.
            size: Its size in bytes.

        Returns:
            ``None`` if the request has to be written again first, in the form that ``codec`` names by now.
        """
        if self._pace is not None:
            request.ticket = self._pace.allowance.send(asyncio.get_running_loop().time())
        return self.only

    def hedge_for(self, request: Request, size: int) -> Request | None:
        """Return a second request with the same batch for another server, and note that it goes there.

        Args:
            request: The request that is late.
            size: Its size in bytes.

        Returns:
            ``None`` if there is no second server that can take it, or enough of them were hedged.
        """
        return None

    def statuses(self) -> list[ServerStatus]:
        """Return what is known of each server; from any thread."""
        state: State = "away" if self.state.is_awaited else "ready"
        return [status_of(transport, state, 1.0) for transport in self.transports]

    def answered(self, request: Request) -> None:
        """Note that a request was answered, by a reply that is no error."""
        if self._pace is not None:
            before = self._pace.allowance.rate
            self._pace.accept(request.ticket, asyncio.get_running_loop().time())
            self._note_pace(self._pace, before)

    def failed(self, request: Request, error: CasdkError, answer_by: float | None) -> None:
        """Note that a request failed.

        Args:
            request: The request.
            error: Why it failed.
            answer_by: The deadline of the call that waited for it, in the engine's time.
        """
        assert request.transport is not None
        error.server = str(request.transport.endpoint)
        request.transport.last_error = f"{type(error).__name__}: {error}"
        if self._pace is not None and isinstance(error, OverloadedError):
            before = self._pace.allowance.rate
            self._pace.refuse(request.ticket, asyncio.get_running_loop().time(), error.retry_after or 0.0)
            self._note_pace(self._pace, before)

    def _note_pace(self, pace: Pace, before: float | None) -> None:
        """Let requests ask for their transport from now on, or go directly, as the server is watched or not."""
        self.direct = None if pace.allowance.watches else self.only
        log_rate(self.address, before, pace.allowance.rate)

    def leave(self, request: Request) -> None:
        """Note that a request was taken back, if it was in flight: nobody waits for it any more."""

    async def open(self) -> None:
        """Prepare the servers before the first request."""

    async def aclose(self) -> None:
        """End the work of the way itself; requests are the calls' own."""


class IndexWay(Way):
    """The way to the server of a pool that has the index: its requests and the pool's share one pace.

    Args:
        transport: The way to that server.
        state: Whether the server is away.
        pace: How fast requests may follow each other there.
    """

    def __init__(self, transport: Transport, state: ServerState, pace: Pace) -> None:
        super().__init__(transport, (transport.codec,), state, str(transport.endpoint), pace)
        self.direct = None
        self._pace: Pace = pace

    def transport_for(self, request: Request, size: int) -> Transport | None:
        """Return the transport of a request, and note when the request may be sent."""
        now = asyncio.get_running_loop().time()
        began = self._pace.take_turn(now, len(request.batch)) if self._pace.slows else now
        request.send_at = began if began > now else None
        request.ticket = self._pace.allowance.send(began) if self._pace.allowance.watches else None
        return self.only

    def _note_pace(self, pace: Pace, before: float | None) -> None:
        log_rate(self.address, before, pace.allowance.rate)


def status_of(transport: Transport, state: State, share: float) -> ServerStatus:
    """Return the status of a server, as `Client.servers` has it.

    Args:
        transport: The way to the server.
        state: Whether it gets requests.
        share: Its share of the client's requests, from 0 to 1.
    """
    address = str(transport.endpoint)
    return ServerStatus(address=address, state=state, last_error=transport.last_error, share=share)


def log_rate(address: str, before: float | None, after: float | None) -> None:
    """Log that requests to a server begin, or stop, to be slowed down to a rate that it takes.

    Args:
        address: The server's address.
        before: The rate before, in requests a second; ``None`` if there was none.
        after: The rate from now on.
    """
    if before is None and after is not None:
        LOG.info("%s refuses requests: it is sent %.3g a second for now, and more if it takes them", address, after)
    elif before is not None and after is None:
        LOG.info("%s is sent requests at any rate again", address)
