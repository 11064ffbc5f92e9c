"""The servers of a pool: a transport for each, the one place that chooses among them, and their names looked up."""

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
from casdk._calls.choice import Choice, Place, PoolState
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
"""Names that were looked up so many times `Pool.resolve_seconds` ago, as there were no calls since, are looked up again
before the next request is sent."""
DRY_RUN_SECONDS: Final = 5.0
"""How long a server that was away has to answer a dry run, the connection included."""
LATE_SECONDS: Final = 0.05
"""What fails so shortly before the caller's own deadline, or after it, is not its server's fault."""


def make_transport(settings: Settings, server: Server, found: Endpoint | None = None) -> Transport:
    """Return the way to a server, or to one address of its name.

    Args:
        settings: What the client was made with.
        server: What it was told of the server.
        found: Where it is, if its name was looked up.
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
        server: What the client was told of it, or of its name.
        transport: The way to it.
        place: What is known of it.
    """

    server: Server
    transport: Transport
    place: Place


class PooledWay(Way):
    """The servers of a pool, to which the requests of calls go. Used on the engine.

    Args:
        settings: What the client was made with.

    Attributes:
        members: The servers.
        engine: The engine that their connections are on, once there are any.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.members = [self.make_member(server) for server in settings.servers]
        self.engine: Engine | None = None
        codecs: tuple[Codec, ...] = tuple({member.place.codec: None for member in self.members})
        super().__init__(None, codecs, ServerState(), settings.address)
        self.is_fixed = not settings.pool.resolve
        self._open(answered=False)

    def _open(self, *, answered: bool) -> None:
        """Make what belongs to one process."""
        self._choice = Choice([member.place for member in self.members])
        self.state = PoolState(self._choice, answered)
        self.open_until = -inf if self._settings.pool.resolve else inf
        hedge = self._settings.pool.hedge
        self.hedging = Hedging(hedge) if hedge else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking_up: asyncio.Task[None] | None = None
        self._look_up_at = inf

    def make_member(self, server: Server, found: Endpoint | None = None) -> Member:
        """Return a server, which is not one of the pool by that.

        Args:
            server: How the caller described it to the client.
            found: Where it is, if its name was looked up.
        """
        transport = make_transport(self._settings, server, found)
        pace = Pace(server.requests_per_second, server.items_per_second)
        return Member(server, transport, Place(weight=server.weight, pace=pace, codec=transport.codec))

    def _member_at(self, place: Place) -> Member:
        return next(member for member in self.members if member.place is place)

    @property
    def transports(self) -> list[Transport]:
        """The ways to all servers."""
        return [member.transport for member in self.members]

    def statuses(self) -> list[ServerStatus]:
        """Return what is known of each server; from any thread."""
        members = tuple(self.members)
        chosen = sum(member.place.chosen for member in members) or 1
        return [status_of(member.transport, member.place.state, member.place.chosen / chosen) for member in members]

    # Where a request goes, and what became of it

    def transport_for(self, request: Request, size: int) -> Transport | None:
        """Return where a request goes that has been written, and note that it goes there; see `Way`."""
        now, choice, batch = asyncio.get_running_loop().time(), self._choice, request.batch
        for due in choice.due(now):
            self._begin(self._ask(self._member_at(due)))
        if now >= self._look_up_at:
            self._begin_look_up()
        place = choice.next(now, size, batch.failed_at)
        if place.codec != request.codec:
            # Other requests may have changed what is best since this one was written.
            if not choice.is_ready(now, request.codec):
                self.codec = place.codec
                return None
            place = choice.next(now, size, batch.failed_at, request.codec)
        request.assignment = choice.send(place, now, size, len(batch))
        request.send_at = request.assignment.began if request.assignment.began > now else None
        if len(self.codecs) > 1:
            self.codec = choice.next(now, size).codec
        return self._member_at(place).transport

    def hedge_for(self, request: Request, size: int) -> Request | None:
        """Return a request that is sent to a second server as well, and note that it goes there; see `Way`."""
        hedging, assignment, now = self.hedging, request.assignment, asyncio.get_running_loop().time()
        if hedging is None or not hedging.may_hedge or assignment is None:
            return None
        place = self._choice.second(now, size, assignment)
        if place is None or size > (transport := self._member_at(place).transport).largest:
            return None
        hedging.hedge()
        own = self._choice.send(place, now, size, len(request.batch))
        first, seconds = self._member_at(assignment.place).transport.endpoint, now - assignment.began
        LOG.debug("%s has not answered for %.3f s: %s is asked, too", first, seconds, transport.endpoint)
        return Request(request.batch, request.id, transport, request.codec, own)

    def answered(self, request: Request) -> None:
        """A request was answered by a reply that is none of an error."""
        self._answered(request, learn=True)

    def failed(self, request: Request, error: CasdkError, answer_by: float | None) -> None:
        """A request failed: leave its server out if that is its fault.

        Args:
            request: The request.
            error: Why.
            answer_by: When whoever waited for it gave up, in the engine's time.
        """
        super().failed(request, error, answer_by)
        assignment, now = request.assignment, asyncio.get_running_loop().time()
        if assignment is None:
            return
        place = request.batch.failed_at = assignment.place
        if isinstance(error, OverloadedError):
            request.assignment, before = None, place.pace.allowance.rate
            self._choice.refuse(assignment, now, error.retry_after or 0.0)
            log_rate(error.server, before, place.pace.allowance.rate)
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
                where = self._member_at(place).transport.endpoint
                LOG.warning("%s is left out for %.1f s, as a request to it failed: %s", where, seconds, error)
            self._dismiss()

    def leave(self, request: Request) -> None:
        """A request was taken back, if it was still on its way: nobody waits for it any more."""
        assignment, request.assignment = request.assignment, None
        if assignment is not None:
            self._choice.take_back(assignment, asyncio.get_running_loop().time())
            self._dismiss()

    def _answered(self, request: Request, *, learn: bool) -> None:
        assignment, request.assignment = request.assignment, None
        assert assignment is not None
        pace = assignment.place.pace
        before = pace.allowance.rate
        if self._choice.answer(assignment, asyncio.get_running_loop().time(), learn=learn):
            LOG.info("%s is back", self._member_at(assignment.place).transport.endpoint)
        if before is not None:
            log_rate(str(self._member_at(assignment.place).transport.endpoint), before, pace.allowance.rate)
        self._dismiss()

    async def _ask(self, member: Member) -> None:
        """Ask a server that is away by a dry run whether it is there again."""
        there, said = False, "it did not answer a dry run in time"
        try:
            async with asyncio.timeout(DRY_RUN_SECONDS):
                status = await member.transport.dry_run()
            there = status is None or status.ok
            said = "" if status is None else status.description
        except TimeoutError:
            pass
        except CasdkError as error:
            said = str(error)
        if not there:
            LOG.debug("%s is still away: %s", member.transport.endpoint, said)
        self._choice.asked(member.place, asyncio.get_running_loop().time(), there=there)

    # Names that are looked up

    async def open(self) -> None:
        """Wait until the names have been looked up."""
        await asyncio.shield(self._begin_look_up())

    def _begin_look_up(self) -> asyncio.Task[None]:
        if self._looking_up is None:
            self._looking_up = self._begin(self._look_up())
        return self._looking_up

    async def _look_up(self) -> None:
        """Make each address of a name a server; if there is none now, those that there were stay."""
        loop, pool, found = asyncio.get_running_loop(), self._settings.pool, []
        try:
            for server in self._settings.servers:
                try:
                    found += [(server, endpoint) for endpoint in await self._addresses_of(server.endpoint)]
                except OSError as error:  # a TimeoutError is one
                    said = str(error) or "no answer in time"
                    LOG.warning("%s cannot be looked up, so its servers stay as they are: %s", server.endpoint, said)
                    stay = [member for member in self.members if member.server is server]
                    found += [(server, member.transport.endpoint) for member in stay]
            self._become(found)
        finally:
            self._looking_up = None
            self._look_up_at = loop.time() + pool.resolve_seconds
            self.open_until = loop.time() + STALE_RATIO * pool.resolve_seconds

    async def _addresses_of(self, endpoint: Endpoint) -> list[Endpoint]:
        """Return an endpoint for each address of a name, its own for a literal address.

        Raises:
            OSError: There is none, or no answer in time.
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
        """Have these servers, and no others: what is new is added, what is gone drains."""
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
            elif member.place.state == "draining":
                member.place.state = "ready"
        for member in self.members:
            if member.transport.endpoint not in wanted and member.place.state != "draining":
                member.place.state = "draining"
                LOG.info("%s is no server of this client any more", member.transport.endpoint)
        self._choice.places = [member.place for member in self.members]
        self._dismiss()

    def _dismiss(self) -> None:
        """Close the connections of servers that drain and have nothing left to answer."""
        if not self._settings.pool.resolve:
            return
        done = [m for m in self.members if m.place.state == "draining" and not m.place.in_flight]
        if not done or len(done) == len(self.members):
            return
        self.members = [member for member in self.members if member not in done]
        self._choice.places = [member.place for member in self.members]
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
        """End what is under way for the pool itself."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def after_fork_in_child(self) -> object:
        """Forget what belongs to the parent, and return it: it must never be deallocated."""
        parents: dict[str, Any] = vars(self).copy()
        self.engine = None
        for member in self.members:
            old = member.place
            member.place = Place(
                weight=old.weight, pace=old.pace, codec=old.codec, seconds_per_byte=old.seconds_per_byte
            )
        self._open(answered=self.state.answered)
        return parents
