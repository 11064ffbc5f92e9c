"""The public settings of a client: `TLS`, `Timeouts`, `Retry`, `Limits`, `Telemetry`.

Users make them and pass them to `Client`; `casdk._calls.settings` reads them. The structs are frozen, check their
fields when they are made and raise `ConfigError`; they do no I/O.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final

import msgspec

from casdk._checks import MOST_SECONDS, check_count, check_number, check_rate, check_seconds, require
from casdk._wording import shown
from casdk.errors import ConfigError

__all__ = ["TLS", "Limits", "Retry", "Telemetry", "Timeouts"]

MIB: Final = 1024 * 1024


def _read_path(name: str, source: object) -> str:
    """Return the path of a PEM file as a ``str``; ``__fspath__`` of the caller's class runs here, not on the engine."""
    require(
        isinstance(source, str | os.PathLike),
        f"TLS: {name} must be a PEM file's path or PEM bytes, not {type(source).__name__}",
    )
    try:
        path = os.fsdecode(source)  # type: ignore[arg-type]
    except Exception as error:
        raise ConfigError(f"TLS: {name}: the path of a {type(source).__name__} cannot be read: {error}") from error
    try:
        usable = "\0" not in path and bool(os.fsencode(path))
    except UnicodeEncodeError:
        usable = False
    require(usable, f"TLS: {name}: no file can have the path {path!r}")
    return path


