"""A client's way to its server: one channel, the credential, and what its calls share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from casdk._batches import Sizes
from casdk._calls import GROWN, WINDOW, RetryBudget, Window
from casdk._channels import Channel, Headers, channel_of
from casdk._coalesce import Coalescer
from casdk._codecs import Reply, scan
from casdk._credentials import ask
from casdk._downloads import Downloads
from casdk._engine import WORKERS, Engine, Resident, engine, notice_fork
from casdk._greenlets import check_greenlets
from casdk._logging import are_pending, emitted, logger_of
from casdk._outages import ServerState
from casdk._proxy import proxy_of
from casdk._uri import SCHEMES, Endpoint
from casdk.config import TLS, Limits, Retry, Timeouts
from casdk.errors import AuthError, ClosedError, ConfigError, ReplyError, ServerError, TransportError

if TYPE_CHECKING:
    from casdk._inputs import Sources
    from casdk._telemetry import Instruments

__all__ = ["SHARES", "ByteShare", "Credential", "InterruptedByForkError", "Received", "Transport"]

LOG: Final = logger_of("casdk.connections")

Credential: TypeAlias = "str | Callable[[], str | Awaitable[str]]"
"""A token, or what returns one: called again when the server refuses the last one."""

TOKEN_VARIABLE: Final = "CLIP_AUTH_TOKEN"
SHARES: Final = 8
"""Calls that can be under way with large images, or many results out of their turn, before one of them waits for
another's."""


FORK_WAIT: Final = 5.0
"""Seconds that a fork waits for replies to requests that cannot be sent twice."""


class InterruptedByForkError(Exception):
    """The engine took a request back, for a fork: it is sent again, and no attempt is counted."""


class Received(NamedTuple):
    """A reply.

    Attributes:
        reply: Scanned.
        size: Its bytes.
        sent_at: When its request was handed to the channel, as `time.perf_counter` has it.
        received_at: When the channel had the reply.
        connecting: Seconds in between until a connection was open, if one was opened.
    """

    reply: Reply
    size: int
    sent_at: float
    received_at: float
    connecting: float


class ByteBudget:
    """Bytes in flight over all calls of a client; waiting for room costs nothing."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self._waiting: list[asyncio.Future[None]] = []

    async def change(self) -> None:
        """Wait until something is released."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def hold(self, size: int) -> None:
        """Count bytes as in flight."""
        self.held += size

    def release(self, size: int) -> None:
        """Count them out again."""
        self.held -= size
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


class ByteShare:
    """One call's part of the budget: requests of large images leave room for other calls.

    A channel copies what it sends, so this is also what keeps the memory of a long run low.
    """

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._held = 0

    @property
    def full(self) -> bool:
        """Whether nothing more should be packed; what is packed all the same exceeds the budget by itself, once."""
        return self._held >= self._budget.most // SHARES or self._budget.held >= self._budget.most

    async def room(self) -> None:
        """Wait until something may be packed."""
        while self.full:
            await self._budget.change()

    def hold(self, size: int) -> None:
        """Count bytes as in flight."""
        self._held += size
        self._budget.hold(size)

    def release(self, size: int) -> None:
        """Count them out again."""
        self._held -= size
        self._budget.release(size)


