"""httpcore's network on asyncio itself: anyio, which it uses otherwise, costs more than all the rest of a request."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, cast

import httpcore

from casdk._transport.channels.addresses import Addresses
from casdk._transport.channels.base import slices

__all__ = ["Network"]

WRITE_BUFFER_BYTES: Final = 64 * 1024
"""Writes of fewer bytes wait for the next one, so that a request's head and its body are sent in one system call."""
BEGINNING: Final = b"HTTP/"
"""First bytes of every reply of HTTP/1.1."""
SHOWN_BYTES: Final = 40
"""Bytes that are shown of a reply that is not HTTP."""
FINAL: Final = re.compile(rb"HTTP/1\.\d [2-9]")
"""Beginning of a reply that is no interim one (status 1xx), of which a server may send any number before it."""
INTERIM_BYTES: Final = 2 * 1024
"""Bytes read in one turn of the loop as long as interim replies come."""
READ_AHEAD_BYTES: Final = 1024 * 1024
"""Reading pauses when more bytes than this were received that nobody has read yet."""


class Network(httpcore.AsyncNetworkBackend):
    """Opens connections for httpcore; each `HttpChannel` has one.

    Args:
        connected: Called when a connection is open, its TLS handshake included.
        tls: Whether there is a TLS handshake.
    """

    def __init__(self, connected: Callable[[], None], tls: bool) -> None:
        self._connected = connected
        self._tls = tls
        self._addresses = Addresses()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Stream:
        """Open a connection; the last two arguments are never used."""
        assert timeout is not None  # the channel always sets one
        try:
            sock, address = await self._addresses.connect(host, port, timeout)
            _, stream = await asyncio.get_running_loop().create_connection(
                lambda: Stream(self._connected, partial(self._addresses.avoid, address)), sock=sock
            )
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        if not self._tls:
            self._connected()
        return stream


class Stream(httpcore.AsyncNetworkStream, asyncio.Protocol):
    """One connection. Reading and writing have no time limit here: the channel limits the whole exchange.

    Args:
        connected: Called when its TLS handshake is done.
        failed: Called when that failed.
    """

    def __init__(self, connected: Callable[[], None], failed: Callable[[], None]) -> None:
        self._connected = connected
        self._failed = failed
        self._transport = cast(asyncio.Transport, None)
        self._pieces: deque[bytes] = deque()
        self._ahead = 0
        self._unsent: list[bytes] = []
        self._ended = False
        self._error: Exception | None = None
        self._beginning = b""
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._full = False
        # Whether the next bytes begin a reply, and whether they began it with others than the final one.
        self._asked = self._interim = False

    # called by httpcore

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has come, as much as there is; nothing at the end."""
        self._flush()
        if not self._pieces and not self._ended:
            self._readable = asyncio.get_running_loop().create_future()
            await self._readable
        if self._interim and self._pieces:  # httpcore would skip any number of interim replies in one turn of the loop
            await asyncio.sleep(0)
        if self._pieces:
            piece = self._pieces.popleft()
            if self._asked:
                self._asked, self._interim = False, FINAL.match(piece) is None
            if self._interim and len(piece) > INTERIM_BYTES:
                self._pieces.appendleft(piece[INTERIM_BYTES:])
                piece = piece[:INTERIM_BYTES]
            self._ahead -= len(piece)
            if not self._pieces:
                self._transport.resume_reading()
            return piece
        if isinstance(self._error, httpcore.RemoteProtocolError):
            raise self._error
        if self._error is not None:
            raise httpcore.ReadError(str(self._error)) from self._error
        return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send the bytes. Few bytes wait for the next write, or for a read, and are sent with it.

        Raises:
            httpcore.WriteError: The connection is closed, or the server has answered in the middle of it: what is left
                need not be sent, and httpcore goes on to the answer.
        """
        self._check_open()
        self._asked = True
        if len(buffer) < WRITE_BUFFER_BYTES:
            self._unsent.append(buffer)
            return
        self._flush()
        # In slices, since asyncio copies what the socket does not take at once.
        for piece in slices(buffer):
            self._check_open()
            if self._pieces:
                raise httpcore.WriteError("the request was answered before all of it was sent")
            self._transport.write(piece)
            if self._full and not self._pieces:
                self._writable = asyncio.get_running_loop().create_future()
                await self._writable

    def _check_open(self) -> None:
        if self._ended or self._transport.is_closing():  # after a failed write, `connection_lost` comes a turn later
            raise httpcore.WriteError("the connection is closed")

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent:
            self._transport.writelines(unsent)

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Stream:
        """Make it a secure one."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                secure = await loop.start_tls(self._transport, self, ssl_context, server_hostname=server_hostname)
        except TimeoutError as error:
            self._failed()
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:  # ssl.SSLError is one
            self._failed()
            raise httpcore.ConnectError(str(error) or "EOF in the TLS handshake") from error
        assert secure is not None
        self._transport = secure
        self._connected()
        return self

    async def aclose(self) -> None:
        """Close it, without waiting for the server to close its end."""
        self._transport.close()
        await asyncio.sleep(0)
        self._transport.abort()

    def get_extra_info(self, info: str) -> Any:
        """Return a property of the connection that httpcore asks for."""
        if info == "is_readable":  # while idle: the server has closed it
            return self._ended or bool(self._pieces)
        return self._transport.get_extra_info(info)

    # called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        if len(self._beginning) < len(BEGINNING) and not self._begins(data):
            # Refused here, since h11 would wait for the end of a head, which other protocols do not send.
            self._ended = True
            self._error = httpcore.RemoteProtocolError(f"illegal status line: {data[:SHOWN_BYTES]!r}")
        else:
            self._pieces.append(data)
            self._ahead += len(data)
            if self._ahead > READ_AHEAD_BYTES:
                self._transport.pause_reading()
        _wake(self._readable)
        _wake(self._writable)

    def _begins(self, data: bytes) -> bool:
        """Whether these may be the first bytes of HTTP/1.1, or more of them."""
        self._beginning += data[: len(BEGINNING) - len(self._beginning)]
        return BEGINNING.startswith(self._beginning)

    def eof_received(self) -> None:
        """Take the end; asyncio closes the transport."""
        self._ended = True
        _wake(self._readable)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end, and what was the reason."""
        self._ended, self._error = True, exc
        self._full = False
        _wake(self._readable)
        _wake(self._writable)

    def pause_writing(self) -> None:
        """Note that the write buffer is full, so that `write` waits."""
        self._full = True

    def resume_writing(self) -> None:
        """Note that the write buffer has room, and let `write` go on."""
        self._full = False
        _wake(self._writable)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
