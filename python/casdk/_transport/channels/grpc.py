"""grpc and grpcs: one unary call per request on one HTTP/2 connection (grpcio)."""

from __future__ import annotations

import asyncio
import re
from math import nan
from typing import Any, Final

from casdk._transport.channels.silence import keep_silent

# isort: split
# gRPC's core looks at what it may write as it is loaded.
import grpc
import grpc.aio

from casdk._engine.logging import divert
from casdk._remarks import remark
from casdk._transport.channels.base import (
    LOG,
    Channel,
    Headers,
    is_plain,
    no_tls,
    no_tunnel,
    read_pem,
    ssl_context,
    unavailable,
)
from casdk._transport.channels.causes import BROKE, CLOSED, CLOSED_IN_TLS, cause_of, without_grpc
from casdk._transport.channels.certificates import shown_certificate, system_roots
from casdk._transport.channels.ends import PendingReply, without_frames
from casdk._transport.channels.forks import check_fork, finish_closing, mark_forked
from casdk._transport.channels.statuses import (
    DRY_RUN,
    PUSHBACK,
    STREAM,
    UNARY,
    error_of,
    page_error,
)
from casdk.errors import (
    CasdkError,
    DeadlineError,
    ProtocolMismatchError,
    ReplyError,
    TLSError,
    TransportError,
)

__all__ = ["CHANNEL"]

divert("grpc")
keep_silent(grpc)

Code = grpc.StatusCode
READY: Final = grpc.ChannelConnectivity.READY
FAILED: Final = frozenset({grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN})
LOST_CODES: Final = frozenset({Code.UNAVAILABLE, Code.CANCELLED, Code.ABORTED})
STREAM_CODES: Final = frozenset({Code.INTERNAL, Code.UNKNOWN})
COMPRESSED: Final = "Compression algorithm"
"""The beginning of gRPC's words for a message that it does not decompress."""
HTTP_STATUS: Final = re.compile(r"received http2 header with status: (\d{3})", re.IGNORECASE)
"""gRPC's words for an answer of a proxy that speaks plain HTTP."""
NO_STATUS: Final = "No status received"
"""gRPC's words for an answer with a status of success in HTTP and none in gRPC."""
UNREADABLE: Final = re.compile(r"Stream removed \((?!.*\|Gateway: ).*Failed parsing HTTP/2")
"""gRPC's words for bytes on this connection that are not HTTP/2; they come with one of several codes."""
EARLY_SECONDS: Final = 0.05
"""gRPC has another clock, and may end a call by so much before its time."""
NO_TUNNEL: Final = re.compile(r"http proxy returned response code (\d{3})", re.IGNORECASE)


