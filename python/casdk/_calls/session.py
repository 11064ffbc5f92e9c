"""What the calls of one client share: the way to its servers, budgets, window, downloads, telemetry, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from casdk._calls.cropping import Cropping, Proofs
from casdk._calls.decisions import RetryBudget
from casdk._calls.guard import Guard
from casdk._calls.outages import ServerState
from casdk._calls.pace import Pace
from casdk._calls.pool import Member, PooledWay, make_transport
from casdk._calls.tasks import sleep_until
from casdk._calls.ways import IndexWay, Way
from casdk._calls.window import GROWN_WINDOW_REQUESTS, WINDOW_REQUESTS, WINDOW_REQUESTS_EACH, Window
from casdk._engine.forks import ConnectionOwner
from casdk._engine.logging import are_pending, emitted
from casdk._engine.loop import READER_THREADS, WORKER_THREADS, Engine
from casdk._engine.process import engine, notice_fork
from casdk._engine.steps import Steps, tasks_of
from casdk._transport.address import parse_address
from casdk._transport.downloads import Downloads
from casdk._transport.greenlets import check_greenlets
from casdk._transport.transport import Transport
from casdk.errors import ClosedError, ConfigError
from casdk.servers import Server

if TYPE_CHECKING:
    from casdk._calls.merging import Coalescer
    from casdk._calls.packing import Writing
    from casdk._calls.run import Run
    from casdk._calls.settings import Settings
    from casdk._calls.telemetry import Instruments

__all__ = ["BYTE_SHARES", "ByteBudget", "ByteShare", "Flow", "Session"]

BYTE_SHARES: Final = 8
"""Parts that the bytes in flight are divided into: no call takes more than one, so that as many calls of large images
can be under way at the same time."""


class ByteBudget:
    """Counts the bytes in flight over all calls of a client; calls that wait for room are woken when some is freed.

    Attributes:
        most: Bytes that may be in flight.
        share: Bytes that one call may have in flight.
        held: Bytes that are in flight.
        waiting: A future for each call that waits until bytes are released.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.share = most // BYTE_SHARES
        self.held = 0
        self.waiting: list[asyncio.Future[None]] = []

    async def change(self) -> None:
        """Wait until some bytes are released."""
        waiter = asyncio.get_running_loop().create_future()
        self.waiting.append(waiter)
        await waiter

    def wake(self) -> None:
        """Let the calls that wait look again, since bytes were released."""
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


class ByteShare(msgspec.Struct):
    """One call's share of the byte budget, so that requests of large images leave room for other calls.

    A channel copies what it sends, so this also limits the memory of a long run.

    Attributes:
        budget: The byte budget of the client.
        held: Bytes that this call has in flight.
    """

    budget: ByteBudget
    held: int = 0

    def is_full(self) -> bool:
        """Whether nothing more should be packed now; one message that is packed all the same may exceed the budget."""
        budget = self.budget
        return self.held >= budget.share or budget.held >= budget.most

    async def room(self) -> None:
        """Wait until a message may be packed."""
        while self.is_full():
            await self.budget.change()

    def hold(self, size: int) -> None:
        """Count bytes as in flight; a negative size takes them out again."""
        budget = self.budget
        self.held += size
        budget.held += size
        if size < 0 and budget.waiting:
            budget.wake()


class Flow:
    """What the replies have shown of the flow behind a server.

    Attributes:
        indexes: Whether it has an indexer; ``None`` before a reply has shown that.
    """

    indexes: bool | None = None


