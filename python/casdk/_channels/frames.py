"""What of a websocket's frames is read here and not by the library (websockets)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from websockets.asyncio.client import ClientConnection

__all__ = ["Connection"]

WHOLE: Final = 0x82
"""First byte of a binary message in one frame: what every reply is."""
LAST: Final = 0x80
"""Bit of a frame that begins no fragments."""
MOST_UNREAD_BYTES: Final = 4 << 20
"""Bytes that may wait for the server to read them: requests are at most 1 MiB of it at once, so the rest is answers to
its pings."""
SHORT: Final = 125
"""Bytes of the longest frame whose length stands in its second byte, and of the longest one that carries no data."""


class Connection(ClientConnection):
    """The library's, but that a reply is handed over where it arrives, in as few copies as that takes.

    On its way through the library a reply is copied five times, queued, and its reader woken: half of what it costs to
    receive it. Here frames are told apart, and all of them but whole binary messages go to the library.

    Attributes:
        deliver: Takes such a message; without it, all go to the library.
        largest: Bytes of the largest one; the library refuses what is larger.
        flooded: Called when the server sends pings and does not read the answers, which would take memory without end.
        received_at: When the last bytes came, in the engine's time.
    """

    def __init__(self, *settings: Any, **options: Any) -> None:
        super().__init__(*settings, **options)
        self.deliver: Callable[[bytes], None] | None = None
        self.largest = 0
        self.flooded: Callable[[], None] | None = None
        self.received_at = self.loop.time()
        # Whether what comes next begins a frame: nobody knows if the library has begun one that is not all there.
        self._apart = False
        self._head = b""
        self._pieces: list[memoryview] = []
        self._missing = 0

    def data_received(self, data: bytes) -> None:
        """Take bytes of the network."""
        self.received_at = self.loop.time()
        self._receive(data)
        if self.transport.get_write_buffer_size() > MOST_UNREAD_BYTES and self.flooded is not None:
            self.flooded()

    def _receive(self, data: bytes) -> None:
        deliver = self.deliver
        if deliver is None or not self._apart:
            opening = self.response is None
            super().data_received(data)
            self._apart = opening and self.response is not None and data.endswith(b"\r\n\r\n")
            return
        if self._missing:
            taken = min(self._missing, len(data))
            self._pieces.append(memoryview(data)[:taken])
            self._missing -= taken
            if self._missing:
                return
            pieces, self._pieces = self._pieces, []
            deliver(b"".join(pieces))
            data = data[taken:]
        elif self._head:
            data, self._head = self._head + data, b""
        self._take_apart(data, deliver)

    def _take_apart(self, data: bytes, deliver: Callable[[bytes], None]) -> None:
        at = 0
        while at < len(data):
            kind, start, size = _frame(data, at)
            end = start + size
            if kind == WHOLE and size <= self.largest:
                if end > len(data):
                    self._pieces, self._missing = [memoryview(data)[start:]], end - len(data)
                    return
                deliver(data[start:end])
            elif kind & LAST and size <= SHORT:
                if end > len(data):
                    self._head = data[at:]
                    return
                super().data_received(data[at:end])
            else:  # fragments, or what the library has to refuse
                self._apart = False
                super().data_received(data[at:])
                return
            at = end


def _frame(data: bytes, at: int) -> tuple[int, int, int]:
    """Return a frame's first byte, where its payload begins and its size.

    A head that is cut off reads as a short frame that ends beyond the data, a masked frame as one of fragments.
    """
    if at + 1 == len(data):
        return LAST, at + 2, 0
    size = data[at + 1]
    if size <= SHORT:
        return data[at], at + 2, size
    if size > SHORT + 2:
        return 0, at, size
    start = at + (4 if size == SHORT + 1 else 10)
    if start > len(data):
        return LAST, start, 0
    return data[at], start, int.from_bytes(data[at + 2 : start])