class Connection:
    """A channel of grpc.aio, which is one connection to the server; a `GrpcChannel` uses one at a time.

    Attributes:
        channel: The channel.
        unary: Its method for single requests.
        stream: Its method for a stream of requests.
        calls: Requests in flight.
        answered_at: When the server answered the last time, in the engine's time; gRPC does not report what
            else it receives.
        open: Whether nobody has closed it.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.unary: Any = channel.unary_unary(UNARY)
        self.stream: Any = channel.stream_stream(STREAM)
        self.calls = 0
        self.answered_at = 0.0
        self.open = True

    async def aclose(self) -> None:
        """Close it; what is in flight fails."""
        self.open = False
        await self.channel.close()


class GrpcChannel(Channel):
    """Bytes over grpc.aio with identity serializers: no stub, no protobuf objects."""

    finish_closing = staticmethod(finish_closing)
    mark_forked = staticmethod(mark_forked)

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self._connection: Connection | None = None
        self._retired: set[Connection] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._opening: asyncio.Task[Connection] | None = None
        self._streams_only = False
        self._pings_refused = False
        self._down = True
        self._closed = False

    async def exchange(
        self,
        request_id: str,
        message: bytes,
        headers: Headers,
        context: Headers = (),
        answer_by: float | None = None,
        repeatable: bool = True,
    ) -> bytes:
        try:
            return await self._exchange(request_id, message, (*headers, *context) if context else headers, answer_by)
        except BaseException as error:
            raise without_frames(error)  # noqa: B904 - it is the same one

    async def _exchange(self, request_id: str, message: bytes, headers: Headers, answer_by: float | None) -> bytes:
        connection, loop = await self._ready(), asyncio.get_running_loop()
        connected = connection.channel.get_state() is READY
        began = loop.time()
        connection.calls += 1
        reply: bytes | None = None
        try:
            if not self._streams_only:
                try:
                    call = connection.unary(message, timeout=self.timeouts.read, metadata=headers)
                    reply = await PendingReply(call)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not Code.UNIMPLEMENTED:
                        raise
                    self._streams_only = True
            if self._streams_only:
                reply = await self._exchange_by_stream(connection, message, headers)
            connection.answered_at = loop.time()
            if reply is None:
                raise self._not_whole()
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
            raise ours from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not connection.open and not (task and task.cancelling()):  # closed under the call, not taken back
                raise self.was_closed(sent=True) from None
            if self.had_time(began, answer_by):
                self._retire_if_silent(connection, began)
            raise
        finally:
            connection.calls -= 1
            if self._retired:
                self._close_retired()

    async def _exchange_by_stream(self, connection: Connection, message: bytes, headers: Headers) -> bytes | None:
        call = connection.stream(iter((message,)), timeout=self.timeouts.read, metadata=headers)
        only: bytes | None = None
        async for reply in call:
            if only is not None:  # stop here, since the server may go on without end
                call.cancel()
                raise ReplyError(f"{self.endpoint} sent more than one reply to one request")
            only = reply
        return only

    def _not_whole(self) -> ReplyError:
        return ReplyError(f"{self.endpoint} says that the request succeeded, and sent no whole message")

    def _retire_if_silent(self, connection: Connection, began: float) -> None:
        if connection.answered_at < began and connection is self._connection:
            LOG.info("%s answered nothing: its connection is not used again", self.endpoint)
            self._retire(connection)

    def _retire(self, connection: Connection) -> None:
        """Begin no request any more on a connection, which ends with those that are in flight there."""
        if connection is self._connection:
            self._connection = None
            self._retired.add(connection)
            self._close_retired()

    def _close_retired(self) -> None:
        """Close the retired connections on which nothing is in flight any more."""
        for connection in [connection for connection in self._retired if not connection.calls]:
            self._retired.discard(connection)
            task = asyncio.ensure_future(connection.aclose())
            self._closing.add(task)  # a loop keeps only weak references to its tasks
            task.add_done_callback(self._closing.discard)

    async def dry_run(self, headers: Headers) -> bytes | None:
        try:
            return await self._dry_run(headers)
        except BaseException as error:
            raise without_frames(error)  # noqa: B904 - it is the same one

    async def _dry_run(self, headers: Headers) -> bytes | None:
        connection = await self._ready()
        connected, began = connection.channel.get_state() is READY, asyncio.get_running_loop().time()
        ask: Any = connection.channel.unary_unary(DRY_RUN)
        try:
            reply = await PendingReply(ask(b"", timeout=self.timeouts.read, metadata=headers))
        except grpc.aio.AioRpcError as error:
            self._replace_if_broken(connection, error, connected)
            ours = self._ours(error, "", connected, began)
            if error.code() is Code.UNIMPLEMENTED and not isinstance(ours, ProtocolMismatchError):
                return None
            raise ours from error
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
        """Return the connection when it is ready, or has failed: then the call on it fails with gRPC's reason."""
        connection = self._connection
        if connection is None:
            if self._opening is None:
                self._opening = asyncio.ensure_future(self._open())
            opening = self._opening
            try:
                connection = await asyncio.shield(opening)
            finally:
                if opening.done() and self._opening is opening:
                    self._opening = None
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
            if self._retired:
                self._close_retired()
        return connection

    def _unconnected(self) -> TransportError:
        return TransportError(f"no connection to {self.endpoint} within {self.timeouts.connect:g} s", sent=False)

    def _replace_if_broken(self, connection: Connection, error: grpc.aio.AioRpcError, connected: bool) -> None:
        """Retire a channel that is of no use any more, so that the next request opens another one.

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
            ("grpc.max_receive_message_length", min(self.limits.max_reply_bytes, 2**31 - 1)),
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
        """Return what makes gRPC ask, while requests are in flight, whether a silent connection still is one.

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
        """Whether a call ran out of its own time; before that, the server means what it waited for itself."""
        took = asyncio.get_running_loop().time() - began
        return error.code() is Code.DEADLINE_EXCEEDED and took >= self.timeouts.read - EARLY_SECONDS

    def _ours(self, error: grpc.aio.AioRpcError, request_id: str, connected: bool, began: float) -> CasdkError:
        """Return our error for one of gRPC's.

        Args:
            error: What ended the call.
            request_id: Of the call.
            connected: Whether there was a connection when the call began. If so, the words may be a gateway's, which
                repeats gRPC's error of its own connection to an executor: then they say nothing of this connection.
            began: When the call began, in the engine's time.
        """
        code, details = error.code(), error.details() or ""
        where = f"{self.endpoint}: {remark(without_grpc(details, connected=connected))}"
        if self._is_late(error, began):
            return DeadlineError(f"{self.endpoint} sent no reply within {self.timeouts.read:g} s")
        if COMPRESSED in details:
            return ReplyError(f"{self.endpoint}: the reply is compressed, which was not asked for")
        if UNREADABLE.match(details):
            return ProtocolMismatchError(f"{self.endpoint}: this port does not speak gRPC", retryable=False)
        if self._is_our_limit(details):
            most = self.limits.max_reply_bytes
            return ReplyError(f"{self.endpoint}: the reply is larger than Limits.max_reply_bytes ({most})")
        if PUSHBACK in details:
            # gRPC could not read the value, and shows neither it nor the code that came with it. That was one of two;
            # UNAVAILABLE is assumed, which leaves open what became of the request.
            said = f"{self.endpoint}: asked for a wait ({PUSHBACK}) that is no number"
            return unavailable(said, nan, away=False)
        if (status := HTTP_STATUS.search(details)) is not None:  # gRPC drops the headers that came with it
            return page_error(self.endpoint, int(status[1]), request_id=request_id)
        if code in LOST_CODES and not connected:
            if _is_silence(details):
                return self._unconnected()
            if (tunnel := NO_TUNNEL.search(details)) is not None:
                return no_tunnel(self.endpoint, tunnel[1])
            return no_tls(self.endpoint) if is_plain(details) else _lost(self.endpoint.tls, details, str(self.endpoint))
        if code is Code.UNKNOWN and details == NO_STATUS:
            return ReplyError(f"{self.endpoint}: what it answers with is no gRPC reply")
        if code in STREAM_CODES and BROKE.match(details):  # a stream that was reset, and no word of the server's
            return TransportError(where, away=False)
        return error_of(self.endpoint, code.name, details, _pushback(error), request_id)

    def _is_our_limit(self, details: str) -> bool:
        """Whether gRPC refused a reply here, by its words for it."""
        ours = f"vs. {self.limits.max_reply_bytes})" in details and "SERVER: " not in details
        return "larger than max" in details and ("CLIENT: " in details or ours)

    async def aclose(self) -> None:
        self._closed = True
        connection, self._connection = self._connection, None
        retired, self._retired = self._retired, set()
        for one in retired:
            await one.aclose()
        if self._closing:
            await asyncio.wait(self._closing)
        if connection is not None:
            await connection.aclose()
            LOG.info("the connection to %s is closed", self.endpoint)


