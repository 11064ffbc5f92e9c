"""What every channel is: bytes of one request in, bytes of its reply out."""

from __future__ import annotations

import asyncio
import socket
import ssl
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import inf, isfinite, isnan, nan
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar, Final, TypeAlias
from urllib.parse import SplitResult, unquote

from casdk._engine.logging import logger_of
from casdk._remarks import remark
from casdk._rust import Message
from casdk._transport.address import Endpoint, counterpart
from casdk._transport.channels.inspection import Check
from casdk.config import TLS, Limits, Timeouts
from casdk.errors import (
    AuthError,
    CasdkError,
    ConfigError,
    DeadlineError,
    OverloadedError,
    ProtocolMismatchError,
    ProxyError,
    ServerError,
    TransportError,
)

__all__ = [
    "CONTENT_TOO_LARGE",
    "LOG",
    "PING_SECONDS",
    "PONG_SECONDS",
    "PROXY_CREDENTIAL_WANTED",
    "PROXY_LIMIT",
    "SHOWN_CHARACTERS",
    "SLICE_BYTES",
    "TICK_SECONDS",
    "Channel",
    "Connected",
    "Headers",
    "Hidden",
    "is_plain",
    "no_tls",
    "no_tunnel",
    "overloaded",
    "proxy_headers",
    "read_pem",
    "refused",
    "run_out",
    "seconds_asked",
    "secured",
    "slices",
    "ssl_context",
    "too_large",
    "unavailable",
]

LOG: Final = logger_of("casdk.connections")

Headers: TypeAlias = Sequence[tuple[str, str]]
"""Name in lower case and value; the credential is among them, so they are never shown."""


PING_SECONDS = 20.0
"""Seconds in which nothing was received, while requests are in flight, after which a connection is asked by a ping
whether it still is one: a NAT or a load balancer that has forgotten it says nothing of it to either side."""
PONG_SECONDS = 5.0
"""Seconds that it has to answer the ping."""
TICK_SECONDS: Final = 0.001
"""Seconds by which a timer may be early."""

SLICE_BYTES: Final = 1 << 20
"""A large message is passed to a library in slices of this size, since libraries copy what they get, more than once.
Smaller slices would wake the server more often."""


def slices(message: bytes | memoryview) -> Iterator[memoryview]:
    """Cut a large message without a copy, so that only a slice of it is in a library's buffers."""
    view = memoryview(message)
    for start in range(0, len(message), SLICE_BYTES):
        yield view[start : start + SLICE_BYTES]


