"""How the requests of a call find their server: each asks for its transport once, before it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from casdk._calls.outages import ServerState

if TYPE_CHECKING:
    from casdk._calls.batches import Batch
    from casdk._rust import Codec
    from casdk._transport.transport import Transport

__all__ = ["Way"]


class Way:
    """The servers that the requests of a call may go to: here there is one.

    Args:
        only: Where all requests go; ``None`` where each has to ask.
        codecs: How requests may have to be written.
        state: Whether these servers are away.
        address: Where requests go, for errors and log lines of no request in particular.

    Attributes:
        codec: How the next request is to be written.
    """

    def __init__(self, only: Transport | None, codecs: tuple[Codec, ...], state: ServerState, address: str) -> None:
        self.only: Final = only
        self.codecs: Final = codecs
        self.codec: Codec = codecs[0]
        self.state: Final = state
        self.address = address

    @classmethod
    def to(cls, transport: Transport, state: ServerState) -> Way:
        """Return the way to one server.

        Args:
            transport: Where all requests go.
            state: Whether it is away.
        """
        return cls(transport, (transport.codec,), state, str(transport.endpoint))

    def transport_for(self, batch: Batch, size: int) -> Transport | None:
        """Return where a request goes that has been written.

        Args:
            batch: What is in it.
            size: Its bytes.

        Returns:
            ``None`` if it has to be written again first, as ``codec`` says by now.
        """
        return self.only