CHANNEL = GrpcChannel


PINGS_REFUSED: Final = "too many pings"
"""gRPC's words where a server allows pings only every five minutes, its default, while it works at requests. jina's
server sends pings itself, so that a connection to it is checked without ours."""
NO_HANDSHAKER: Final = "failed to create security handshaker"
"""Seen where a server resets connections, and never for wrong settings, since those are read before."""
BROKEN: Final = ("socket closed", "connection reset", NO_HANDSHAKER)
SILENCE: Final = ("timed out", "timeout occurred", "endpoint closing", "tcp handshaker shutdown")
UNKNOWN_HOST: Final = ("dns resolution", "errors resolving", "hostname lookup")
OTHER_PROTOCOL: Final = ("alpn", "http1.x", "trying to connect an http", "failed parsing http/2")
"""gRPC's words that come only where bytes of another protocol were received."""
TLS_WORDS: Final = ("ssl", "tls", "certificate", "handshak", "verification check")


def _pushback(error: grpc.aio.AioRpcError) -> str | None:
    value = next((value for name, value in error.trailing_metadata() or () if name == PUSHBACK), None)
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _is_silence(details: str) -> bool:
    """Whether gRPC gave up a connection on which nothing had been received: its limit is the same as ours."""
    text = details.lower()
    return any(words in text for words in SILENCE) and not any(words in text for words in UNKNOWN_HOST)


def _lost(tls: bool, details: str, where: str) -> TransportError:
    """Return the error of a call for which there was no connection, by gRPC's words for the reason."""
    text = details.lower().replace("tcp handshaker", "tcp connector")  # gRPC's name for what comes before TLS
    cause = cause_of(details)
    said = f"{where}: {cause or without_grpc(details)}"
    if any(words in text for words in UNKNOWN_HOST):
        return TransportError(said, sent=False, away=False)
    if tls and any(word in text for word in TLS_WORDS):
        # A connection that broke during the handshake says nothing against the certificate.
        return TLSError(said, retryable=any(words in text for words in BROKEN), sent=False)
    if any(words in text for words in OTHER_PROTOCOL):
        s = "s" if tls else ""
        return ProtocolMismatchError(
            f"{where}: this port does not speak gRPC; if it speaks HTTP/1.1 use http{s}:// or websocket{s}://",
            retryable=False,
            sent=False,
        )
    connecting = "failed to connect" in text
    if connecting and cause is None and "socket closed" in text:
        said = f"{where}: {CLOSED_IN_TLS if tls else CLOSED}"
    return TransportError(said, sent=not connecting)
