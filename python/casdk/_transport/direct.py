"""When a transport has a direct connection, and which thread uses it.

A call that the engine runs wakes four threads: the engine, the server's, the engine again, and the caller's. On a
direct connection the caller's thread itself sends the request and receives the reply, which wakes two.
`casdk._calls.direct` decides which calls go there.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Final

from casdk._engine.logging import logger_of
from casdk._engine.process import engine

if TYPE_CHECKING:
    from casdk._transport.channels.http2_direct import DirectConnection

__all__ = ["HAS_POLL", "QUICK_CALLS", "QUICK_SECONDS", "Direct"]

HAS_POLL: Final = hasattr(select, "poll")
"""Whether the system lets a thread wait for one socket, whatever its descriptor's number."""
LOG: Final = logger_of("casdk.connections")

QUICK_SECONDS: Final = 0.002
"""The direct way saves about 0.1 ms. It is for servers that answer within this time, so that it saves a twentieth."""
QUICK_CALLS: Final = 32
"""So many quick calls in a row show that a client makes many short calls. To open a connection costs no more than is
saved in so many calls."""
SLOW_CALLS: Final = 4
"""So many slow calls in a row show that a server is not quick any more; a single one says nothing."""
IDLE_SECONDS: Final = 5.0
"""A direct connection that was not used for so long is closed: while it is not used, nobody answers the server's pings,
which come every ten seconds or less often."""


class Direct:
    """The direct connection of one transport, if there is one.

    It is one connection, so that as many threads as there are cores cannot fill the server with them. A thread that
    finds it in use takes the ordinary way. So nothing here waits: not a signal's handler that encodes, nor a fork.

    The calling threads run `find`, `give_back` and `ask_for_connection`, and the engine everything else.

    Args:
        open_one: Opens a connection, on the engine; returns ``None`` if there can be none now.
        release: Called when the connection that ``open_one`` has opened is not in use any more.

    Attributes:
        free: The connection, while no thread uses it. To take it out is one step, which nothing can interrupt.
        quick_calls: Quick calls in a row on the ordinary way.
    """

    def __init__(
        self, open_one: Callable[[], Awaitable[DirectConnection | None]], release: Callable[[], object]
    ) -> None:
        self._open_one = open_one
        self._release = release
        self._connection: DirectConnection | None = None
        """The latest one, whoever uses it: a forked child has to close it, and `_look` one that nobody closes."""
        self.free: Final[deque[DirectConnection]] = deque()
        self.quick_calls = self._slow_calls = 0
        self._opening: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # called by the calling threads

    def find(self) -> DirectConnection | None:
        """Return the connection, which is the calling thread's until it gives it back; ``None`` if it is not free."""
        try:
            return self.free.pop()
        except IndexError:
            return None

    def give_back(self, connection: DirectConnection, took: float) -> None:
        """Take the connection back, and close it if it cannot be used again, or does not pay.

        Args:
            connection: The connection.
            took: How long its request took, in seconds.
        """
        self._slow_calls = self._slow_calls + 1 if took > QUICK_SECONDS else 0
        if self._slow_calls >= SLOW_CALLS:
            self._slow_calls = 0
            connection.is_left = True
        if not connection.is_usable:
            connection.close()
            return
        self.free.append(connection)
        if connection.is_left:  # the engine has given it up in this moment, when it was not free yet
            self._close_free()

    def ask_for_connection(self) -> None:
        """Have the engine open a connection, unless there is one, or it opens one already."""
        self.quick_calls = 0
        engine().post(self._begin_opening)

    def _close_free(self) -> None:
        connection = self.find()
        if connection is not None:
            connection.close()

    # called on the engine

    def _begin_opening(self) -> None:
        if self._opening is None and self._timer is None:
            self._opening = asyncio.get_running_loop().create_task(self._open(), name="casdk")

    async def _open(self) -> None:
        try:
            connection = await self._open_one()
            if connection is not None:
                self._connection = connection
                self._timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._look)
                self.free.append(connection)
        except OSError as error:
            LOG.info("calls go on by the engine, since no further connection was opened: %s", error)
        finally:
            self._opening = None

    def _look(self) -> None:
        """Close the connection if it was not used lately; once it is closed, another one may be opened."""
        connection, self._timer = self._connection, None
        assert connection is not None
        seconds = IDLE_SECONDS - (monotonic() - connection.used_at)
        if seconds <= 0 and not connection.is_closed:
            # Ctrl-C may have ended the thread that was about to use it, or about to close it.
            (connection.close if connection.is_left else self._give_up)()
        if connection.is_closed:
            self._release()
        else:
            seconds = seconds if seconds > 0 else IDLE_SECONDS
            self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _give_up(self, *, cut: bool = True) -> None:
        """Close the connection; or let the thread close it that uses it, whose wait is ended if it is to be cut."""
        connection = self._connection
        assert connection is not None
        connection.is_left = True
        self._close_free()
        if cut and not connection.is_closed:
            connection.shut_down()

    async def aclose(self, *, cut: bool) -> None:
        """Close the connection.

        Args:
            cut: Whether it is also ended while a thread uses it, as when the client is closed. Otherwise that thread
                still gets its reply, as before a fork.
        """
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        connection = self._connection
        if connection is not None and not connection.is_closed:
            self._give_up(cut=cut)
        if self._timer is not None and connection is not None and connection.is_closed:
            self._timer.cancel()
            self._timer = None
            self._release()

    def after_fork_in_child(self) -> None:
        """Close the parent's connection in a forked child, without a word to the server: the parent goes on with it."""
        if self._connection is not None and not self._connection.is_closed:
            self._connection.close()
