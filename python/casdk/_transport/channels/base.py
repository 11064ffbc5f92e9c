"""The base class of channels: bytes of one request in, bytes of its reply out; and what several channels share.

A `Transport` opens one channel. The functions here make errors of HTTP statuses, proxies and TLS, and TLS contexts.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import inf, isfinite, isnan, nan
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import SplitResult, unquote

from casdk._engine.logging import logger_of
from casdk._remarks import remark
from casdk._rust import Message
from casdk._transport.address import Endpoint, counterpart
from casdk._transport.channels.options import DEFAULTS, ExchangeOptions, Headers
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

if TYPE_CHECKING:
    from casdk._transport.channels.http2_direct import DirectConnection

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

PING_SECONDS = 20.0
"""If nothing was received for so long while requests are in flight, a ping checks the connection: a NAT or a load
balancer that has dropped it does not notify either side."""
PONG_SECONDS = 5.0
"""How long the server has to answer the ping."""
TICK_SECONDS: Final = 0.001
"""Seconds by which a timer may be early."""

SLICE_BYTES: Final = 1 << 20
"""A large message is passed to a library in slices of this size, since libraries copy their input more than once.
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

    Connections are opened when first needed, used again, and replaced when they broke. A channel repeats a request only
    in two cases: the server has not begun with it (`http2`), or an idle connection was closed by the server before the
    request reached it.

    If a request was given up after it had time for an answer, and no byte was received since it was sent, its
    connection may have gone silent. It is retired: requests in flight on it may still be answered, and the next request
    opens another connection.

    Args:
        endpoint: The server.
        tls: How to verify a secure scheme.
        timeouts: Its ``connect`` and ``read`` are used; a request's own deadline may be sooner.
        limits: Its ``max_reply_bytes`` and ``connections`` are used.
        proxy: URL of the HTTP proxy to go through, if any.

    Attributes:
        connections: How many connections were opened so far.
    """

    has_waiters: ClassVar[bool] = False
    """Whether a request on an open connection waits only for a `Waiter`, and so needs no task."""

    def __init__(self, endpoint: Endpoint, tls: TLS, timeouts: Timeouts, limits: Limits, proxy: str | None) -> None:
        self.endpoint = endpoint
        self.tls = tls
        self.timeouts = timeouts
        self.limits = limits
        self.proxy = proxy
        self.ping_seconds, self.pong_seconds = PING_SECONDS, PONG_SECONDS
        self.connections = 0
        self.connected_at = -inf
        """When the last connection was opened, by `time.perf_counter`."""

    def had_time(self, began: float, answer_by: float | None) -> bool:
        """Whether a cancelled request had time for an answer, so that the connection may have gone silent.

        Args:
            began: When it was sent, in the engine's time.
            answer_by: Its deadline, as `ExchangeOptions` has it.
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
        """Whether the next request finds an open connection; false for channels on libraries, which do not show it."""
        return False

    def time_left(self, began: float, answer_by: float | None) -> float | None:
        """Return the seconds that are left for a request, if they are fewer than ``timeouts.read``.

        Args:
            began: When it is sent, in the engine's time.
            answer_by: Its deadline, as `ExchangeOptions` has it.
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
        """Return the error of a request whose connection was closed here, or that came after the closing.

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
        options: ExchangeOptions = DEFAULTS,
    ) -> bytes | Message:
        """Send one request and wait for its reply. Cancelling it also cancels it at the server, if the protocol can.

        Args:
            request_id: The request's id, which the reply repeats.
            message: The packed request.
            headers: Headers of the request; a websocket sends them with its handshake.
            options: What the exchange has to observe.

        Returns:
            The packed reply.

        Raises:
            TransportError: The connection failed, or broke.
            DeadlineError: No reply came within ``timeouts.read``.
            ServerError: The server refused the request, by a status of the protocol.
        """

    @abstractmethod
    async def dry_run(self, headers: Headers) -> bytes | None:
        """Ask the gateway whether its executors answer, by jina's dry run.

        Args:
            headers: As for `exchange`.

        Returns:
            The packed status; ``None`` if the gateway is too old to have a dry run.

        Raises:
            CasdkError: The errors of `exchange`.
        """

    async def open_direct(self, headers: Headers) -> DirectConnection | None:
        """Open a connection for calls whose thread sends and receives by itself; ``None`` if there is none."""
        return None

    @abstractmethod
    async def aclose(self) -> None:
        """Close every connection; requests in flight fail with `TransportError`."""

    @staticmethod
    async def finish_closing() -> None:
        """Wait until the closed channels of this class have nothing left that a fork would break."""

    @staticmethod
    def mark_forked() -> None:
        """Note, in a forked child, that channels of this class were in use in the parent."""