class Transport(Resident):
    """Made with the client, opened on the engine by its first request.

    Args:
        endpoint: The server.
        credential: Sent with every request; ``CLIP_AUTH_TOKEN`` where none is given.
        proxy: The client's ``proxy=``.
        coalescer: Merges small calls, if the client wants it.
        telemetry: What is told of calls, if the client wants it.
        sources: Where images may be read from.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        credential: Credential | None,
        tls: TLS,
        timeouts: Timeouts,
        limits: Limits,
        retry: Retry,
        proxy: str | None,
        coalescer: Coalescer | None,
        telemetry: Instruments | None,
        sources: Sources,
    ) -> None:
        self.endpoint = endpoint
        self.codec: Final = SCHEMES[endpoint.scheme].codec
        self.limits = limits
        self.retry = retry
        self.timeouts = timeouts
        self.repeats = RetryBudget(retry.budget)
        self.server = ServerState()
        self.window = Window(WINDOW, GROWN) if limits.prefetch is None else Window(limits.prefetch)
        self.sizes = Sizes()
        self.bytes = ByteBudget(limits.max_inflight_bytes)
        self.packing = asyncio.Semaphore(WORKERS)
        self.downloads = Downloads(timeouts, limits)
        self.coalescer = coalescer
        self.telemetry = telemetry
        self.sources = sources
        self.calls: set[asyncio.Task[Any]] = set()
        self.closed = False
        self.indexes: bool | None = None
        self._credential = credential
        self._tls = tls
        self._proxy = proxy
        self._kind: Final = channel_of(endpoint)
        self._channel: Channel | None = None
        self._engine: Engine | None = None
        self._slots = asyncio.Semaphore(limits.requests)
        self._generation = 0
        self._unrepeatable: set[asyncio.Future[None]] = set()
        self._headers: Headers | None = None

    def enter(self) -> None:
        """Take part in the engine this runs on, a new one after a fork."""
        if self.closed:
            raise ClosedError("the client is closed")
        current = engine()
        if self._engine is not current:
            check_greenlets(self.endpoint)  # again: they may have come since the client was made
            self._engine = current
            current.residents.add(self)

    @property
    def opened(self) -> bool:
        """Whether this process has connections of it, or had."""
        notice_fork()
        return not self.closed and self._engine is not None

    async def exchange(
        self,
        request_id: str,
        message: bytes,
        context: Headers = (),
        *,
        repeatable: bool = True,
        answer_by: float | None = None,
    ) -> Received:
        """Send one packed request, its trace context beside it; return its scanned reply.

        Args:
            request_id: What the reply is paired by.
            message: The packed request.
            context: W3C trace context.
            repeatable: Whether it may be sent again once its bytes may have reached the server.
            answer_by: When whoever waits for it gives up, in the engine's time.

        Raises:
            CasdkError: As `Channel.exchange` and `scan` have it.
            InterruptedByForkError: A fork took it back, and it may be sent again.
        """
        # Not `async with`: two coroutines more for each request.
        await self._slots.acquire()
        generation = self._generation
        ended = None if repeatable else self._hold_forks()
        sent_at = perf_counter()
        try:
            reply = await self._send(request_id, message, context, answer_by, repeatable)
            received_at = perf_counter()
            self.sizes.take(len(message))
            channel = self._channel  # gone if a fork has closed it since it answered
            connecting = 0.0 if channel is None else max(0.0, channel.connected_at - sent_at)
            return Received(self._scan(request_id, reply), len(reply), sent_at, received_at, connecting)
        except TransportError as error:
            if generation != self._generation and (repeatable or not error.sent):
                raise InterruptedByForkError from None
            if self.closed:
                raise ClosedError("the client was closed during the call") from None
            raise
        except ServerError as error:
            if error.too_large:
                self.sizes.refuse(len(message))
                if not error.sent:
                    error.args = (f"a request of {len(message):,} bytes was refused: {error.args[0]}",)
            raise
        finally:
            self._slots.release()
            if ended is not None:
                ended.set_result(None)
                self._unrepeatable.discard(ended)

    def _hold_forks(self) -> asyncio.Future[None]:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unrepeatable.add(ended)
        return ended

    def _scan(self, request_id: str, message: bytes) -> Reply:
        reply = scan(self.codec, message)
        # The JSON of jina's gateway has an id of its own making: there, documents tell (see HttpChannel).
        if self.codec == "proto" and reply.request_id not in ("", request_id):
            raise ReplyError(f"{self.endpoint} answered another request than this one")
        return reply

    async def _send(
        self, request_id: str, message: bytes, context: Headers, answer_by: float | None, repeatable: bool
    ) -> bytes:
        if self._engine is not None and self._engine.forking:
            await self._engine.forked()
        channel = self._channel
        if channel is None:
            proxy = proxy_of(self.endpoint, self._proxy)
            channel = self._channel = self._kind(self.endpoint, self._tls, self.timeouts, self.limits, proxy)
            if self._engine is not None:
                self._engine.libraries.add(type(channel))
        headers = self._headers
        if headers is None:
            headers = self._headers = await self._authorize()
        try:
            return await channel.exchange(request_id, message, headers, context, answer_by, repeatable)
        except AuthError as error:
            if not callable(self._credential) or (error.shared and not repeatable):
                raise
            if self._headers is headers:
                LOG.info("%s refused the credential: asking for another one", self.endpoint)
                self._headers = await self._authorize()
            return await channel.exchange(request_id, message, self._headers or (), context, answer_by, repeatable)

    async def _authorize(self) -> Headers:
        token: object = self._credential
        if callable(token):
            token = await ask(token)
        if token is None:
            token = os.environ.get(TOKEN_VARIABLE)
        if token is None:
            return ()
        return (("authorization", check_token(token)),)

    async def aclose(self) -> None:
        """Cancel every call and close every connection; return when the calls have ended, too."""
        self.closed = True
        calls = tuple(self.calls)
        for call in calls:
            if not call.cancelling():  # else it is being taken back: it is not to be disturbed in that
                call.cancel()
        await self._shut()
        if calls:
            await asyncio.wait(calls)
        if are_pending():
            await emitted()

    async def _shut(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.aclose()
        await self.downloads.aclose()

    async def before_fork(self) -> None:
        if self._unrepeatable:
            await asyncio.wait(self._unrepeatable, timeout=FORK_WAIT)
        LOG.debug("closing the connections to %s for a fork", self.endpoint)
        self._generation += 1
        await self._shut()

    def after_fork_in_child(self) -> object:
        parents = vars(self).copy()
        if self.coalescer is not None:
            parents["kinds"] = self.coalescer.leave()
        self._generation += 1
        self._channel = self._engine = self._headers = None
        self.downloads = Downloads(self.timeouts, self.limits)
        self.server = ServerState(self.server.answered)
        self.calls = set()
        self._unrepeatable = set()
        self._slots = asyncio.Semaphore(self.limits.requests)
        self.bytes = ByteBudget(self.limits.max_inflight_bytes)
        self.packing = asyncio.Semaphore(WORKERS)
        return parents


class Secret(str):
    """A token that does not show itself where the locals of a traceback are shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"


def check_token(token: object) -> Secret:
    """Return the token if it can travel in a header.

    Raises:
        ConfigError: It cannot; the message does not show it.
    """
    if not isinstance(token, str):
        raise ConfigError(f"a credential must be a str, or a callable that returns one, not {type(token).__name__}")
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError("a credential must be printable ASCII and not empty; this one is not (it is not shown here)")
    return Secret(token)