class Hidden(bytes):
    """A header's value whose `repr` hides it, as it may be the credential: a traceback may show locals."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"


class Channel(ABC):
    """The connections to one server, shared by all calls of a client; lives on the engine's loop.

    Connections are opened when first needed, used again, and replaced when they broke. A channel never retries, but for
    a request that the server has not begun with (`http2`), or that met a kept connection which the server had already
    closed.

    If a request was given up after it had time for an answer, and no byte was received since it was sent, its
    connection may have gone silent. It is retired: what is in flight there may still be answered, and the next request
    opens another one.

    Args:
        endpoint: The server.
        tls: How to verify a secure scheme.
        timeouts: ``connect`` and ``read`` are used here; a request's own deadline may be sooner.
        limits: ``max_reply_bytes`` and ``connections`` are used here.
        proxy: URL of the HTTP proxy to go through, if any.

    Attributes:
        connections: How many were opened so far.
    """

    has_waiters: ClassVar[bool] = False
    """Whether a request that finds a connection waits for a `Waiter` and for nothing else."""

    def __init__(self, endpoint: Endpoint, tls: TLS, timeouts: Timeouts, limits: Limits, proxy: str | None) -> None:
        self.endpoint = endpoint
        self.tls = tls
        self.timeouts = timeouts
        self.limits = limits
        self.proxy = proxy
        self.ping_seconds, self.pong_seconds = PING_SECONDS, PONG_SECONDS
        self.connections = 0
        self.connected_at = -inf
        """When the last connection was opened, as `time.perf_counter` has it."""

    def had_time(self, began: float, answer_by: float | None) -> bool:
        """Whether a request that is taken back had time for an answer, so that none says something of its connection.

        Args:
            began: When it was sent, in the engine's time.
            answer_by: As for `exchange`.
        """
        now = asyncio.get_running_loop().time()
        return now - began >= self.pong_seconds or (answer_by is not None and now >= answer_by - TICK_SECONDS)

    def connected(self) -> None:
        """Note and log that a connection was opened."""
        self.connections += 1
        self.connected_at = perf_counter()
        LOG.info("connection %d to %s is open", self.connections, self.endpoint)

    @property
    def is_connected(self) -> bool:
        """Whether a connection is open that the next request goes over, as far as is known; a library does not say."""
        return False

    def time_left(self, began: float, answer_by: float | None) -> float | None:
        """Return the seconds that are left for a request, if these are fewer than ``timeouts.read``.

        Args:
            began: When it is sent, in the engine's time.
            answer_by: As for `exchange`.
        """
        return None if answer_by is None or answer_by - began >= self.timeouts.read else answer_by - began

    def late(self, seconds: float | None = None) -> DeadlineError:
        """Return the error of a request that was not answered in time.

        Args:
            seconds: How long it had, if that was less than ``timeouts.read``.
        """
        seconds = self.timeouts.read if seconds is None else seconds
        return DeadlineError(f"{self.endpoint} sent no reply within {seconds:.6g} s")

    def was_closed(self, *, sent: bool) -> TransportError:
        """Return the error of a request whose connection was closed, or that came too late for one.

        Args:
            sent: Whether its bytes may have reached the server.
        """
        return TransportError(f"the connection to {self.endpoint} was closed", sent=sent)

    @abstractmethod
    async def exchange(
        self,
        request_id: str,
        message: bytes | memoryview,
        headers: Headers,
        context: Headers = (),
        answer_by: float | None = None,
        repeatable: bool = True,
        check: Check | None = None,
    ) -> bytes | Message:
        """Send one request and wait for its reply; cancelling takes the request back where the protocol can.

        Args:
            request_id: What the reply is paired by.
            message: The packed request.
            headers: Sent beside it, where the protocol has a place for them.
            context: W3C trace context of this one request, sent in the same place; a websocket has none for a
                message, so there it goes with the handshake of the request that opens the socket.
            answer_by: When it is given up, in the engine's time. A cancellation from then on means that no answer
                came, and not that nobody wants one any more.
            repeatable: Whether it may be sent again once its bytes may have reached the server.
            check: What the connection that it goes over has to be found right by first, if by anything.

        Returns:
            The packed reply.

        Raises:
            TransportError: No connection, or it broke.
            DeadlineError: No reply within ``timeouts.read``.
            ServerError: The server refused, outside a reply.
        """

    @abstractmethod
    async def dry_run(self, headers: Headers) -> bytes | None:
        """Ask the gateway whether its executors answer, by an empty request of its own making.

        Args:
            headers: As for `exchange`.

        Returns:
            Its packed status; ``None`` where the gateway does not know the question.

        Raises:
            CasdkError: As `exchange`.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close every connection; what is in flight fails with `TransportError`."""

    @staticmethod
    async def finish_closing() -> None:
        """Wait until nothing of the closed channels of this kind is left that a fork would break."""

    @staticmethod
    def mark_forked() -> None:
        """Note, in a forked child, that this process was forked while channels of this kind were open, or had been."""


def run_out(limits: Iterable[asyncio.Timeout]) -> None:
    """Make these timeouts expire now."""
    for limit in limits:
        if not limit.expired():
            limit.reschedule(0)


def is_plain(text: str) -> bool:
    """Whether a TLS library says, in OpenSSL's words, that what answered was no TLS."""
    return "WRONG_VERSION_NUMBER" in text or "wrong version number" in text


def no_tls(endpoint: Endpoint) -> ProtocolMismatchError:
    """Return the error of a secure scheme at a port without TLS."""
    plain = counterpart(endpoint.scheme, tls=False)
    return ProtocolMismatchError(
        f"{endpoint}: this port does not speak TLS; use {plain}://", retryable=False, sent=False
    )


