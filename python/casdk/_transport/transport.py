"""The way to one server: its channel, the credential, the slots for requests, and what a fork requires of them.

A session has one `Transport` for each server; `Run` sends requests with `Transport.exchange`, on the engine.
"""

from __future__ import annotations

import asyncio
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Final

import msgspec

from casdk._engine.logging import logger_of
from casdk._engine.loop import Engine
from casdk._transport.address import SCHEMES, Endpoint, Protocols
from casdk._transport.channels import Channel, Headers, channel_of
from casdk._transport.channels.options import DEFAULTS, ExchangeOptions
from casdk._transport.codecs import Reply, read_status, scan
from casdk._transport.credentials import Credential, authorize
from casdk._transport.direct import HAS_POLL, Direct
from casdk._transport.proxy import proxy_of
from casdk._transport.slots import Slots
from casdk.config import TLS, Limits, Timeouts
from casdk.errors import AuthError, CasdkError, ClosedError, ReplyError, ServerError, TransportError
from casdk.models import Status

if TYPE_CHECKING:
    from casdk._transport.channels.http2_direct import DirectConnection

__all__ = ["Credential", "InterruptedByForkError", "Received", "Transport"]

LOG: Final = logger_of("casdk.connections")

FORK_WAIT_SECONDS: Final = 5.0
"""How long a fork waits for replies to requests that cannot be sent twice."""


class InterruptedByForkError(Exception):
    """A fork has interrupted a request: it is sent again, and no attempt is counted."""


class Received(msgspec.Struct, eq=False):
    """A scanned reply, and the times of its exchange.

    Attributes:
        reply: The scanned reply.
        size: Size of the reply in bytes.
        sent_at: When its request was handed to the channel, by `time.perf_counter`.
        received_at: When the channel had the reply, by the same clock.
        connecting: Seconds from ``sent_at`` until a connection was open, if one was opened; otherwise 0.
    """

    reply: Reply
    size: int
    sent_at: float
    received_at: float
    connecting: float


