"""An event loop in a thread of its own, for servers and proxies beside the code under test."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar
from weakref import WeakSet

__all__ = ["LoopThread", "end_socket", "listen", "reserve"]

T = TypeVar("T")

LINGER_ZERO: Final = struct.pack("ii", 1, 0)
_living: WeakSet[LoopThread] = WeakSet()
_registered = False


class LoopThread:
    """A loop that runs until `stop`.

    Attributes:
        sockets: Every socket that is open on it. A forked child closes its copies, because otherwise closing them in
            the parent would not end the connections.
        errors: Exceptions that no code caught, except those of broken connections.
    """

    def __init__(self, name: str) -> None:
        self.loop: Final = asyncio.new_event_loop()
        self.sockets: set[socket.socket] = set()
        self.errors: list[BaseException] = []
        self.loop.set_exception_handler(self._collect_error)
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()
        _watch_forks()
        _living.add(self)

    def _collect_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError | ssl.SSLError):
            self.errors.append(error or RuntimeError(context.get("message")))

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 10.0) -> T:
        """Run a coroutine on the loop and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def stop(self) -> None:
        """Cancel all tasks, end the thread and close the loop.

        Raises:
            BaseException: An exception that no code caught while the loop ran.
        """
        if self.loop.is_closed():
            return
        self.run(_cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        for sock in tuple(self.sockets):
            sock.close()
        if self.errors:
            raise self.errors[0]


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def listen(host: str = "127.0.0.1", port: int = 0, backlog: int = 1024) -> socket.socket:
    """Return a listening socket; port 0 takes a free one."""
    sock = socket.create_server((host, port), backlog=backlog)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the sockets of accepted connections inherit it
    sock.setblocking(False)
    return sock


def reserve(host: str = "127.0.0.1") -> socket.socket:
    """Return a bound socket that never listens: while it is open, its port is reserved, and refuses connections.

    `listen` can still use the port, since Linux lets several sockets bind a port as long as only one listens.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, 0))
    return sock


def end_socket(sock: Any, how: str) -> None:
    """Let the socket send RST when it is closed, or send FIN in this direction now."""
    if sock.fileno() == -1:
        return
    if how == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    else:
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the client was faster


def _watch_forks() -> None:
    global _registered
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_forget_sockets)


def _forget_sockets() -> None:
    for thread in tuple(_living):
        for sock in tuple(thread.sockets):
            sock.close()
