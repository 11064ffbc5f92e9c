"""Lets connections take turns, so that one with many tiny pieces does not delay the answers on the others.

All connections are served by one loop. The libraries that read http and websockets take what has come as a whole, up to
256 KiB at a time, and of tiny chunks, fragments and pings that is some 40,000 at up to a tenth of a millisecond each.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

__all__ = ["Feeder", "Feeding", "Turns"]

TURN_SECONDS = 0.005
LEAST, MOST = 256, 1 << 14
"""Bytes that are read at once, by how long the last ones took."""


class Turns:
    """A queue of connections, of which one continues in each turn of the loop."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call a function when its turn comes."""
        self._waiting.append(go_on)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._waiting[0]()
        self._waiting.popleft()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)


class Feeder(asyncio.Protocol):
    """Passes the bytes of a connection to its protocol, in pieces that take a few milliseconds.

    Args:
        protocol: Reads the bytes; it may be replaced by ``set_protocol``.
        turns: The queue in which the connection waits when there is more.
    """

    def __init__(self, protocol: asyncio.Protocol, turns: Turns) -> None:
        self.protocol = protocol
        self._turns = turns
        self._rest = bytearray()
        self._size = LEAST
        self._waits = False
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read."""
        self._transport = cast(asyncio.Transport, transport)
        self.protocol.connection_made(cast(asyncio.Transport, Feeding(self, self._transport)))

    def data_received(self, data: bytes) -> None:
        """Pass on the bytes that were received, in turns."""
        self._rest += data
        if not (self._waits or self._paused):
            self._go_on()

    def pause(self) -> None:
        """Pass nothing on for now."""
        self._paused = True
        self._transport.pause_reading()

    def resume(self) -> None:
        """Pass bytes on again."""
        self._paused = False
        if not self._rest:
            self._transport.resume_reading()
        elif not self._waits:
            self._wait()

    def unread(self, data: bytes) -> None:
        """Put back bytes that the protocol received and has not read."""
        self._rest[:0] = data

    def eof_received(self) -> bool | None:
        """Report the end of the input to the protocol."""
        return self.protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the bytes that were not passed on."""
        self._rest.clear()
        self.protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Report to the protocol that the other end does not read."""
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        """Report to the protocol that the other end reads again."""
        self.protocol.resume_writing()

    def _wait(self) -> None:
        self._waits = True
        self._transport.pause_reading()
        self._turns.wait(self._turn)

    def _turn(self) -> None:
        self._waits = False
        if not self._paused:
            self._go_on()

    def _go_on(self) -> None:
        began = before = time.perf_counter()
        while self._rest and not self._paused and not self._transport.is_closing():
            if before - began > TURN_SECONDS:
                self._wait()
                return
            piece = bytes(self._rest[: self._size])
            del self._rest[: self._size]
            self.protocol.data_received(piece)
            after = time.perf_counter()
            # What came last says little of what comes next, so the size grows a step at a time, and falls at once.
            fitting = int(len(piece) * TURN_SECONDS / max(after - before, 1e-9))
            self._size = max(LEAST, min(fitting, 4 * self._size, MOST))
            before = after
        if not self._paused:
            self._transport.resume_reading()


class Feeding:
    """The transport that the protocol sees: it forwards pausing and changes of the protocol to the `Feeder`."""

    def __init__(self, feeder: Feeder, transport: asyncio.Transport) -> None:
        self._feeder = feeder
        self._transport = transport

    def pause_reading(self) -> None:
        """Let the `Feeder` pass nothing on for now."""
        self._feeder.pause()

    def resume_reading(self) -> None:
        """Let the `Feeder` pass bytes on again."""
        self._feeder.resume()

    def unread(self, data: bytes) -> None:
        """Put back bytes for the protocol that reads from now on."""
        self._feeder.unread(data)

    def get_protocol(self) -> asyncio.Protocol:
        """Return the protocol that reads."""
        return self._feeder.protocol

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        """Set the protocol that reads from now on."""
        self._feeder.protocol = protocol

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._transport, name)
        setattr(self, name, value)
        return value