class Transport:
    """The way to one server; it opens its channel at the first request, on the engine.

    Args:
        endpoint: The server.
        credential: The credential of its requests; ``CLIP_AUTH_TOKEN`` if it is ``None``.
        tls: How a secure scheme verifies the server.
        timeouts: The timeouts of connecting and of one request.
        limits: The most requests at a time, and the most bytes of a message.
        proxy: The client's ``proxy=``.
        protocols: Which code speaks the protocol: casdk's own, or a library.

    Attributes:
        endpoint: The server.
        protocols: Which code speaks the protocol: casdk's own, or a library.
        codec: The form of its requests and replies.
        has_waiters: Whether no request needs a task while it waits for its reply.
        engine: The engine that its connections are on, once there are any.
        largest: Bytes of the largest request of several items that is sent: larger ones are halved at once, since the
            server, or a proxy before it, has refused one.
        closed: Whether it sends no more requests.
        last_error: The error of the last request that failed, if one did.
        direct: The connection of calls whose thread sends and receives by itself; ``None`` if there can be none.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        credential: Credential | None,
        tls: TLS,
        timeouts: Timeouts,
        limits: Limits,
        proxy: str | None,
        protocols: Protocols,
    ) -> None:
        self.endpoint = endpoint
        self.protocols: Final[Protocols] = protocols
        self.codec: Final = SCHEMES[endpoint.scheme].codec
        self.engine: Engine | None = None
        self.largest: float = inf
        self.closed = False
        self.last_error: str | None = None
        self._accepted_bytes = 0
        """Bytes of the largest request that the server has answered."""
        self._credential = credential
        self._tls = tls
        self._timeouts = timeouts
        self._limits = limits
        self._proxy = proxy
        self._kind: Final = channel_of(endpoint, protocols)
        self.has_waiters: Final = self._kind.has_waiters
        self._channel: Channel | None = None
        self._generation = 0
        """Counts the forks: a request that one of them interrupted belongs to an earlier generation."""
        self._headers: Headers | None = None
        self._open()

    def _open(self) -> None:
        """Make the objects that belong to one process."""
        self._slots = Slots(self._limits.requests)
        self._unrepeatable: set[asyncio.Future[None]] = set()
        is_possible = HAS_POLL and self.has_waiters and self.endpoint.scheme == "grpc"
        self.direct = Direct(self._open_direct, self._slots.give_back) if is_possible else None

    @property
    def is_connected(self) -> bool:
        """Whether the next request goes over a connection that is open already, as `Channel.is_connected` has it."""
        return self._channel is not None and self._channel.is_connected

    @property
    def is_ready(self) -> bool:
        """Whether a request would wait only for its reply: it has a slot, the credential and an open connection."""
        engine, channel = self.engine, self._channel
        if channel is None or self._headers is None or engine is None or engine.fork is not None:
            return False
        return self._slots.free > 0 and self.has_waiters and channel.is_connected

    async def exchange(
        self, request_id: str, message: bytes | memoryview, options: ExchangeOptions = DEFAULTS
    ) -> Received:
        """Send one packed request; return its scanned reply.

        Args:
            request_id: The request's id, which the reply repeats.
            message: The packed request.
            options: What the exchange has to observe.

        Raises:
            CasdkError: The errors of `Channel.exchange`, `Check.inspect` and `scan`.
            InterruptedByForkError: A fork has interrupted the request, which may be sent again.
        """
        slots = self._slots
        if slots.free:
            slots.free -= 1
        else:
            await slots.wait()
        generation = self._generation
        repeatable = options.repeatable
        ended = None if repeatable else self._delay_forks()
        sent_at = perf_counter()
        try:
            if self.engine is not None and self.engine.fork is not None:
                await self.engine.forked()
            channel = self._channel or self._open_channel()
            headers = self._headers
            if headers is None:
                headers = await self._authorize()
            try:
                reply = await channel.exchange(request_id, message, headers, options)
            except AuthError as error:
                if not callable(self._credential) or (error.shared and not repeatable):
                    raise
                headers = await self._authorize_again(headers)
                reply = await channel.exchange(request_id, message, headers, options)
            received_at = perf_counter()
            if len(message) > self._accepted_bytes:
                self._accepted_bytes = len(message)
                self.largest = max(self.largest, len(message))
            connecting = channel.connected_at - sent_at if channel.connected_at > sent_at else 0.0
            scanned = scan(self.codec, reply)
            # Not for JSON, where jina's gateway makes up an id: there `HttpChannel` compares the documents' ids.
            if self.codec == "proto" and scanned.request_id not in ("", request_id):
                raise ReplyError(f"{self.endpoint} answered another request than this one")
            return Received(scanned, len(reply), sent_at, received_at, connecting)
        except (TransportError, ServerError, ReplyError) as error:
            self._note_failure(error, len(message))
            if isinstance(error, TransportError):
                self._check_interrupted(generation, may_repeat=repeatable or not error.sent)
            raise
        finally:
            if slots.line:
                slots.give_back()
            else:
                slots.free += 1
            if ended is not None:
                ended.set_result(None)
                self._unrepeatable.discard(ended)

    async def dry_run(self) -> Status | None:
        """Ask the gateway whether its executors answer.

        Returns:
            The gateway's status; ``None`` if the gateway is too old to have this endpoint.

        Raises:
            CasdkError: The errors of `exchange`.
        """
        try:
            if self.engine is not None and self.engine.fork is not None:
                await self.engine.forked()
            channel = self._channel or self._open_channel()
            headers = await self._authorize() if self._headers is None else self._headers
            answer = await channel.dry_run(headers)
            return None if answer is None else read_status(self.codec, answer)
        except CasdkError as error:
            self.hide_token(error)
            raise

    def hide_token(self, error: CasdkError) -> None:
        """Replace the credential in an error's message by ``***``, in case a server or a proxy has sent it back."""
        for _, value in self._headers or ():
            for token in (str(value), value.rpartition(" ")[2]):
                error.args = tuple(part.replace(token, "***") if isinstance(part, str) else part for part in error.args)
                if token in str(error.__cause__) or token in str(error.__context__):
                    error.__cause__ = error.__context__ = None

    def _note_failure(self, error: CasdkError, size: int) -> None:
        """Hide the credential in the error of a request of so many bytes, and note if the request was too large."""
        self.hide_token(error)
        if isinstance(error, ServerError) and error.too_large:
            self.largest = max(self._accepted_bytes, size // 2)
            if not error.sent:
                error.args = (f"a request of {size:,} bytes was refused: {error.args[0]}",)

    def _check_interrupted(self, generation: int, *, may_repeat: bool) -> None:
        """Check that not this process itself has closed the connection of a request.

        Args:
            generation: The generation of the request.
            may_repeat: Whether the request may be sent again.

        Raises:
            InterruptedByForkError: A fork has closed it, and the request may be sent again.
            ClosedError: The client was closed.
        """
        if generation != self._generation and may_repeat:
            raise InterruptedByForkError from None
        if self.closed:
            raise ClosedError("the client was closed during the call") from None

    def _delay_forks(self) -> asyncio.Future[None]:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unrepeatable.add(ended)
        return ended

    def _open_channel(self) -> Channel:
        if self.closed:  # closed before the request's task has run: no code would close this channel
            raise ClosedError("the client was closed during the call")
        proxy = proxy_of(self.endpoint, self._proxy)
        channel = self._channel = self._kind(self.endpoint, self._tls, self._timeouts, self._limits, proxy)
        if self.engine is not None:
            self.engine.libraries.add(type(channel))
        return channel

    async def _open_direct(self) -> DirectConnection | None:
        """Open a direct connection, whose requests have a slot of their own; ``None`` if there can be none now."""
        engine, channel, headers = self.engine, self._channel, self._headers
        if channel is None or headers is None or engine is None or engine.fork is not None or self._slots.free < 2:
            return None
        if engine.thread_model.patcher is not None:  # then the calling threads are greenlets
            return None
        self._slots.free -= 1
        connection = None
        try:
            connection = await channel.open_direct(headers)
        finally:
            if connection is None:
                self._slots.give_back()
        return connection

    def find_direct(self, size: int) -> DirectConnection | None:
        """Return the direct connection for a request, if no other thread uses it; called by the calling thread.

        Args:
            size: Bytes of the request.
        """
        if self.direct is None or size > self.largest or (connection := self.direct.find()) is None:
            return None
        if connection.headers is not self._headers:  # there is another token
            connection.close()
            return None
        return connection

    async def _authorize(self) -> Headers:
        self._headers = await authorize(self._credential)
        return self._headers

    async def _authorize_again(self, refused: Headers) -> Headers:
        """Ask for a new token, unless another request has replaced the refused one already."""
        if self._headers is refused:
            LOG.info("%s refused the credential: asking for another one", self.endpoint)
            await self._authorize()
        return self._headers or ()

    async def aclose(self) -> None:
        """Close the connections."""
        if self.direct is not None:
            await self.direct.aclose(cut=self.closed)
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.aclose()

    async def before_fork(self) -> None:
        """Close the connections for a fork, first waiting for requests in flight that must not be sent again."""
        if self._unrepeatable:
            await asyncio.wait(self._unrepeatable, timeout=FORK_WAIT_SECONDS)
        LOG.debug("closing the connections to %s for a fork", self.endpoint)
        self._generation += 1
        await self.aclose()

    def after_fork_in_child(self) -> object:
        """Drop the connections of the parent, and return them: they must never be deallocated."""
        if self.direct is not None:
            self.direct.after_fork_in_child()
        parents = vars(self).copy()
        self._generation += 1
        self._channel = self.engine = self._headers = None
        self._open()
        return parents
