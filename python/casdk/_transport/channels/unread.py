"""The bytes that a broken connection has received and asyncio has not read; all of our protocols read them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

__all__ = ["unread_bytes"]

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
