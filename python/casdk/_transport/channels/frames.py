"""What of a websocket's frames is read here and not by the library (websockets)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.protocol import OPEN

__all__ = ["Connection"]

WHOLE: Final = 0x82
"""First byte of a binary message in one frame: what nearly every reply is."""
FIRST: Final = 0x02
"""That of its first fragment, if it comes in fragments."""
MORE: Final = 0x00
"""That of every fragment behind it,"""
LAST: Final = 0x80
"""and that of the last one."""
FRAGMENTS: Final = frozenset({FIRST, MORE, LAST})
TEXTS: Final = frozenset({0x01, 0x81})
CONTROLS: Final = frozenset({0x88, 0x89, 0x8A})
MASKED: Final = -1
"""For the first byte of a masked frame, which no server may send."""
UNKNOWN: Final = -2
"""For that of a frame whose head is not all there."""
MOST_UNREAD_BYTES: Final = 4 << 20
"""Bytes that may wait for the server to read them: requests are at most 1 MiB of it at once, so the rest is answers to
its pings."""
SHORT: Final = 125
"""Bytes of the longest frame whose length stands in its second byte, and of the longest one that carries no data."""
FRAMES_IN_A_TURN: Final = 128
"""That are read before others have their turn."""
PASSED_ON: Final = 2048
"""Bytes that the library is given in one turn."""
TURNS_AT_THE_END: Final = 32
"""That what was received has at once when there is nothing more: over TLS, an end does not wait for its turn."""
MOST_FRAGMENTS: Final = 1024
FRAGMENT_BYTES: Final = 16
"""A message comes in at most so many fragments, and one more for each so many bytes: an empty one takes memory, too."""
MOST_CONTROLS: Final = 1000
"""Pings and pongs in a second."""
END_OF_HEAD: Final = b"\r\n\r\n"
CLOSE_SECONDS: Final = 1.0
"""For what was written last to be taken by a server that is to be left."""


class Connection(ClientConnection):
    """The library's, but that a reply is handed over where it arrives, in as few copies as that takes.

    On its way through the library a reply is copied five times, queued, and its reader woken: half of what it costs to
    receive it. Here frames are told apart; the library gets the handshake, frames that carry no data, and what it has
    to refuse. Whatever a server sends, others have their turn after `FRAMES_IN_A_TURN` frames.

    What comes behind the handshake waits for `begin`.

    Attributes:
        received_at: When the last bytes came, in the engine's time.
    """

    def __init__(self, *settings: Any, **options: Any) -> None:
        super().__init__(*settings, **options)
        self.received_at = self.loop.time()
        self._deliver: Callable[[bytes], None] | None = None
        self._refuse: Callable[[str], object] = str
        self._largest = 0
        # What was received and has not had its turn; nothing more is read meanwhile.
        self._unread = b""
        self._paused = False
        self._tail = b""
        self._opened = self._refused = self._ended = False
        self._head = b""
        # The message that is being received, as far as it is here, and what is missing of its frame.
        self._pieces: list[bytes | memoryview] = []
        self._begun = False
        self._size = self._fragments = 0
        self._missing = 0
        self._last = True
        self._controls = 0
        self._counted_at = 0.0

    def begin(self, deliver: Callable[[bytes], None], refuse: Callable[[str], object], largest: int) -> None:
        """Read what comes, from now on.

        Args:
            deliver: Takes each binary message.
            refuse: Called, once, when the server does what it must not, and the library would not see that; it ends
                the connection.
            largest: Bytes of the largest message; the library refuses what is larger.
        """
        self._deliver, self._refuse, self._largest = deliver, refuse, largest
        if self._unread:
            self.loop.call_soon(self._go_on)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the network."""
        self.received_at = self.loop.time()
        self._take(self._unread + data if self._unread else data)
        if self.transport.get_write_buffer_size() > MOST_UNREAD_BYTES:
            self._end("it sends pings and does not read the answers")

    def _take(self, data: bytes) -> None:
        """Read what has its turn, and keep the rest."""
        if self._ended:
            return
        rest = self._unread = self._read_some(data)
        if self.transport.is_closing():
            return
        if bool(rest) is not self._paused:
            self._paused = bool(rest)
            (self.transport.pause_reading if rest else self.transport.resume_reading)()
        if rest and not (self._opened and self._deliver is None):
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        data, self._unread = self._unread, b""
        if data and not self.transport.is_closing():
            self._take(data)

    def eof_received(self) -> None:
        """Take the end, behind what had no turn yet, as far as that has an end itself."""
        for _ in range(TURNS_AT_THE_END):
            if self._unread and not self._ended:
                self._unread = self._read_some(self._unread)
        super().eof_received()

    def _read_some(self, data: bytes) -> bytes:
        """Read what has its turn; return what is left."""
        if not self._opened:
            return self._shake_hands(data)
        return self._pass_on(data) if self._refused else self._read(data)

    def _shake_hands(self, data: bytes) -> bytes:
        """Give the library some of the answer to the handshake, and not a byte behind the head of a good one."""
        piece = data[:PASSED_ON]
        end = (self._tail + piece).find(END_OF_HEAD)
        if end >= 0:
            piece = piece[: end + len(END_OF_HEAD) - len(self._tail)]
        self._tail = (self._tail + piece)[1 - len(END_OF_HEAD) :]
        super().data_received(piece)
        rest = data[len(piece) :]
        self._opened = self.response is not None and self.protocol.state is OPEN
        if self.protocol.close_expected():
            self._leave()
        elif end >= 0 and rest and not self._opened:  # what says why there is no websocket
            super().data_received(rest[:PASSED_ON])
            rest = rest[PASSED_ON:]
            if self.protocol.close_expected():
                self._leave()
        return rest

    def _pass_on(self, data: bytes) -> bytes:
        """Give the library some of what follows a frame that it has to refuse; of that it makes no messages."""
        super().data_received(data[:PASSED_ON])
        protocol = self.protocol
        if protocol.close_expected() and (protocol.close_rcvd is not None or protocol.parser_exc is not None):
            self._leave()
        return data[PASSED_ON:]

    def _leave(self) -> None:
        """Close the connection: a server that has said its last word, or made no sense, may keep it for ever."""
        self._ended = True
        self.transport.close()
        self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def _end(self, reason: str) -> None:
        if not self._ended:
            self._ended = True
            self._refuse(reason)

    def _read(self, data: bytes) -> bytes:
        """Read frames, as many as have their turn; return what is left."""
        deliver = self._deliver
        if deliver is None:
            return data
        if self._head:
            data, self._head = self._head + data, b""
        at = 0
        if self._missing:
            at = min(self._missing, len(data))
            self._missing -= at
            self._add(data, 0, at)
        for _ in range(FRAMES_IN_A_TURN):
            if at == len(data) or self._ended:
                return b""
            kind, start, size = _frame(data, at)
            end = start + size
            if kind == WHOLE and end <= len(data) and size <= self._largest and not self._begun:
                deliver(data[start:end])
            elif (kind == WHOLE or kind in FRAGMENTS) and self._belongs(kind, size):
                self._last = kind & LAST != 0
                self._missing = max(end - len(data), 0)
                self._add(data, start, end)
            elif kind == UNKNOWN or (kind in CONTROLS and size <= SHORT and end > len(data)):
                self._head = data[at:]
                return b""
            elif kind in CONTROLS and size <= SHORT:
                self._take_control(data[at:end])
            elif kind in TEXTS:
                self._end("it sent text where a binary message belongs")
            elif not self._ended:
                self._refused = True
                return self._pass_on(data[at:])
            at = min(end, len(data))
        return data[at:]

    def _take_control(self, frame: bytes) -> None:
        self._controls += 1
        if self._controls > MOST_CONTROLS:
            if self.loop.time() < self._counted_at + 1:
                self._end("it sends pings or pongs without end")
                return
            self._controls, self._counted_at = 0, self.loop.time()
        self._pass_on(frame)

    def _belongs(self, kind: int, size: int) -> bool:
        """Whether a frame of a message is what may come now; what the library refuses is not, either."""
        if self._begun is not (kind in (MORE, LAST)):
            if self._begun:
                self._end("it began a message before the end of the one before")
            return False
        if self._size + size > self._largest:
            if self._begun:
                self._end(f"the reply is larger than Limits.max_reply_bytes ({self._largest})")
            return False
        self._size += size
        self._fragments += 1
        if self._fragments > MOST_FRAGMENTS + self._size // FRAGMENT_BYTES:
            self._end("it sends a message in more pieces than any server does")
            return False
        return True

    def _add(self, data: bytes, start: int, end: int) -> None:
        """Take bytes of a message, and hand it over when it is whole."""
        large = end - start > PASSED_ON
        self._pieces.append(memoryview(data)[start:end] if large else data[start:end])
        if self._missing:
            return
        self._begun = not self._last
        if self._last:
            pieces, self._pieces, self._size, self._fragments = self._pieces, [], 0, 0
            assert self._deliver is not None
            self._deliver(b"".join(pieces))


def _frame(data: bytes, at: int) -> tuple[int, int, int]:
    """Return a frame's first byte, where its payload begins and its size."""
    if at + 1 == len(data):
        return UNKNOWN, at, 0
    size = data[at + 1]
    if size <= SHORT:
        return data[at], at + 2, size
    if size > SHORT + 2:
        return MASKED, at, size
    start = at + (4 if size == SHORT + 1 else 10)
    if start > len(data):
        return UNKNOWN, at, 0
    return data[at], start, int.from_bytes(data[at + 2 : start])
