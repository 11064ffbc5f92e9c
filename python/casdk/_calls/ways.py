"""How the requests of a call find their server: each asks for its transport once, before it is sent."""

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
        only: Where all requests go; ``None`` where there are several servers.
        codecs: How requests may have to be written.
        state: Whether these servers are away.
        address: Where requests go, for errors and log lines of no request in particular.
        pace: What the one server is slowed down for by, if it refuses requests, and if anything is.

    Attributes:
        direct: Where requests go without asking, as nothing has to be noted of them; ``None`` where each has to ask.
        codec: How the next request is to be written.
        has_waiters: Whether no request needs a task while it waits for its reply.
        open_until: When `open` is to be awaited before the next request, in the engine's time.
        is_fixed: Whether these servers stay those that they are.
        hedging: Which of them are sent to a second server as well; ``None`` if none is.
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
            transport: Where all requests go.
            state: Whether it is away.
            pace: How fast requests follow each other there, which slows down if it refuses some.
        """
        return cls(transport, (transport.codec,), state, str(transport.endpoint), pace)

    @property
    def transports(self) -> list[Transport]:
        """The ways to all servers."""
        return [self.only] if self.only is not None else []

    def transport_for(self, request: Request, size: int) -> Transport | None:
        """Return where a request goes that has been written.

        Args:
            request: The request.
            size: Its bytes.

        Returns:
            ``None`` if it has to be written again first, as ``codec`` says by now.
        """
        if self._pace is not None:
            request.ticket = self._pace.allowance.send(asyncio.get_running_loop().time())
        return self.only

    def hedge_for(self, request: Request, size: int) -> Request | None:
        """Return a request that is sent to a second server as well, and note that it goes there.

        Args:
            request: The request that is late.
            size: Its bytes.

        Returns:
            ``None`` if there is no second server that can take it, or enough of them were hedged.
        """
        return None

    def statuses(self) -> list[ServerStatus]:
        """Return what is known of each server; from any thread."""
        state: State = "away" if self.state.is_awaited else "ready"
        return [status_of(transport, state, 1.0) for transport in self.transports]

    def answered(self, request: Request) -> None:
        """A request was answered by a reply that is none of an error."""
        if self._pace is not None:
            before = self._pace.allowance.rate
            self._pace.accept(request.ticket, asyncio.get_running_loop().time())
            self._note_pace(self._pace, before)

    def failed(self, request: Request, error: CasdkError, answer_by: float | None) -> None:
        """A request failed.

        Args:
            request: The request.
            error: Why.
            answer_by: When whoever waited for it gave up, in the engine's time.
        """
        assert request.transport is not None
        error.server = str(request.transport.endpoint)
        request.transport.last_error = f"{type(error).__name__}: {error}"
        if self._pace is not None and isinstance(error, OverloadedError):
            before = self._pace.allowance.rate
            self._pace.refuse(request.ticket, asyncio.get_running_loop().time(), error.retry_after or 0.0)
            self._note_pace(self._pace, before)

    def _note_pace(self, pace: Pace, before: float | None) -> None:
        """Have each request ask from now on, or none, as the one server is watched or not."""
        self.direct = None if pace.allowance.watches else self.only
        log_rate(self.address, before, pace.allowance.rate)

    def leave(self, request: Request) -> None:
        """A request was taken back, if it was still on its way: nobody waits for it any more."""

    async def open(self) -> None:
        """Do what has to be done before the first request."""

    async def aclose(self) -> None:
        """End what is under way beside requests."""


class IndexWay(Way):
    """The way to the server of a pool that has the index: its requests and the pool's own share a pace.

    Args:
        transport: Where all requests go.
        state: Whether the server is away.
        pace: How fast requests follow each other there.
    """

    def __init__(self, transport: Transport, state: ServerState, pace: Pace) -> None:
        super().__init__(transport, (transport.codec,), state, str(transport.endpoint), pace)
        self.direct = None
        self._pace: Pace = pace

    def transport_for(self, request: Request, size: int) -> Transport | None:
        """Return where a request goes, and note when it may."""
        now = asyncio.get_running_loop().time()
        began = self._pace.take_turn(now, len(request.batch)) if self._pace.slows else now
        request.send_at = began if began > now else None
        request.ticket = self._pace.allowance.send(began) if self._pace.allowance.watches else None
        return self.only

    def _note_pace(self, pace: Pace, before: float | None) -> None:
        log_rate(self.address, before, pace.allowance.rate)


def status_of(transport: Transport, state: State, share: float) -> ServerStatus:
    """Return what a client says of a server.

    Args:
        transport: The way to it.
        state: Whether it gets requests.
        share: How many of the client's requests it got.
    """
    address = str(transport.endpoint)
    return ServerStatus(address=address, state=state, last_error=transport.last_error, share=share)


def log_rate(address: str, before: float | None, after: float | None) -> None:
    """Say so when requests begin to be sent at a rate that a server was found to take, or are not any more.

    Args:
        address: The server.
        before: That rate before, in requests a second; ``None`` if there was none.
        after: And now.
    """
    if before is None and after is not None:
        LOG.info("%s refuses requests: it is sent %.3g a second for now, and more if it takes them", address, after)
    elif before is not None and after is None:
        LOG.info("%s is sent requests at any rate again", address)