def run_out(limits: Iterable[asyncio.Timeout]) -> None:
    """Make these timeouts expire now."""
    for limit in limits:
        if not limit.expired():
            limit.reschedule(0)


def is_plain(text: str) -> bool:
    """Whether the message of a TLS library, in OpenSSL's words, says that the answer was no TLS."""
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
        status: The status of the server, or of a proxy before it; none that means success.
        retry_after: The header of that name, as it was sent, if it was.
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
    if status == REQUEST_TIMEOUT:  # the server did not get the whole request in time, e.g. on an idle connection
        sent = False
    if status == BUSY:
        return overloaded(said, asked, sent=sent, name=name, request_id=request_id)
    return unavailable(said, asked, sent=sent, away=status in AWAY)


def overloaded(said: str, asked: float | None = None, **details: Any) -> OverloadedError:
    """Return the error of a server that has too much to do.

    Args:
        said: The message, with the server's words if it asked for a wait.
        asked: Seconds that it asked to wait, as `seconds_asked` returns them; ``None`` if it did not ask.
        details: Further attributes of the error.
    """
    return OverloadedError(said, retryable=_has_an_end(asked), retry_after=_in_numbers(asked), **details)


def unavailable(said: str, asked: float | None = None, *, away: bool, sent: bool = True) -> TransportError:
    """Return the error of a server that does not answer, as a proxy before it reports.

    Args:
        said: The message, with the proxy's words if it asked for a wait.
        asked: As for `overloaded`.
        away: Whether the server seems to be away for a while.
        sent: Whether bytes of the request may have reached the server.
    """
    retryable, retry_after = _has_an_end(asked), _in_numbers(asked)
    return TransportError(said, retryable=retryable, retry_after=retry_after, away=away, sent=sent)


def _has_an_end(asked: float | None) -> bool:
    """Whether the request may be repeated: not if the wait that was asked for is infinite, or no number."""
    return asked is None or isfinite(asked)


def _in_numbers(asked: float | None) -> float | None:
    return None if asked is None or isnan(asked) else asked


CONTENT_TOO_LARGE: Final = 413
PROXY_LIMIT: Final = "the server, or a proxy before it, takes less (nginx: client_max_body_size, 1 MB by default)"
"""Which limit a request has exceeded that is refused with HTTP 413, and where to raise it."""


def too_large(said: str) -> ServerError:
    """Return the error of a request that was refused for its size, before the server began with it."""
    return ServerError(said, too_large=True, sent=False)


def no_tunnel(endpoint: Endpoint, answer: str) -> ProxyError:
    """Return the error of a proxy that opens no tunnel to the server; some answers mean that the server is away.

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
    """Return the seconds that a Retry-After asks to wait, from a number or a date (RFC 9110); 0 for a past date.

    The result is ``inf`` for a number that no float can hold, and ``nan`` for other words.
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
        if then.tzinfo is None:  # one of RFC 9110's forms names no time zone, and means UTC
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
    """Return the context for TLS by Python's ssl module.

    Raises:
        ConfigError: A certificate or key cannot be read or does not fit.
    """
    # Without `tls.ca` only: loading the system's certificates takes long, and blocks all calls meanwhile.
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
    """A TLS socket that is closed if the server has reset the connection before the handshake.

    Python's own class would leave such a socket open until a garbage collection.
    """

    def getpeername(self) -> object:
        """Return the server's address, which is the first thing that a handshake reads."""
        try:
            return super().getpeername()
        except OSError:
            self.close()
            raise ConnectionResetError("closed before the handshake") from None


def secured(context: ssl.SSLContext, sock: socket.socket, host: str) -> ssl.SSLSocket:
    """Do the TLS handshake on a connected socket; the returned socket owns it, or it is closed."""
    context.sslsocket_class = Connected
    return context.wrap_socket(sock, server_hostname=host)


def proxy_headers(proxy: SplitResult) -> dict[str, str]:
    """Return the headers for a proxy whose URL has a user and password; none for another one."""
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def _load_chain(context: ssl.SSLContext, cert: object, key: object) -> None:
    """Load a client certificate. The ssl module reads only files, so bytes go through private files."""
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
    """Raise an error where OpenSSL would ask for a pass phrase at the terminal, and block the engine."""
    raise ConfigError("TLS: key is encrypted: give one without a pass phrase")
