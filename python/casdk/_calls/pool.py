"""The servers of a pool: a transport for each, the choice among them for each request, and the look-up of their names.

A session of several servers has a `PooledWay`, which its calls use as their `Way`; all of it runs on the engine.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Coroutine
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Final

import msgspec

from casdk._calls.batches import Request
from casdk._calls.choice import Choice, PoolState, ServerRecord
from casdk._calls.hedging import Hedging
from casdk._calls.outages import ServerState
from casdk._calls.pace import Pace
from casdk._calls.ways import Way, log_rate, status_of
from casdk._engine.logging import logger_of
from casdk._transport.address import Endpoint
from casdk._transport.connecting import ascii_host
from casdk._transport.transport import Transport
from casdk.errors import CasdkError, DeadlineError, OverloadedError, ServerError, TransportError

if TYPE_CHECKING:
    from casdk._calls.settings import Settings
    from casdk._engine.loop import Engine
    from casdk._rust import Codec
    from casdk.servers import Server, ServerStatus

__all__ = ["Member", "PooledWay", "make_transport"]

LOG: Final = logger_of("casdk.connections")

STALE_RATIO: Final = 2.0
"""Names whose look-up is older than so many times `Pool.resolve_seconds`, since there were no calls meanwhile, are
looked up again before the next request is sent."""
DRY_RUN_SECONDS: Final = 5.0
"""How long a server that was away has to answer a dry run, connecting included."""
LATE_SECONDS: Final = 0.05
"""A request that fails so shortly before the caller's own deadline, or after it, is not a fault of its server."""


def make_transport(settings: Settings, server: Server, found: Endpoint | None = None) -> Transport:
    """Return the transport to a server, or to one address of its name.

    Args:
        settings: The client's settings.
        server: The server, as the caller described it.
        found: The endpoint of one address, if the server's name was looked up.
    """
    endpoint = found or server.endpoint
    tls = server.tls or settings.tls
    if endpoint.name is not None and tls.server_name is None:
        tls = msgspec.structs.replace(tls, server_name=endpoint.name)
    credential: Any = settings.credential if server.credential is None else server.credential
    return Transport(endpoint, credential, tls, settings.timeouts, settings.limits, settings.proxy, settings.transport)


class Member(msgspec.Struct, eq=False):
    """One server of a pool.

    Attributes:
        server: The server, or its name, as the caller described it.
        transport: The way to the server.
        record: What is known about the server.
    """

    server: Server
    transport: Transport
    record: ServerRecord


