"""Settings of a client: frozen structs, checked when they are made."""

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
    """Return the path of a PEM file; a path of the caller's own class is asked for it here, not on the engine."""
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
    """How a secure scheme verifies the server and presents itself; the same for all three.

    Attributes:
        ca: PEM file, or PEM bytes, of the authorities to trust instead of the system's store.
        cert: PEM file, or PEM bytes, of the client's certificate chain (mTLS).
        key: PEM file, or PEM bytes, of the client's private key (mTLS); needs ``cert``.
        server_name: Name to ask for (SNI) and to verify instead of the address's host.
        verify: ``False`` accepts any certificate. Only for experiments; grpc pins the one it is shown, which must be
            valid today and hold a name.
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
    """Seconds a client waits. Nothing waits without a limit by default.

    Attributes:
        connect: For one connection, DNS to TLS.
        read: For one request to be sent and answered.
        total: For a whole call, loading, retries and waiting included; ``None`` leaves a call as long as it
            takes while requests keep being answered within ``read``. A call's ``timeout=`` replaces it, ``None`` too.
        download: For one image behind a URL.
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
    """When a failed request is sent again: only what is safe and can help.

    Attributes:
        attempts: Times a request is sent in all; 1 never sends again, unless ``patience`` is given.
        backoff: Seconds before the second attempt, doubled for each one after it.
        max_backoff: Longest wait between two attempts, in seconds.
        jitter: Share of each wait that is random, 0 to 1 (full jitter).
        budget: Share of a client's requests that may be repeats, 0 to 1, above a floor of 100: a dying server
            is not stormed.
        patience: Seconds that the server may be away: refused or reset connections, UNAVAILABLE, 502, 503, and
            websockets closed for such a reason, but not unknown hosts, TLS or another protocol. A call waits for it,
            with one request at a time, and none of them counts in ``attempts`` or ``budget``; a deadline ends it
            sooner. ``None`` is 60 once the client has had an answer and the call has more than one request, else 0, so
            that a mistyped port fails at once; with ``attempts=1`` it is 0.
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
    """How much a client holds at once, over all its calls.

    Attributes:
        prefetch: Requests in flight per call; by default 8, or 4 for each of several servers if that is more, and up
            to 32 small ones while the server answers each within 20 ms.
        requests: Requests in flight over all calls, to each server.
        max_inflight_bytes: Bytes of requests and replies in flight or waiting for their turn; one call has an eighth
            of them in requests, so that large images leave room for other calls.
        max_item_bytes: Largest image, read or downloaded.
        max_message_bytes: A request is cut where it would grow beyond this.
        max_reply_bytes: Largest reply accepted.
        connections: Connections to each server, where the protocol needs more than one (http).
        redirects: Redirects followed for one image URL.
        requests_per_second: Requests sent in a second over all calls, evenly: none sooner after another. By default as
            many as there are, and fewer while a server refuses some as too many.
        items_per_second: Items sent in a second: after a request of 32 items the next waits until they were due.
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
    """Where OpenTelemetry's spans and metrics go, if not to the process's global providers.

    Attributes:
        tracer_provider: An ``opentelemetry.trace.TracerProvider``; the global one by default.
        meter_provider: An ``opentelemetry.metrics.MeterProvider``; the global one by default.
    """

    tracer_provider: Any = None
    meter_provider: Any = None
