"""How the requests of a call find their server: each asks for its transport once, before it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from casdk._calls.choice import State
from casdk._calls.outages import ServerState
from casdk.errors import CasdkError
from casdk.servers import ServerStatus

if TYPE_CHECKING:
    from casdk._calls.batches import Request
    from casdk._calls.hedging import Hedging
    from casdk._rust import Codec
    from casdk._transport.transport import Transport

__all__ = ["Way", "status_of"]


class Way:
    """The servers that the requests of a call may go to: here there is one.

    Args:
        only: Where all requests go; ``None`` where each has to ask.
        codecs: How requests may have to be written.
        state: Whether these servers are away.
        address: Where requests go, for errors and log lines of no request in particular.

    Attributes:
        codec: How the next request is to be written.
        is_open: Whether requests may be sent; else `open` is awaited first.
        hedging: Which of them are sent to a second server as well; ``None`` if none is.
    """

    is_open = True
    hedging: Hedging | None = None

    def __init__(self, only: Transport | None, codecs: tuple[Codec, ...], state: ServerState, address: str) -> None:
        self.only: Final = only
        self.codecs: Final = codecs
        self.codec: Codec = codecs[0]
        self.state = state
        self.address = address

    @classmethod
    def to(cls, transport: Transport, state: ServerState) -> Way:
        """Return the way to one server.

        Args:
            transport: Where all requests go.
            state: Whether it is away.
        """
        return cls(transport, (transport.codec,), state, str(transport.endpoint))

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

    def leave(self, request: Request) -> None:
        """A request was taken back, if it was still on its way: nobody waits for it any more."""

    async def open(self) -> None:
        """Do what has to be done before the first request."""

    async def aclose(self) -> None:
        """End what is under way beside requests."""


def status_of(transport: Transport, state: State, share: float) -> ServerStatus:
    """Return what is told of a server.

    Args:
        transport: The way to it.
        state: Whether it gets requests.
        share: How many of the client's requests it got.
    """
    address = str(transport.endpoint)
    return ServerStatus(address=address, state=state, last_error=transport.last_error, share=share)
