"""The settings of a client: checked, stored for a pickle, and turned into what its calls share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec

from casdk._calls.options import MINIBATCH
from casdk._content.inputs import Sources
from casdk._transport.address import PROTOCOLS, Endpoint, Protocols
from casdk.config import TLS, Limits, Retry, Telemetry, Timeouts
from casdk.errors import ConfigError

if TYPE_CHECKING:
    from casdk._calls.merging import Coalescer
    from casdk._calls.telemetry import Instruments

__all__ = ["Settings", "make_coalescer", "make_instruments", "read_credential", "read_protocols", "read_sources"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a client was made with, checked; they are pickled with it."""

    endpoint: Endpoint
    credential: Any
    tls: TLS
    timeouts: Timeouts
    limits: Limits
    retry: Retry
    proxy: str | None
    transport: Protocols
    coalesce: bool | float
    telemetry: bool | Telemetry
    sources: Sources

    def obstacle(self) -> str | None:
        """Return what cannot be pickled, a secret in clear above all, and what to do instead; ``None`` if all can."""
        if isinstance(self.credential, str):
            return "credential is a str (set CLIP_AUTH_TOKEN where it is used, or give a function of a module)"
        if isinstance(self.tls.key, bytes):
            return "TLS key is bytes (give its file's path)"
        if self.proxy is not None and "@" in self.proxy:
            return "proxy holds a password (set HTTPS_PROXY where it is used)"
        if isinstance(self.telemetry, Telemetry):
            return "telemetry has providers of its own (give telemetry=True and set the global ones where it is used)"
        return None

    def __repr__(self) -> str:
        return f"<settings of a client of {self.endpoint}>"


def read_credential(credential: object) -> Any:
    """Return a client's credential, checked; a callable is asked later.

    Raises:
        ConfigError: It is none.
    """
    if credential is None or callable(credential):
        return credential
    if isinstance(credential, Mapping):
        unknown = [key for key in credential if key != "Authorization"]
        if unknown:
            raise ConfigError(f"credential has the key {unknown[0]!r}; the one that is read is 'Authorization'")
        if not credential:
            return None
        credential = credential["Authorization"]
    from casdk._transport.credentials import check_token

    return check_token(credential)


def read_sources(local_files: bool, fetch_urls: bool) -> Sources:
    """Return where a client may look for images, checked.

    Raises:
        ConfigError: A value is neither True nor False.
    """
    for name, value in (("local_files", local_files), ("fetch_urls", fetch_urls)):
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be True or False, not {value!r}")
    return Sources(local_files, fetch_urls)


def read_protocols(transport: object) -> Protocols:
    """Return who speaks the protocols of a client's connections, checked.

    Raises:
        ConfigError: It is neither of the two.
    """
    if transport is not None and (not isinstance(transport, str) or transport not in PROTOCOLS):
        raise ConfigError(f"transport must be 'own', 'libraries' or None, not {transport!r}")
    return cast(Protocols, transport)


def make_coalescer(settings: Settings) -> Coalescer | None:
    """Return what merges small calls, if anything does.

    Raises:
        ConfigError: ``coalesce`` is no such number.
    """
    from casdk._calls.merging import Coalescer

    coalesce = settings.coalesce
    if isinstance(coalesce, bool):
        return Coalescer(MINIBATCH, 0.0) if coalesce else None
    if not isinstance(coalesce, int | float) or not 0 < coalesce <= 1000:
        raise ConfigError(f"coalesce must be True, False or a window of up to 1000 ms, not {coalesce!r}")
    return Coalescer(MINIBATCH, coalesce / 1000)


def make_instruments(settings: Settings) -> Instruments | None:
    """Return what records calls, if telemetry is wanted.

    Raises:
        ConfigError: ``telemetry`` is something else, or OpenTelemetry is missing.
    """
    telemetry = settings.telemetry
    if telemetry is False:
        return None
    if telemetry is not True and not isinstance(telemetry, Telemetry):
        raise ConfigError(f"telemetry must be True, False or a casdk.Telemetry, not {type(telemetry).__name__}")
    try:
        from casdk._calls.telemetry import Instruments
    except ImportError as error:
        raise ConfigError('telemetry= needs OpenTelemetry: pip install "casdk[otel]"') from error
    providers = Telemetry() if telemetry is True else telemetry
    return Instruments(settings.endpoint, providers.tracer_provider, providers.meter_provider)
