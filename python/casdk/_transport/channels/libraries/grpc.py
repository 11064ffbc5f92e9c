"""grpc and grpcs on grpcio: one unary call per request, on one channel of grpc.aio."""

from __future__ import annotations

import asyncio
from math import nan
from typing import Any, Final

import grpc
import grpc.aio

from casdk._engine.logging import divert
from casdk._remarks import remark
from casdk._transport.channels.base import (
    LOG,
    Headers,
    is_plain,
    no_tls,
    no_tunnel,
    read_pem,
    ssl_context,
    unavailable,
)
from casdk._transport.channels.causes import without_grpc
from casdk._transport.channels.libraries.certificates import shown_certificate, system_roots
from casdk._transport.channels.libraries.counting import CountingChannel
from casdk._transport.channels.libraries.forks import check_fork, finish_closing, mark_forked
from casdk._transport.channels.libraries.grpc_words import (
    COMPRESSED,
    HTTP_STATUS,
    NO_HANDSHAKER,
    NO_STATUS,
    NO_TUNNEL,
    PINGS_REFUSED,
    UNREADABLE,
    is_break,
    is_limit,
    is_silence,
    lost,
)
from casdk._transport.channels.options import DEFAULTS, ExchangeOptions
from casdk._transport.channels.statuses import (
    DRY_RUN,
    LATE_CODES,
    PUSHBACK,
    STREAM,
    UNARY,
    error_of,
    page_error,
)
from casdk.errors import CasdkError, ProtocolMismatchError, ReplyError, TransportError

__all__ = ["CHANNEL", "GrpcChannel"]

divert("grpc")

Code = grpc.StatusCode
READY: Final = grpc.ChannelConnectivity.READY
FAILED: Final = frozenset({grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN})
LOST_CODES: Final = frozenset({Code.UNAVAILABLE, Code.CANCELLED, Code.ABORTED})
STREAM_CODES: Final = frozenset({Code.INTERNAL, Code.UNKNOWN})
LARGEST_REPLY_BYTES: Final = 2**31 - 1
"""The largest number in gRPC's options, which are signed and have 32 bits."""
EARLY_SECONDS: Final = 0.05
"""gRPC has another clock, and may end a call by so much before its deadline. So it gets a deadline that is so much
later: casdk's own timeout ends the call, with an error that says how many items were done."""


