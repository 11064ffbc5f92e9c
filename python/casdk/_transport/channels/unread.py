"""What has come on a connection that broke, and was not read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

__all__ = ["unread_bytes"]

MOST_BYTES: Final = 8 << 20
"""Bytes that are read at most: Linux lets no more than 6 MiB lie unread in a socket, unless it is configured to."""
PIECE_BYTES: Final = 256 << 10
"""Bytes that are read at a time, as asyncio does."""


def unread_bytes(transport: asyncio.BaseTransport) -> Iterator[bytes]:
    """Yield what lies unread in the socket of a connection that broke; to be asked in ``connection_lost``.

    A server that refuses a request often says so, and closes its socket before it has read all of it, which resets the
    connection. If asyncio notices that as it writes, it reads no more, although the reason has come: the system keeps
    it. It closes the socket when ``connection_lost`` has returned.

    Nothing is to be had over TLS, where what lies in the socket is not decrypted: asyncio decrypts no more, and has no
    way to be asked for it.

    Args:
        transport: The connection's.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or transport.get_extra_info("ssl_object") is not None:
        return
    left = MOST_BYTES
    # An error is the end of it: why the connection broke is known, and nothing waits for more.
    with contextlib.suppress(OSError), sock.dup() as socket:
        while left > 0 and (data := socket.recv(PIECE_BYTES)):
            left -= len(data)
            yield data