CREDENTIAL_REFUSED: Final = frozenset({401, 403})
PROXY_CREDENTIAL_WANTED: Final = 407
BUSY: Final = 429
REQUEST_TIMEOUT: Final = 408
TEMPORARY: Final = frozenset({REQUEST_TIMEOUT, 502, 503, 504})
AWAY: Final = frozenset({502, 503})
"""Status codes of a proxy whose server does not answer now; `AWAY` has those that say that there is no server."""
UPGRADE_REQUIRED: Final = 426
REASON_CHARACTERS: Final = 100
"""Characters of the line that a proxy refuses with which go into a message."""
SHOWN_CHARACTERS: Final = 500
"""Characters of a header that go into a message."""


def refused(
    said: str,
    status: int,
    retry_after: str | None = None,
    *,
    sent: bool = True,
    name: str = "",
    request_id: str = "",
) -> CasdkError:
    """Return the error of an HTTP status, whichever protocol it came by.

    Args:
        said: The message.
        status: Of the server or of a proxy before it, and none that means success.
        retry_after: The header of that name as it was sent, if it was.
        sent: Whether bytes of the request may have reached the server.
        name: As `ServerError` has it.
        request_id: As `ServerError` has it.
    """
    if status in CREDENTIAL_REFUSED:
        return AuthError(said, sent=sent, name=name, request_id=request_id)
    if status == PROXY_CREDENTIAL_WANTED:
        return ProxyError(f"{said}: the proxy wants a user and a password", retryable=False, sent=False)
    if status == UPGRADE_REQUIRED:
        return ProtocolMismatchError(f"{said}: another protocol is spoken there", retryable=False, sent=sent)
    if status != BUSY and status not in TEMPORARY:
        return ServerError(said, sent=sent, name=name, request_id=request_id)
    asked = None
    if retry_after:
        said, asked = f"{said} (Retry-After: {remark(retry_after, SHOWN_CHARACTERS)!r})", seconds_asked(retry_after)
    if status == REQUEST_TIMEOUT:  # the server gave up before it had a whole request, e.g. on an idle connection
        sent = False
    if status == BUSY:
        return overloaded(said, asked, sent=sent, name=name, request_id=request_id)
    return unavailable(said, asked, sent=sent, away=status in AWAY)


def overloaded(said: str, asked: float | None = None, **details: Any) -> OverloadedError:
    """Return the error of a server that has too much to do.

    Args:
        said: The message, with the words in which it asked for a wait.
        asked: For how many seconds it asked, as `seconds_asked` reads it; ``None`` where it did not ask.
        details: More of the error's attributes.
    """
    return OverloadedError(said, retryable=_has_an_end(asked), retry_after=_in_numbers(asked), **details)


def unavailable(said: str, asked: float | None = None, *, away: bool, sent: bool = True) -> TransportError:
    """Return the error of a server that does not answer, as somebody before it says.

    Args:
        said: The message, with the words in which a wait was asked for.
        asked: As for `overloaded`.
        away: Whether it looks as if it were away for a while.
        sent: Whether bytes of the request may have reached it.
    """
    retryable, retry_after = _has_an_end(asked), _in_numbers(asked)
    return TransportError(said, retryable=retryable, retry_after=retry_after, away=away, sent=sent)


def _has_an_end(asked: float | None) -> bool:
    """Whether to ask again: not whoever asks for a wait without end, or for one that is no number."""
    return asked is None or isfinite(asked)


def _in_numbers(asked: float | None) -> float | None:
    return None if asked is None or isnan(asked) else asked


CONTENT_TOO_LARGE: Final = 413
PROXY_LIMIT: Final = "the server, or a proxy before it, takes less (nginx: client_max_body_size, 1 MB by default)"
"""Whose limit an HTTP 413 is, and where it is likely to be raised."""


def too_large(said: str) -> ServerError:
    """Return the error of a request that was refused for its size, before anybody began with it."""
    return ServerError(said, too_large=True, sent=False)