class TLS(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the secure schemes verify the server and identify the client; the same for all three schemes.

    Attributes:
        ca: PEM file, or PEM bytes, of the authorities to trust instead of the system's store.
        cert: PEM file, or PEM bytes, of the client's certificate chain (mTLS).
        key: PEM file, or PEM bytes, of the client's private key (mTLS); needs ``cert``.
        server_name: Name to send (SNI) and to verify instead of the host of the address.
        verify: ``False`` accepts any certificate; only for experiments. With ``transport="libraries"``, grpcio still
            needs a certificate that is valid today and contains a name.

    Raises:
        ConfigError: A field has a wrong value, or fields contradict each other.

    Examples:
        >>> from casdk import TLS
        >>> TLS(ca="ca.pem", server_name="localhost")
        TLS(ca='ca.pem', server_name='localhost')
    """

    ca: str | os.PathLike[str] | bytes | None = None
    cert: str | os.PathLike[str] | bytes | None = None
    key: str | os.PathLike[str] | bytes | None = None
    server_name: str | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        for name in ("ca", "cert", "key"):
            source = getattr(self, name)
            if source is not None and not isinstance(source, bytes):
                msgspec.structs.force_setattr(self, name, _read_path(name, source))
        require(isinstance(self.verify, bool), f"TLS: verify must be True or False, not {shown(self.verify)}")
        if self.server_name is not None:
            _check_server_name(self.server_name)
        require(
            (self.cert is None) == (self.key is None),
            "TLS: cert and key belong together, give both or neither",
        )
        require(self.verify or self.ca is None, "TLS: verify=False and ca= contradict each other, drop one")

    def __repr__(self) -> str:
        shown = [f"ca={_shown(self.ca)}"] if self.ca is not None else []
        shown += [f"cert={_shown(self.cert)}", "key=***"] if self.cert is not None else []
        shown += [f"server_name={self.server_name!r}"] if self.server_name is not None else []
        shown += [] if self.verify else ["verify=False"]
        return f"TLS({', '.join(shown)})"


def _check_server_name(name: object) -> None:
    if not isinstance(name, str):
        raise ConfigError(f"TLS: server_name must be a str, not {type(name).__name__}")
    try:
        usable = bool(name.encode("idna")) and name.isprintable() and not any(map(str.isspace, name))
    except UnicodeError:
        usable = False
    require(usable, f"TLS: server_name must be the name of a host, not {name!r}")


def _shown(source: str | os.PathLike[str] | bytes | None) -> str:
    return f"<{len(source)} bytes>" if isinstance(source, bytes) else repr(source)


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Time limits of a client, in seconds.

    Attributes:
        connect: For opening one connection, from DNS to TLS. 5 by default.
        read: For one request to be sent and answered. 60 by default.
        total: For a whole call, including loading, retries and waiting. By default ``None``: a call may take as long as
            its requests are answered within ``read``. The ``timeout=`` of a call replaces it, also ``timeout=None``.
        download: For downloading one image behind a URL. 30 by default.

    Raises:
        ConfigError: A value is not a positive number of seconds, or too large.

    Examples:
        >>> from casdk import Timeouts
        >>> Timeouts(read=10).connect
        5.0
    """

    connect: float = 5.0
    read: float = 60.0
    total: float | None = None
    download: float = 30.0

    def __post_init__(self) -> None:
        for name in ("connect", "read", "download"):
            check_seconds(self, name)
        if self.total is not None:
            check_seconds(self, "total", sys.float_info.max)


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """When a failed request is sent again, if that is safe and can help.

    Attributes:
        attempts: How often a request is sent in all. With 1 it is never sent again, unless ``patience`` is set.
        backoff: Seconds before the second attempt; doubled before each further one.
        max_backoff: Longest wait between two attempts, in seconds.
        jitter: Share of each wait that is random, from 0 to 1 (full jitter).
        budget: Share of a client's requests that may be repeats, from 0 to 1, so that repeats do not overload a failing
            server. 100 repeats are always allowed.
        patience: Seconds that a call waits for a server that is away: refused or reset connections, UNAVAILABLE, 502,
            503, and websockets closed for such a reason, but not unknown hosts, TLS errors or another protocol.
            Meanwhile one request of the call at a time tries the server; these do not count for ``attempts`` or
            ``budget``. A deadline ends the wait earlier. ``None`` is 60 if the client has had an answer before and the
            call has more than one request. Otherwise, and with ``attempts=1``, it is 0, so that a mistyped port fails
            at once.

    Raises:
        ConfigError: A value is out of its range.

    Examples:
        >>> from casdk import Retry
        >>> Retry(attempts=2, patience=300).max_backoff
        5.0
    """

    attempts: int = 5
    backoff: float = 0.1
    max_backoff: float = 5.0
    jitter: float = 0.5
    budget: float = 0.2
    patience: float | None = None

    def __post_init__(self) -> None:
        check_count(self, "attempts")
        numbers = ["backoff", "max_backoff", "jitter", "budget"] + (["patience"] if self.patience is not None else [])
        for name in numbers:
            value = check_number(self, name)
            require(value <= MOST_SECONDS, f"Retry: {name} must be at most {MOST_SECONDS:g}, not {shown(value)}")
        require(self.backoff >= 0, f"Retry: backoff must not be negative, not {self.backoff}")
        require(self.max_backoff >= self.backoff, "Retry: max_backoff must not be less than backoff")
        require(0 <= self.jitter <= 1, f"Retry: jitter must be between 0 and 1, not {self.jitter}")
        require(0 <= self.budget <= 1, f"Retry: budget must be between 0 and 1, not {self.budget}")
        require(
            self.patience is None or self.patience >= 0,
            f"Retry: patience must be a number of seconds, or None, not {self.patience}",
        )


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much a client may have in flight at once, over all its calls.

    Attributes:
        prefetch: Requests in flight per call. By default 8, or 4 for each server of a pool if that is more, and up to
            32 small requests while the server answers each within 20 ms.
        requests: Requests in flight to each server, over all calls.
        max_inflight_bytes: Bytes of requests and replies in flight, and of those that wait to be sent. One call may use
            an eighth of them for requests, so that large images leave room for other calls.
        max_item_bytes: Bytes of the largest image that is read or downloaded.
        max_message_bytes: Bytes of the largest request; larger batches are split.
        max_reply_bytes: Bytes of the largest reply that is accepted.
        connections: Connections to each server, if the protocol needs several (http).
        redirects: Redirects that are followed for one image URL.
        requests_per_second: Requests per second over all calls, sent at even intervals. By default there is no limit,
            and the client slows down while a server refuses requests as too many.
        items_per_second: Items per second over all calls: after a request of 32 items, the next one waits until these
            32 were due. No limit by default.

    Raises:
        ConfigError: A value is not a positive number, or too large.

    Examples:
        >>> from casdk import Limits
        >>> Limits(requests=128).max_item_bytes == 64 * 1024 * 1024
        True
    """

    prefetch: int | None = None
    requests: int = 64
    max_inflight_bytes: int = 64 * MIB
    max_item_bytes: int = 64 * MIB
    max_message_bytes: int = 16 * MIB
    max_reply_bytes: int = 1024 * MIB
    connections: int = 16
    redirects: int = 5
    requests_per_second: float | None = None
    items_per_second: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if name in ("prefetch", "requests_per_second", "items_per_second") and getattr(self, name) is None:
                continue
            if name.endswith("_per_second"):
                check_rate(self, name)
            else:
                check_count(self, name, least=0 if name == "redirects" else 1)


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """The OpenTelemetry providers for spans and metrics, if they are not the global ones of the process.

    Attributes:
        tracer_provider: An ``opentelemetry.trace.TracerProvider``; the global one by default.
        meter_provider: An ``opentelemetry.metrics.MeterProvider``; the global one by default.
    """

    tracer_provider: Any = None
    meter_provider: Any = None
