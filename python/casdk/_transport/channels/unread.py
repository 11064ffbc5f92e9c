"""The end of a connection: the bytes that a broken one has received and asyncio has not read, and who reads them."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Final

__all__ = ["ReadToTheEnd", "unread_bytes"]

MOST_BYTES: Final = 8 << 20
"""The most bytes that are read: by default, Linux holds at most 6 MiB of unread bytes in a socket."""
PIECE_BYTES: Final = 256 << 10
"""Bytes that are read at a time, as many as asyncio reads."""


def unread_bytes(transport: asyncio.BaseTransport) -> Iterator[bytes]:
    """Yield the unread bytes in the socket of a broken connection; called in ``connection_lost``.

    A server that refuses a request often sends the reason, and closes its socket before it has read all of the request,
    which resets the connection. If asyncio notices that as it writes, it does not read any more, although the system
    still has the reason. asyncio closes the socket only when ``connection_lost`` has returned.

    Over TLS this yields nothing: the bytes in the socket are encrypted, and asyncio does not decrypt them any more.

    Args:
        transport: The transport of the connection.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or transport.get_extra_info("ssl_object") is not None:
        return
    left = MOST_BYTES
    # An error of the socket ends the reading: it is known already that the connection broke.
    with contextlib.suppress(OSError), sock.dup() as socket:
        while left > 0 and (data := socket.recv(PIECE_BYTES)):
            left -= len(data)
            yield data


class ReadToTheEnd(asyncio.Protocol, ABC):
    """The base of our three protocols: what is done when a connection ends, in which order.

    An exception would leave the requests on the connection waiting, so a protocol ends them by it.
    """

    _transport: asyncio.Transport
    _full: bool
    """Whether the transport takes no more bytes."""

    @abstractmethod
    def _take_end(self, error: Exception | None) -> None:
        """End the requests on the connection, by what was received before its end; called once or twice.

        Args:
            error: What asyncio says of a connection that broke.
        """

    @abstractmethod
    def _give_up(self, error: BaseException) -> None:
        """End the connection, and its requests, for an error of our own."""

    def _note_closed(self) -> None:
        """Note that the socket is about to be closed."""

    def eof_received(self) -> None:
        """Handle the end of what is received; asyncio closes the transport."""
        try:
            self._take_end(None)
        except BaseException as error:
            self._give_up(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the end of the connection, after reading the bytes that had come before it."""
        try:
            if exc is not None:
                self._full = True  # nothing can be sent any more
                for data in unread_bytes(self._transport):
                    self.data_received(data)
            self._take_end(exc)
        except BaseException as error:
            self._give_up(error)
        finally:
            self._note_closed()