def no_tunnel(endpoint: Endpoint, answer: str) -> ProxyError:
    """Return the error of a proxy that opens no tunnel to the server; some of its answers say that the server is away.

    Args:
        endpoint: The server.
        answer: Status code and reason, as the proxy sent them.
    """
    status = int(answer[:3]) if answer[:3].isascii() and answer[:3].isdigit() else 0
    error = ProxyError(
        f"{endpoint}: the proxy opens no tunnel: HTTP {remark(answer, REASON_CHARACTERS)}",
        retryable=status == BUSY or status in TEMPORARY,
        sent=False,
        away=status in AWAY,
    )
    error.code = str(status) if status else ""
    return error


def seconds_asked(words: str) -> float:
    """Return for how many seconds a Retry-After asks, 0 where they are over: it is a number or a date (RFC 9110).

    ``inf`` is a number that no float can hold, ``nan`` what is neither a number nor a date.
    """
    words = words.strip()
    try:
        # Python's float also takes digits of other scripts, and underscores.
        seconds = float(words) if words.isascii() and "_" not in words else nan
    except ValueError:
        seconds = _seconds_until(words)
    if isnan(seconds) or seconds == -inf:
        return nan
    return max(seconds, 0.0)


def _seconds_until(date: str) -> float:
    try:
        then = parsedate_to_datetime(date)
        if then.tzinfo is None:  # one of the forms of RFC 9110 names no time zone, and means this one
            then = then.replace(tzinfo=UTC)
        return (then - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return nan


def read_pem(source: str | bytes | object, what: str) -> bytes:
    """Return PEM bytes, read from a file unless they are bytes already.

    Raises:
        ConfigError: The file cannot be read, or holds no PEM.
    """
    if isinstance(source, bytes):
        pem = source
    else:
        try:
            pem = Path(str(source)).expanduser().read_bytes()
        except OSError as error:
            raise ConfigError(f"TLS: {what}: {error.strerror}: {source}") from error
    if b"-----BEGIN" not in pem:
        raise ConfigError(f"TLS: {what} holds no PEM block")
    return pem


def ssl_context(tls: TLS, alpn: list[str]) -> ssl.SSLContext:
    """Return the context that the libraries on Python's own ssl module use.

    Raises:
        ConfigError: A certificate or key cannot be read or does not fit.
    """
    # To load the system's certificates takes its time, which is everybody's.
    context = ssl.create_default_context() if tls.ca is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if tls.ca is not None:
            context.load_verify_locations(cadata=read_pem(tls.ca, "ca").decode("ascii"))
        if tls.cert is not None and tls.key is not None:
            _load_chain(context, tls.cert, tls.key)
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise ConfigError(f"TLS: ca, cert or key cannot be used: {error}") from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(alpn)
    return context


class Connected(ssl.SSLSocket):
    """A TLS socket that is closed where the other end is gone before the handshake.

    Python's own leaves one that was reset by then to the garbage collector: no caller has seen it yet.
    """

    def getpeername(self) -> object:
        """Return the other end's address; the first that a handshake asks for."""
        try:
            return super().getpeername()
        except OSError:
            self.close()
            raise ConnectionResetError("closed before the handshake") from None


def secured(context: ssl.SSLContext, sock: socket.socket, host: str) -> ssl.SSLSocket:
    """Shake hands on a connected socket, which from then on belongs to the socket returned, or is closed."""
    context.sslsocket_class = Connected
    return context.wrap_socket(sock, server_hostname=host)


def proxy_headers(proxy: SplitResult) -> dict[str, str]:
    """Return what a proxy with a password in its URL is sent."""
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def _load_chain(context: ssl.SSLContext, cert: object, key: object) -> None:
    """Load a client certificate; ssl reads files only, so bytes go through a private one that is gone at once."""
    import tempfile

    try:
        with tempfile.TemporaryDirectory() as directory:
            paths = []
            for name, source in (("cert", cert), ("key", key)):
                path = Path(directory, name + ".pem")
                path.touch(mode=0o600)
                path.write_bytes(read_pem(source, name))
                paths.append(path)
            context.load_cert_chain(str(paths[0]), str(paths[1]), password=_no_password)
    except ssl.SSLError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"TLS: cert and key go through files in {tempfile.gettempdir()}: {reason}") from error


def _no_password() -> str:
    """Raise where OpenSSL would ask the terminal, and stop everything until somebody answers."""
    raise ConfigError("TLS: key is encrypted: give one without a pass phrase")
