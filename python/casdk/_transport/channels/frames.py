"""The frames of a websocket that are read here, and not by the library (websockets), which costs more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.protocol import OPEN

__all__ = ["CLOSE_SECONDS", "Connection"]

WHOLE: Final = 0x82
"""First byte of a binary message in one frame: what nearly every reply is."""
FIRST: Final = 0x02
"""First byte of a message's first fragment, if it comes in fragments."""
MORE: Final = 0x00
"""First byte of each further fragment but the last."""
LAST: Final = 0x80
"""First byte of the last fragment."""
FRAGMENTS: Final = frozenset({FIRST, MORE, LAST})
TEXTS: Final = frozenset({0x01, 0x81})
CONTROLS: Final = frozenset({0x88, 0x89, 0x8A})
MASKED: Final = -1
"""Stands for the first byte of a masked frame, which no server may send."""
UNKNOWN: Final = -2
"""Stands for the first byte of a frame whose head has not come as a whole."""
MOST_UNREAD_BYTES: Final = 4 << 20
"""Bytes that may wait for the server to read them: requests are at most 1 MiB of it at once, so the rest is answers to
its pings."""
SHORT_BYTES: Final = 125
"""The longest payload whose length is in a frame's second byte, and the longest of a control frame."""
FRAMES_IN_A_TURN: Final = 128
"""Frames that are read in one turn of the loop."""
PASSED_ON_BYTES: Final = 2048
"""Bytes that are passed on to the library in one turn of the loop."""
TURNS_AT_THE_END: Final = 32
"""At the end of the connection, what was received and not read yet is read in at most so many turns, all at once: over
TLS, the end is reported without a wait."""
MOST_FRAGMENTS: Final = 1024
FRAGMENT_BYTES: Final = 16
"""A message has at most `MOST_FRAGMENTS` fragments, and one more for each `FRAGMENT_BYTES`: each takes memory."""
MOST_CONTROLS_PER_SECOND: Final = 1000
"""Pings and pongs that a server may send in a second."""
END_OF_HEAD: Final = b"\r\n\r\n"
CLOSE_SECONDS: Final = 1.0
"""How long a connection that is closed waits until the server has read what was written last."""


class Connection(ClientConnection):
    """A connection of the library's that reads binary messages itself and passes each on as soon as it is whole.

    The library would copy a reply five times, queue it and wake its reader: half of the cost of receiving it. Here, the
    library gets the handshake, control frames, and what it has to refuse. Whatever a server sends, the loop goes on
    with other work after `FRAMES_IN_A_TURN` frames.

    What comes after the handshake is not read before `begin` is called.

    Attributes:
        received_at: When the last bytes came, in the engine's time.
    """

    def __init__(self, *settings: Any, **options: Any) -> None:
        super().__init__(*settings, **options)
        self.received_at = self.loop.time()
        self._deliver: Callable[[bytes], None] | None = None
        self._refuse: Callable[[str], object] = str
        self._largest = 0
        # What was received and not read yet; reading from the socket is paused meanwhile.
        self._unread = b""
        self._paused = False
        self._tail = b""
        self._opened = self._refused = self._ended = False
        self._head = b""
        # The pieces of the message that is being received, and the bytes that are missing of its frame.
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
        # One that is closing has no buffer any more, if it is TLS's.
        if not self.transport.is_closing() and self.transport.get_write_buffer_size() > MOST_UNREAD_BYTES:
            self._end("it sends pings and does not read the answers")

    def _take(self, data: bytes) -> None:
        """Read what may be read in this turn of the loop, and store the rest for the next."""
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
        """Read what was received and not read yet, within limits, then pass the end on to the library."""
        for _ in range(TURNS_AT_THE_END):
            if self._unread and not self._ended:
                self._unread = self._read_some(self._unread)
        super().eof_received()

    def _read_some(self, data: bytes) -> bytes:
        """Read what may be read in one turn of the loop; return the rest."""
        if not self._opened:
            return self._shake_hands(data)
        return self._pass_on(data) if self._refused else self._read(data)

    def _shake_hands(self, data: bytes) -> bytes:
        """Pass on to the library some of the answer to the handshake, but nothing after the head if it is accepted."""
        piece = data[:PASSED_ON_BYTES]
        end = (self._tail + piece).find(END_OF_HEAD)
        if end >= 0:
            piece = piece[: end + len(END_OF_HEAD) - len(self._tail)]
        self._tail = (self._tail + piece)[1 - len(END_OF_HEAD) :]
        super().data_received(piece)
        rest = data[len(piece) :]
        self._opened = self.response is not None and self.protocol.state is OPEN
        if self.protocol.close_expected():
            self._close_soon()
        elif end >= 0 and rest and not self._opened:  # the body of a refusal
            super().data_received(rest[:PASSED_ON_BYTES])
            rest = rest[PASSED_ON_BYTES:]
            if self.protocol.close_expected():
                self._close_soon()
        return rest

    def _pass_on(self, data: bytes) -> bytes:
        """Pass on to the library some of what follows a frame that it has to refuse; it makes no messages of it."""
        super().data_received(data[:PASSED_ON_BYTES])
        protocol = self.protocol
        if protocol.close_expected() and (protocol.close_rcvd is not None or protocol.parser_exc is not None):
            self._close_soon()
        return data[PASSED_ON_BYTES:]

    def _close_soon(self) -> None:
        """Close the connection here, since a server that has ended it, or sent nonsense, may never close its end."""
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
            elif kind == UNKNOWN or (kind in CONTROLS and size <= SHORT_BYTES and end > len(data)):
                self._head = data[at:]
                return b""
            elif kind in CONTROLS and size <= SHORT_BYTES:
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
        if self._controls > MOST_CONTROLS_PER_SECOND:
            if self.loop.time() < self._counted_at + 1:
                self._end("it sends pings or pongs without end")
                return
            self._controls, self._counted_at = 0, self.loop.time()
        self._pass_on(frame)

    def _belongs(self, kind: int, size: int) -> bool:
        """Whether a frame of a message may come now; a frame that the library will refuse may not, either."""
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
        """Add bytes to a message, and deliver it when it is whole."""
        large = end - start > PASSED_ON_BYTES
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
    if size <= SHORT_BYTES:
        return data[at], at + 2, size
    if size > SHORT_BYTES + 2:
        return MASKED, at, size
    start = at + (4 if size == SHORT_BYTES + 1 else 10)
    if start > len(data):
        return UNKNOWN, at, 0
    return data[at], start, int.from_bytes(data[at + 2 : start])