class Connection:
    """A channel of grpc.aio, which is one connection to the server; a `GrpcChannel` uses one at a time.

    Attributes:
        channel: The channel.
        calls: Number of requests in flight.
        answered_at: When the server answered the last time, in the engine's time; gRPC does not report anything else
            that it receives.
        open: Whether it was not closed yet.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.calls = 0
        self.answered_at = 0.0
        self.open = True

    async def aclose(self) -> None:
        """Close the connection; requests in flight fail."""
        self.open = False
        await self.channel.close()


class GrpcChannel(CountingChannel):
    """Bytes over grpc.aio with identity serializers: no stub, no protobuf objects."""

    finish_closing = staticmethod(finish_closing)
    mark_forked = staticmethod(mark_forked)

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self._connection: Connection | None = None
        self._retired: set[Connection] = set()
        self._opening = asyncio.Lock()
        self._streams_only = False
        self._pings_refused = False
        self._down = True
        self._closed = False

    async def _exchange(
        self,
        request_id: str,
        message: bytes,
        headers: Headers,
        options: ExchangeOptions = DEFAULTS,
    ) -> bytes:
        connection, loop = await self._ready(), asyncio.get_running_loop()
        connected = connection.channel.get_state() is READY
        began = loop.time()
        left = self.time_left(began - EARLY_SECONDS, options.answer_by)
        connection.calls += 1
        try:
            reply = await self._reply_to(connection.channel, message, (*headers, *options.context), left)
            connection.answered_at = loop.time()
            return reply
        except grpc.aio.AioRpcError as error:
            self._replace_if_broken(connection, error, connected)
            if self._is_late(error, began):
                self._retire_if_silent(connection, began)
            else:
                connection.answered_at = loop.time()
            ours = self._ours(error, request_id, connected, began)
            if connected and not ours.code:
                ours.code = error.code().name
            # Frames of gRPC in the traceback would keep the call in memory, and so gRPC's thread, which a fork needs
            # to have ended.
            raise ours from error.with_traceback(None)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not connection.open and not (task and task.cancelling()):  # the connection was closed, not the call
                raise self.was_closed(sent=True) from None
            if self.had_time(began, options.answer_by):
                self._retire_if_silent(connection, began)
            raise
        finally:
            connection.calls -= 1
            await self._close_retired()

    async def _reply_to(self, channel: grpc.aio.Channel, message: bytes, headers: Headers, left: float | None) -> bytes:
        reply: bytes | None = None
        if not self._streams_only:
            try:
                reply = await self._call(channel.unary_unary(UNARY), message, headers, left)
            except grpc.aio.AioRpcError as error:
                if error.code() is not Code.UNIMPLEMENTED:
                    raise
                self._streams_only = True
        if self._streams_only:
            call = self._call(channel.stream_stream(STREAM), iter((message,)), headers, left)
            async for one in call:
                if reply is not None:  # stop here, since the server may go on without end
                    call.cancel()
                    raise ReplyError(f"{self.endpoint} sent more than one reply to one request")
                reply = one
        if reply is None:
            raise self._not_whole()
        return reply

    def _call(self, method: Any, message: object, headers: Headers, left: float | None = None) -> Any:
        return method(message, timeout=self.timeouts.read if left is None else left, metadata=headers)

    def _not_whole(self) -> ReplyError:
        return ReplyError(f"{self.endpoint} says that the request succeeded, and sent no whole message")

    def _retire_if_silent(self, connection: Connection, began: float) -> None:
        if connection.answered_at < began and connection is self._connection:
            LOG.info("%s answered nothing: its connection is not used again", self.endpoint)
            self._retire(connection)

    def _retire(self, connection: Connection) -> None:
        """Begin no more requests on a connection; it is closed when those in flight on it have ended."""
        if connection is self._connection:
            self._connection = None
            self._retired.add(connection)

    async def _close_retired(self) -> None:
        for connection in [connection for connection in self._retired if not connection.calls]:
            self._retired.discard(connection)
            await asyncio.shield(connection.aclose())

    async def dry_run(self, headers: Headers) -> bytes | None:
        connection = await self._ready()
        connected, began = connection.channel.get_state() is READY, asyncio.get_running_loop().time()
        try:
            reply: bytes | None = await self._call(connection.channel.unary_unary(DRY_RUN), b"", headers)
        except grpc.aio.AioRpcError as error:
            self._replace_if_broken(connection, error, connected)
            ours = self._ours(error, "", connected, began)
            if error.code() is Code.UNIMPLEMENTED and not isinstance(ours, ProtocolMismatchError):
                return None
            raise ours from error.with_traceback(None)
        if reply is None:
            raise self._not_whole()
        return reply

    async def _ready(self) -> Connection:
        connection = self._connection
        if connection is None or connection.channel.get_state(try_to_connect=True) is not READY:
            connection = await self._connect()
        if not connection.open:  # closed while it was being opened
            raise self.was_closed(sent=False)
        return connection

    async def _connect(self) -> Connection:
        """Return the connection when it is ready or has failed; a call on a failed one gets gRPC's error."""
        async with self._opening:
            connection = self._connection or await self._open()
        channel = connection.channel
        connection.calls += 1
        try:
            async with asyncio.timeout(self.timeouts.connect):
                state = channel.get_state(try_to_connect=True)
                self._down = self._down or state is not READY
                while state is not READY and state not in FAILED:
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
            if state is READY and self._down:
                self._down = False
                self.connected()
        except TimeoutError:
            self._retire(connection)
            raise self._unconnected() from None
        finally:
            connection.calls -= 1
            await self._close_retired()
        return connection

    def _unconnected(self) -> TransportError:
        return TransportError(f"no connection to {self.endpoint} within {self.timeouts.connect:g} s", sent=False)

    def _replace_if_broken(self, connection: Connection, error: grpc.aio.AioRpcError, connected: bool) -> None:
        """Retire a channel that cannot be used any more, so that the next request opens another one.

        There are three such channels. One that could not connect goes on trying ten times a second, and meanwhile fails
        every call with its last error: it would flood a server that is away, and a call's next attempt would never
        reach it. One may ping more often than its server allows. And one on TLS may never connect again: each
        reconnection registers a new watch of gRPC's store of trusted certificates; if that happens while the watch
        before is being removed, the store treats the new one as ended, and neither that nor any later one gets
        certificates (seen with grpcio 1.85, ``grpc_tls_certificate_provider.cc``).
        """
        said = (error.details() or "").lower().replace("_", " ")
        if NO_HANDSHAKER in said and connection is self._connection:
            LOG.warning("gRPC has lost the trusted certificates of %s: its channel is replaced", self.endpoint)
            self._retire(connection)
        elif PINGS_REFUSED in said and not self._pings_refused:
            LOG.warning("%s refuses pings while it works at a request: it gets none any more", self.endpoint)
            self._pings_refused = True
            self._retire(connection)
        elif not connected and error.code() is Code.UNAVAILABLE:
            self._retire(connection)

    async def _open(self) -> Connection:
        check_fork()
        options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", min(self.limits.max_reply_bytes, LARGEST_REPLY_BYTES)),
            # No compression, since a few kilobytes could become gigabytes before gRPC checks their size.
            ("grpc.compression_enabled_algorithms_bitset", 1 << grpc.Compression.NoCompression.value),
            # A client owns its connection: closing it must not depend on other channels to the same server.
            ("grpc.use_local_subchannel_pool", 1),
            # Retries are casdk's own, with a budget; grpc's would come on top.
            ("grpc.enable_retries", 0),
            ("grpc.max_reconnect_backoff_ms", 100),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", int(self.timeouts.connect * 1000)),
            ("grpc.primary_user_agent", "casdk"),
            # Which proxy is decided in one place for all schemes, not by grpc's own reading of the environment.
            ("grpc.enable_http_proxy", int(self.proxy is not None)),
        ]
        if not self._pings_refused:
            options += self._pings()
        if self.proxy is not None:
            options.append(("grpc.http_proxy", self.proxy))
        target = f"dns:///{self.endpoint.authority}"
        if not self.endpoint.tls:
            channel = grpc.aio.insecure_channel(target, options=options)
        else:
            credentials = await self._credentials(options)
            channel = grpc.aio.secure_channel(target, credentials, options=options)
        if self._closed:  # while the certificate was fetched
            await channel.close()
            raise self.was_closed(sent=False)
        self._connection = Connection(channel)
        return self._connection

    def _pings(self) -> list[tuple[str, Any]]:
        """Return the options by which gRPC checks a silent connection with pings while requests are in flight.

        gRPC has two limits for the answer. The first, of keepalive, it also takes for the time in which the other end
        must have taken what was sent (``TCP_USER_TIMEOUT``), which would end the connection to a server that pauses in
        the middle of a large request. So that is the longer one here, and the second, of any ping, decides.
        """
        asked, answered = int(self.ping_seconds * 1000), int(self.pong_seconds * 1000)
        return [
            ("grpc.keepalive_time_ms", asked),
            ("grpc.keepalive_timeout_ms", asked + answered),
            ("grpc.http2.ping_timeout_ms", answered),
            ("grpc.http2.max_pings_without_data", 0),
        ]

    async def _credentials(self, options: list[tuple[str, Any]]) -> grpc.ChannelCredentials:
        tls = self.tls
        if tls.ca is not None or tls.cert is not None:
            ssl_context(tls, ["h2"])  # which says what is wrong with them; grpc does not
        roots = read_pem(tls.ca, "ca") if tls.ca is not None else None
        if roots is None and tls.verify:
            roots = system_roots()
        if not tls.verify:
            # grpc cannot skip verification, so what the server shows is trusted, for a name it shows.
            roots, name = await asyncio.to_thread(shown_certificate, self)
            options.append(("grpc.ssl_target_name_override", name))
        elif tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", tls.server_name))
        cert = read_pem(tls.cert, "cert") if tls.cert is not None else None
        key = read_pem(tls.key, "key") if tls.key is not None else None
        return grpc.ssl_channel_credentials(roots, key, cert)

    def _is_late(self, error: grpc.aio.AioRpcError, began: float) -> bool:
        """Whether a call ended by its own deadline; an earlier status of a deadline is one of the server's own."""
        took = asyncio.get_running_loop().time() - began
        return error.code().name in LATE_CODES and took >= self.timeouts.read - EARLY_SECONDS

    def _ours(self, error: grpc.aio.AioRpcError, request_id: str, connected: bool, began: float) -> CasdkError:
        """Return our error for one of gRPC's.

        Args:
            error: gRPC's error.
            request_id: The request's id.
            connected: Whether there was a connection when the call began. If so, the words may be a gateway's, which
                repeats gRPC's error of its own connection to an executor: then they say nothing of this connection.
            began: When the call began, in the engine's time.
        """
        code, details, most = error.code(), error.details() or "", self.limits.max_reply_bytes
        if self._is_late(error, began):
            return self.late()
        if COMPRESSED in details:
            return ReplyError(f"{self.endpoint}: the reply is compressed, which was not asked for")
        if UNREADABLE.match(details):
            return ProtocolMismatchError(f"{self.endpoint}: this port does not speak gRPC", retryable=False)
        if is_limit(details, most):
            return ReplyError(f"{self.endpoint}: the reply is larger than Limits.max_reply_bytes ({most})")
        if PUSHBACK in details:
            # gRPC could not read the value, and shows neither it nor the code that came with it. That was one of two;
            # UNAVAILABLE is assumed, which leaves open what became of the request.
            said = f"{self.endpoint}: asked for a wait ({PUSHBACK}) that is no number"
            return unavailable(said, nan, away=False)
        if (status := HTTP_STATUS.search(details)) is not None:  # gRPC drops the headers that came with it
            return page_error(self.endpoint, int(status[1]), request_id=request_id)
        if code in LOST_CODES and not connected:
            if is_silence(details):
                return self._unconnected()
            if (tunnel := NO_TUNNEL.search(details)) is not None:
                return no_tunnel(self.endpoint, tunnel[1])
            return no_tls(self.endpoint) if is_plain(details) else lost(self.endpoint.tls, details, str(self.endpoint))
        if code is Code.UNKNOWN and details == NO_STATUS:
            return ReplyError(f"{self.endpoint}: what it answers with is no gRPC reply")
        if code in STREAM_CODES and is_break(details):  # a stream that was reset, and no word of the server's
            said = f"{self.endpoint}: {remark(without_grpc(details, connected=connected))}"
            return TransportError(said, away=False)
        return error_of(self.endpoint, code.name, details, _pushback(error), request_id)

    async def aclose(self) -> None:
        self._closed = True
        connection, self._connection = self._connection, None
        retired, self._retired = self._retired, set()
        for one in retired:
            await one.aclose()
        if connection is not None:
            await connection.aclose()
            LOG.info("the connection to %s is closed", self.endpoint)


CHANNEL = GrpcChannel


def _pushback(error: grpc.aio.AioRpcError) -> str | None:
    value = next((value for name, value in error.trailing_metadata() or () if name == PUSHBACK), None)
    return value.decode("latin-1") if isinstance(value, bytes) else value
