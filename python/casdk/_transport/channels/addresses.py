"""Sockets to a host that may have several addresses, some of which may not answer; each `Connector` has `Addresses`."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from typing import Any, Final, TypeAlias

from casdk._transport.channels.base import PING_SECONDS, PONG_SECONDS

__all__ = ["PROXY_PORT", "Address", "Addresses"]

Address: TypeAlias = "tuple[Any, ...]"
"""The address of a socket, as `socket.getaddrinfo` returns it."""

PROXY_PORT: Final = 80
"""The port of a proxy whose URL names none."""
KEEPALIVE_OPTIONS: Final = {"TCP_KEEPIDLE": PING_SECONDS, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": PONG_SECONDS}
"""Options by which the system checks an idle connection, if it has them: HTTP/1.1 has no ping of its own."""


class Addresses:
    """The addresses of the hosts that a channel connects to: its server's, or its proxy's.

    They are tried one after the other. Each gets an equal share of the time that is left, so that one that does not
    answer leaves time for the next; and the one that failed last is tried last the next time. (asyncio's own race of
    addresses, RFC 8305, leaks a socket when it is cancelled.)
    """

    def __init__(self) -> None:
        self._failed_at: dict[Address, float] = {}

    async def connect(self, host: str, port: int, seconds: float) -> tuple[socket.socket, Address]:
        """Return a socket that is connected and does not block, and the address that it is connected to.

        Args:
            host: Name or address.
            port: Its port.
            seconds: The timeout of the look-up and all addresses together.

        Raises:
            TimeoutError: No address answered in time.
            OSError: There is no address, or they failed.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        async with asyncio.timeout_at(end):
            found = _numeric(host, port) or await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        untried = list(dict.fromkeys((family, kind, protocol, to) for family, kind, protocol, _, to in found))
        untried.sort(key=lambda entry: self._failed_at.get(entry[3], 0.0))
        failures: list[OSError] = []
        while untried:
            share = (end - loop.time()) / len(untried)
            family, kind, protocol, address = untried.pop(0)
            try:
                return await _connected(socket.socket(family, kind, protocol), address, share), address
            except OSError as error:
                self.avoid(address)
                failures.append(error)
        if all(isinstance(error, TimeoutError) for error in failures):
            raise TimeoutError
        if len(failures) == 1:
            raise failures[0]
        raise OSError("; ".join(str(error) for error in failures))

    def avoid(self, address: Address) -> None:
        """Try an address last next time, since it could not be connected to."""
        self._failed_at[address] = asyncio.get_running_loop().time()


def _numeric(host: str, port: int) -> list[tuple[Any, ...]]:
    """Return the entries of a literal address; none for a name, which needs a look-up that may block."""
    with contextlib.suppress(socket.gaierror):
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    return []


async def _connected(sock: socket.socket, address: Address, seconds: float) -> socket.socket:
    """Connect a socket, or close it.

    Raises:
        TimeoutError: It was not connected in time; the message names the address.
        OSError: It could not be connected.
    """
    loop = asyncio.get_running_loop()
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE_OPTIONS.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), math.ceil(value))
        async with asyncio.timeout(seconds):
            await loop.sock_connect(sock, address)
        return sock
    except BaseException as error:
        # Removed at once: asyncio does it a turn later, when the same descriptor may belong to another socket.
        loop.remove_writer(sock)
        sock.close()
        if isinstance(error, TimeoutError) and not error.errno:
            raise TimeoutError(f"{address[0]} did not answer within {seconds:.2g} s") from None
        raise