class PooledWay(Way):
    """The way to the servers of a pool.

    Args:
        settings: The client's settings.

    Attributes:
        members: The servers.
        engine: The engine that their connections are on, once there are any.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.members = [self.make_member(server) for server in settings.servers]
        self.engine: Engine | None = None
        codecs: tuple[Codec, ...] = tuple({member.record.codec: None for member in self.members})
        super().__init__(None, codecs, ServerState(), settings.address)
        self.is_fixed = not settings.pool.resolve
        self._open(answered=False)

    def _open(self, *, answered: bool) -> None:
        """Make the objects that belong to one process."""
        self._choice = Choice([member.record for member in self.members])
        self.state = PoolState(self._choice, answered)
        self.open_until = -inf if self._settings.pool.resolve else inf
        hedge = self._settings.pool.hedge
        self.hedging = Hedging(hedge) if hedge else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking_up: asyncio.Task[None] | None = None
        self._look_up_at = inf

    def make_member(self, server: Server, found: Endpoint | None = None) -> Member:
        """Return a member for a server, without adding it to the pool.

        Args:
            server: The server, as the caller described it.
            found: The endpoint of one address, if the server's name was looked up.
        """
        transport = make_transport(self._settings, server, found)
        pace = Pace(server.requests_per_second, server.items_per_second)
        return Member(server, transport, ServerRecord(weight=server.weight, pace=pace, codec=transport.codec))

    def _member_at(self, record: ServerRecord) -> Member:
        return next(member for member in self.members if member.record is record)

    @property
    def transports(self) -> list[Transport]:
        """The ways to all servers."""
        return [member.transport for member in self.members]

    def statuses(self) -> list[ServerStatus]:
        """Return what is known of each server; from any thread."""
        members = tuple(self.members)
        chosen = sum(member.record.chosen for member in members) or 1
        return [status_of(member.transport, member.record.state, member.record.chosen / chosen) for member in members]

    # Where a request goes, and what became of it

    def transport_for(self, request: Request, size: int) -> Transport | None:
        """Return the transport of a request that has been written, and note that it goes there; see `Way`."""
        now, choice, batch = asyncio.get_running_loop().time(), self._choice, request.batch
        for due in choice.due(now):
            self._begin(self._ask(self._member_at(due)))
        if now >= self._look_up_at:
            self._begin_look_up()
        record = choice.next(now, size, batch.failed_at)
        if record.codec != request.codec:
            # The best server may have changed since this request was written in another one's form.
            if not choice.is_ready(now, request.codec):
                self.codec = record.codec
                return None
            record = choice.next(now, size, batch.failed_at, request.codec)
        request.assignment = choice.send(record, now, size, len(batch))
        request.send_at = request.assignment.began if request.assignment.began > now else None
        if len(self.codecs) > 1:
            self.codec = choice.next(now, size).codec
        return self._member_at(record).transport

    def hedge_for(self, request: Request, size: int) -> Request | None:
        """Return a second request with the same batch for another server, and note that it goes there; see `Way`."""
        hedging, assignment, now = self.hedging, request.assignment, asyncio.get_running_loop().time()
        if hedging is None or not hedging.may_hedge or assignment is None:
            return None
        record = self._choice.second(now, size, assignment)
        if record is None or size > (transport := self._member_at(record).transport).largest:
            return None
        hedging.hedge()
        own = self._choice.send(record, now, size, len(request.batch))
        first, seconds = self._member_at(assignment.record).transport.endpoint, now - assignment.began
        LOG.debug("%s has not answered for %.3f s: %s is asked, too", first, seconds, transport.endpoint)
        return Request(request.batch, request.id, transport, request.codec, own)

    def answered(self, request: Request) -> None:
        """Note that a request was answered, by a reply that is no error."""
        self._answered(request, learn=True)

    def failed(self, request: Request, error: CasdkError, answer_by: float | None) -> None:
        """Note that a request failed, and leave its server out if that is the server's fault.

        Args:
            request: The request.
            error: Why it failed.
            answer_by: The deadline of the call that waited for it, in the engine's time.
        """
        super().failed(request, error, answer_by)
        assignment, now = request.assignment, asyncio.get_running_loop().time()
        if assignment is None:
            return
        record = request.batch.failed_at = assignment.record
        if isinstance(error, OverloadedError):
            request.assignment, before = None, record.pace.allowance.rate
            self._choice.refuse(assignment, now, error.retry_after or 0.0)
            log_rate(error.server, before, record.pace.allowance.rate)
        elif isinstance(error, ServerError):
            self._answered(request, learn=False)
        elif (
            not isinstance(error, TransportError | DeadlineError)
            or getattr(error, "blameless", False)
            or (answer_by is not None and now >= answer_by - LATE_SECONDS)
        ):
            self.leave(request)
        else:
            request.assignment = None
            seconds = self._choice.fail(assignment, now, getattr(error, "retry_after", None) or 0.0)
            if seconds is not None:
                where = self._member_at(record).transport.endpoint
                LOG.warning("%s is left out for %.1f s, as a request to it failed: %s", where, seconds, error)
            self._dismiss()

    def leave(self, request: Request) -> None:
        """Note that a request was taken back, if it was in flight: nobody waits for it any more."""
        assignment, request.assignment = request.assignment, None
        if assignment is not None:
            self._choice.take_back(assignment, asyncio.get_running_loop().time())
            self._dismiss()

    def _answered(self, request: Request, *, learn: bool) -> None:
        assignment, request.assignment = request.assignment, None
        assert assignment is not None
        pace = assignment.record.pace
        before = pace.allowance.rate
        if self._choice.answer(assignment, asyncio.get_running_loop().time(), learn=learn):
            LOG.info("%s is back", self._member_at(assignment.record).transport.endpoint)
        if before is not None:
            log_rate(str(self._member_at(assignment.record).transport.endpoint), before, pace.allowance.rate)
        self._dismiss()

    async def _ask(self, member: Member) -> None:
        """Ask a server that is away, by a dry run, whether it is back."""
        there, reason = False, "it did not answer a dry run in time"
        try:
            async with asyncio.timeout(DRY_RUN_SECONDS):
                status = await member.transport.dry_run()
            there = status is None or status.ok
            reason = "" if status is None else status.description
        except TimeoutError:
            pass
        except CasdkError as error:
            reason = str(error)
        if not there:
            LOG.debug("%s is still away: %s", member.transport.endpoint, reason)
        self._choice.asked(member.record, asyncio.get_running_loop().time(), there=there)

    # Names that are looked up

    async def open(self) -> None:
        """Wait until the names have been looked up."""
        await asyncio.shield(self._begin_look_up())

    def _begin_look_up(self) -> asyncio.Task[None]:
        if self._looking_up is None:
            self._looking_up = self._begin(self._look_up())
        return self._looking_up

    async def _look_up(self) -> None:
        """Look up the names, and make a server of each address; if that fails for a name, its servers stay."""
        loop, pool, found = asyncio.get_running_loop(), self._settings.pool, []
        try:
            for server in self._settings.servers:
                try:
                    found += [(server, endpoint) for endpoint in await self._addresses_of(server.endpoint)]
                except OSError as error:  # a TimeoutError is one
                    reason = str(error) or "no answer in time"
                    LOG.warning("%s cannot be looked up, so its servers stay as they are: %s", server.endpoint, reason)
                    stay = [member for member in self.members if member.server is server]
                    found += [(server, member.transport.endpoint) for member in stay]
            self._become(found)
        finally:
            self._looking_up = None
            self._look_up_at = loop.time() + pool.resolve_seconds
            self.open_until = loop.time() + STALE_RATIO * pool.resolve_seconds

    async def _addresses_of(self, endpoint: Endpoint) -> list[Endpoint]:
        """Return an endpoint for each address of a name; for a literal address, the same endpoint.

        Raises:
            OSError: The name has no address, or the look-up did not end in time.
        """
        with suppress(ValueError):
            ipaddress.ip_address(endpoint.host)
            return [endpoint]
        async with asyncio.timeout(self._settings.timeouts.connect):
            found = await asyncio.get_running_loop().getaddrinfo(
                ascii_host(endpoint.host), endpoint.port, type=socket.SOCK_STREAM
            )
        hosts = dict.fromkeys(str(address[0]) for *_, address in found)
        return [msgspec.structs.replace(endpoint, host=host, name=endpoint.host) for host in hosts]

    def _become(self, found: list[tuple[Server, Endpoint]]) -> None:
        """Make these the servers of the pool: new ones are added, and those that are gone get no more requests."""
        known = {member.transport.endpoint: member for member in self.members}
        wanted = {endpoint for _, endpoint in found}
        for server, endpoint in found:
            member = known.get(endpoint)
            if member is None:
                member = self.make_member(server, endpoint)
                member.transport.engine = self.engine
                known[endpoint] = member
                self.members.append(member)
                LOG.info("%s is one of the servers of %s", endpoint, endpoint.name or endpoint.host)
            elif member.record.state == "draining":
                member.record.state = "ready"
        for member in self.members:
            if member.transport.endpoint not in wanted and member.record.state != "draining":
                member.record.state = "draining"
                LOG.info("%s is no server of this client any more", member.transport.endpoint)
        self._choice.records = [member.record for member in self.members]
        self._dismiss()

    def _dismiss(self) -> None:
        """Close the connections of servers that get no more requests and have answered all they had."""
        if not self._settings.pool.resolve:
            return
        done = [m for m in self.members if m.record.state == "draining" and not m.record.in_flight]
        if not done or len(done) == len(self.members):
            return
        self.members = [member for member in self.members if member not in done]
        self._choice.records = [member.record for member in self.members]
        for member in done:
            member.transport.closed = True
            self._begin(member.transport.aclose())

    # Its end, and forks

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name="casdk")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """End the pool's own tasks: dry runs, look-ups and closing connections."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def after_fork_in_child(self) -> object:
        """Drop what belongs to the parent, and return it: it must never be deallocated."""
        parents: dict[str, Any] = vars(self).copy()
        self.engine = None
        for member in self.members:
            old = member.record
            member.record = ServerRecord(
                weight=old.weight, pace=old.pace, codec=old.codec, seconds_per_byte=old.seconds_per_byte
            )
        self._open(answered=self.state.answered)
        return parents