class Session(ConnectionOwner):
    """What the calls of one client share. Made with the client, opened on the engine by its first call.

    Args:
        settings: The client's settings.
        coalescer: Merges small calls, if the client wants it.
        telemetry: Records calls, if the client wants it.

    Attributes:
        way: The servers, and how each request finds its own.
        are_several: Whether the client was made for a list of servers, even if the list has one.
        sources: Where images may be read from.
        retries: How many requests may be sent again, over all calls.
        flow: What the flow behind the server can do.
        window: The window of calls without a ``prefetch`` of their own.
        window_bounds: The least and the most requests that this window may have in flight.
        pace: How fast the requests of all calls may follow each other; `wait_for_turn` waits for it.
        guard: Checks the vector space of servers; ``None`` if it does not matter.
        writings: The `Writing` of calls without parameters of their own, by all that decides about it.
        bytes: Bytes in flight, over all calls.
        packing: Held by a call that packs on a worker.
        packing_theirs: Held by a call that packs on a reader thread, since that runs the caller's code.
        downloads: Fetches images.
        cropping: Makes crops of images.
        calls: The calls under way, each with the `Steps` or the task that runs it.
        closed: Whether it takes no more calls.
    """

    def __init__(self, settings: Settings, coalescer: Coalescer | None, telemetry: Instruments | None) -> None:
        self._settings: Final = settings
        self._pool: Final = PooledWay(settings) if settings.is_pooled else None
        self._only: Final = None if self._pool else make_transport(settings, settings.servers[0])
        self._index: Final = self._open_index()
        self.are_several: Final = settings.are_several
        self.limits: Final = settings.limits
        self.retry: Final = settings.retry
        self.timeouts: Final = settings.timeouts
        self.sources: Final = settings.sources
        self.coalescer: Final = coalescer
        self.telemetry: Final = telemetry
        self.retries: Final = RetryBudget(settings.retry.budget)
        self.flow: Final = Flow()
        self.writings: Final[dict[Hashable, Writing]] = {}
        self._proofs: Final[Proofs] = {}
        limits = settings.limits
        self.pace: Final = Pace(limits.requests_per_second, limits.items_per_second)
        self._expected: Final = settings.expect_space
        least = limits.prefetch or max(WINDOW_REQUESTS, WINDOW_REQUESTS_EACH * len(settings.servers))
        self.window_bounds: Final = least, limits.prefetch or max(GROWN_WINDOW_REQUESTS, least)
        self.window: Final = Window(*self.window_bounds)
        self._open(answered=False)
        self.closed = False
        self._engine: Engine | None = None

    def _open(self, *, answered: bool) -> None:
        """Make the objects that belong to one process: locks, budgets, and all that holds tasks or connections."""
        self.way: Way = self._pool or Way.to(cast(Transport, self._only), ServerState(answered), self.pace)
        self._index_way: Way | None = None if self._pool else self.way
        if self._index is not None:
            self._index_way = IndexWay(self._index.transport, ServerState(answered), self._index.record.pace)
        self.bytes = ByteBudget(self.limits.max_inflight_bytes)
        self._turns = asyncio.Lock()
        self.guard = self._make_guard()
        self.packing = asyncio.Semaphore(WORKER_THREADS)
        self.packing_theirs = asyncio.Semaphore(READER_THREADS)
        self.downloads = Downloads(self.timeouts, self.limits)
        self.cropping = Cropping(self._proofs)
        self.calls: dict[Run, Steps | asyncio.Task[Any]] = {}

    def _make_guard(self) -> Guard | None:
        settings = self._settings
        alike = settings.pool.check_space and (len(settings.servers) > 1 or settings.pool.resolve)
        if self._expected is None and not alike:
            return None
        return Guard(self._expected, alike=alike, wait_for_turn=self._wait_for_turn_at)

    def _open_index(self) -> Member | None:
        """Return the server that has the index, if there are several servers and `Pool.index_on` names one."""
        address = self._settings.pool.index_on
        if self._pool is None or address is None:
            return None
        endpoint, servers = parse_address(address), self._settings.servers
        for member in self._pool.members:
            if member.transport.endpoint == endpoint and not self._settings.pool.resolve:
                return member
        known = (server for server in servers if server.endpoint == endpoint)
        return self._pool.make_member(next(known, Server(address)))

    @property
    def transports(self) -> list[Transport]:
        """The ways to all servers."""
        transports, index = self.way.transports, self._index
        return transports if index is None or index.transport in transports else [*transports, index.transport]

    def way_to_index(self) -> Way:
        """Return how requests find the server that has the index.

        Raises:
            ConfigError: There are several servers, and `Pool.index_on` names none of them.
        """
        if self._index_way is None:
            raise ConfigError(
                "an index lives on one server: to index or search, say which by "
                'Client([...], pool=Pool(index_on="ADDRESS")), or at the prompt by --index-on ADDRESS'
            )
        return self._index_way

    def enter(self, run: Run) -> None:
        """Note that a call is under way, and on which engine: in a forked child it is another one than before.

        Raises:
            ClosedError: The client is closed.
        """
        engine, runner = run.caller.engine, run.caller.runner
        if self.closed:
            raise ClosedError("the client is closed")
        if self._engine is not engine:
            # Checked again: a library may have patched the threads since the client was made.
            for transport in self.transports:
                check_greenlets(transport.endpoint, transport.protocols)
            self._engine = engine
            for transport in self.transports:
                transport.engine = engine
            if self._pool is not None:
                self._pool.engine = engine
            engine.owners.add(self)
        # A merged request has a task of its own, since its caller is only one of several.
        self.calls[run] = runner if isinstance(runner, Steps) else cast("asyncio.Task[Any]", asyncio.current_task())

    async def wait_for_turn(self, items: int) -> None:
        """Wait until the pace lets a request be sent; requests that wait are sent in the order in which they came.

        Args:
            items: How many items the request has.
        """
        now = asyncio.get_running_loop().time
        async with self._turns:
            while (seconds := self.pace.next_at - now()) > 0:  # noqa: ASYNC110 - time is waited for
                await asyncio.sleep(seconds)
            self.pace.send(now(), items)

    async def _wait_for_turn_at(self, transport: Transport, items: int) -> None:
        """Wait until the client's pace, and that of a server of a pool, let a request be sent there."""
        if self.pace.slows:
            await self.wait_for_turn(items)
        members = [] if self._pool is None else [*self._pool.members, *filter(None, [self._index])]
        for member in members:
            if member.transport is transport and member.record.pace.slows:
                await sleep_until(member.record.pace.take_turn(asyncio.get_running_loop().time(), items))
                return

    @property
    def opened(self) -> bool:
        """Whether this process has, or had, connections of this session."""
        notice_fork()
        return not self.closed and self._engine is not None

    async def aclose(self) -> None:
        """Cancel every call and close every connection; return when the calls have ended, too."""
        self.closed = True
        for transport in self.transports:
            transport.closed = True
        calls = tuple(self.calls.values())
        for call in calls:
            if not call.cancelling():  # a second cancellation would interrupt its clean-up
                call.cancel()
        await self.way.aclose()
        for transport in self.transports:
            await transport.aclose()
        await self.downloads.aclose()
        if tasks := tasks_of(calls):
            await asyncio.wait(tasks)
        if are_pending():
            await emitted()

    def leave(self) -> None:
        """Close the session of a client that was dropped without being closed; the garbage collector may run this."""
        if self.opened:
            running = engine()
            running.post(lambda: running.loop.create_task(self.aclose()))

    async def before_fork(self) -> None:
        for transport in self.transports:
            await transport.before_fork()
        await self.downloads.aclose()

    def after_fork_in_child(self) -> object:
        parents = vars(self).copy()
        if self.coalescer is not None:
            parents["queues"] = self.coalescer.after_fork_in_child()
        parents["transports'"] = [transport.after_fork_in_child() for transport in self.transports]
        answered = self.way.state.answered
        if self._pool is not None:
            parents["pool's"] = self._pool.after_fork_in_child()
        self._engine = None
        self._open(answered=answered)
        return parents
