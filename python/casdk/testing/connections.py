"""Faults of a whole connection, as values for the ``connections=`` of a `FaultServer`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

if TYPE_CHECKING:
    from casdk.testing._connection import Connection, Incoming

__all__ = ["Babble", "ConnectionFault", "Deaf", "EndlessHeaders", "Manner", "Shut", "Silent", "StallHandshake"]

Manner: TypeAlias = Literal["close", "reset", "half-close"]
"""How a connection ends: FIN, RST, or FIN in the server's direction only."""


class ConnectionFault:
    """A fault of one connection. Subclass it for faults of your own.

    Attributes:
        greets: Whether the server sends the first bytes of its protocol before the client has sent anything.
    """

    __slots__ = ()
    greets: ClassVar[bool] = True

    async def accept(self, incoming: Incoming) -> bool:
        """Act on the raw socket, before TLS; return whether the fault has dealt with the whole connection."""
        return False

    def opened(self, connection: Connection) -> None:
        """Act when the connection begins to speak its protocol, after TLS."""

    def received(self, connection: Connection, data: bytes) -> bool:
        """Act on bytes that were received; return whether the protocol must not process them."""
        return False


@dataclass(frozen=True, slots=True)
class Silent(ConnectionFault):
    """Accept the connection and never send anything, not even the TLS handshake on a secure scheme."""

    async def accept(self, incoming: Incoming) -> bool:
        await incoming.forever()
        return True


@dataclass(frozen=True, slots=True)
class StallHandshake(ConnectionFault):
    """Send half of the server's side of the TLS handshake; `Silent` on a plain scheme."""

    async def accept(self, incoming: Incoming) -> bool:
        await incoming.stall_handshake()
        return True


@dataclass(frozen=True, slots=True)
class Shut(ConnectionFault):
    """End the connection when so many bytes were read from it, after TLS; with 0, end it at once, before TLS."""

    after: int = 0
    how: Manner = "close"

    async def accept(self, incoming: Incoming) -> bool:
        if self.after == 0:
            incoming.cut(self.how)
            return True
        return False

    def received(self, connection: Connection, data: bytes) -> bool:
        if connection.received >= self.after:
            connection.cut(self.how)
            return True
        return False


@dataclass(frozen=True, slots=True)
class Deaf(ConnectionFault):
    """Stop reading when so many bytes were read, so that the client cannot send any more."""

    after: int = 0

    def opened(self, connection: Connection) -> None:
        if self.after == 0:
            connection.transport.pause_reading()

    def received(self, connection: Connection, data: bytes) -> bool:
        if connection.received >= self.after:
            connection.transport.pause_reading()
            return True
        return False


@dataclass(frozen=True, slots=True)
class Babble(ConnectionFault):
    """Answer the first bytes with the given ones, whatever they are; then send nothing, or end the connection."""

    greets: ClassVar[bool] = False
    data: bytes = field(default=b"SSH-2.0-OpenSSH_9.6\r\n")
    close: bool = False

    def received(self, connection: Connection, data: bytes) -> bool:
        if connection.received == len(data):
            connection.transport.write(self.data)
            if self.close:
                connection.cut("close")
        return True


@dataclass(frozen=True, slots=True)
class EndlessHeaders(ConnectionFault):
    """Answer the first request with endless headers, as fast as the client reads them."""

    def received(self, connection: Connection, data: bytes) -> bool:
        return connection.send_endless_headers(data)
