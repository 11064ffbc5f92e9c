"""The settings of a client: checked, stored for a pickle, and turned into the objects that its calls share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

import msgspec

from casdk._calls.options import MINIBATCH
from casdk._calls.space import Space
from casdk._content.inputs import Sources
from casdk._modules import load
from casdk._transport.address import PROTOCOLS, Endpoint, Protocols, check_tls, parse_address
from casdk._transport.greenlets import check_greenlets
from casdk._transport.tokens import read_credential
from casdk.config import TLS, Limits, Retry, Telemetry, Timeouts
from casdk.errors import ConfigError
from casdk.models import Profile
from casdk.servers import Pool, Server

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from casdk._calls.merging import Coalescer
    from casdk._calls.telemetry import Instruments
else:
    from typing import TypeVar  # it takes no default before Python 3.13

__all__ = [
    "ClientOptions",
    "Profiled_co",
    "Settings",
    "make_coalescer",
    "make_instruments",
    "read_servers",
    "read_settings",
]


if TYPE_CHECKING:
    Profiled_co = TypeVar("Profiled_co", default=Profile | Any, covariant=True)
    """What `Client.profile` returns: a `Profile`, or one of each server. A ``Client`` of neither kind is one of any."""
else:
    Profiled_co = TypeVar("Profiled_co", covariant=True)


class ClientOptions(TypedDict, total=False):
    """Options of `Client`, but for what decides whether it has one server or several."""

    tls: TLS | None
    timeout: float | None
    timeouts: Timeouts | None
    retry: Retry | None
    limits: Limits | None
    proxy: str | None
    transport: Literal["own", "libraries"] | None
    coalesce: bool | float
    telemetry: bool | Telemetry
    local_files: bool
    fetch_urls: bool
    expect_space: str | None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The checked arguments of a client; they are pickled with it.

    ``are_several`` says whether it was made for a list of servers or with a `Pool`, even if there is only one server.
    """

    servers: tuple[Server, ...]
    pool: Pool
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
    expect_space: Space | None = None
    are_several: bool = False

    @property
    def endpoints(self) -> list[Endpoint]:
        """The endpoints of the servers."""
        return [server.endpoint for server in self.servers]

    @property
    def address(self) -> str:
        """The addresses of the servers, with commas between them."""
        return ",".join(map(str, self.endpoints))

    @property
    def is_pooled(self) -> bool:
        """Whether the client needs a pool: it has several servers, or a server with a pace, or names to look up."""
        paced = any(server.requests_per_second or server.items_per_second for server in self.servers)
        return len(self.servers) > 1 or paced or self.pool.resolve

    @property
    def shown(self) -> str:
        """The servers as `Client` takes them."""
        addresses = self.address.split(",")
        return repr(addresses if len(addresses) > 1 else addresses[0])

    def obstacle(self) -> str | None:
        """Return which setting cannot be pickled, e.g. a secret in clear, and what to do; ``None`` if all can."""
        if isinstance(self.credential, str) or any(isinstance(server.credential, str) for server in self.servers):
            return "credential is a str (set CLIP_AUTH_TOKEN where it is used, or give a function of a module)"
        if any(isinstance(tls.key, bytes) for tls in (self.tls, *(server.tls for server in self.servers)) if tls):
            return "TLS key is bytes (give its file's path)"
        if self.proxy is not None and "@" in self.proxy:
            return "proxy holds a password (set HTTPS_PROXY where it is used)"
        if isinstance(self.telemetry, Telemetry):
            return "telemetry has providers of its own (give telemetry=True and set the global ones where it is used)"
        return None

    def check_portable(self) -> None:
        """Check that they can be pickled.

        Raises:
            ConfigError: They hold a secret in clear, or telemetry's providers.
        """
        obstacle = self.obstacle()
        if obstacle is not None:
            raise ConfigError(f"a client whose {obstacle} cannot be pickled")

    def prepare(self) -> None:
        """Import all that calls need, as `prepare` does: settings that were unpickled have imported nothing yet."""
        prepare(self.endpoints, self.transport)

    def __repr__(self) -> str:
        return f"<settings of a client of {self.address}>"


def prepare(endpoints: list[Endpoint], protocols: Protocols) -> None:
    """Import all that calls to these servers need.

    Raises:
        ConfigError: As `check_greenlets` and `load` have it.
    """
    for endpoint in endpoints:
        check_greenlets(endpoint, protocols)
        load(endpoint, protocols)


def read_settings(
    server: object,
    credential: object,
    *,
    pool: Pool | None,
    tls: TLS | None,
    timeout: float | None,
    timeouts: Timeouts | None,
    retry: Retry | None,
    limits: Limits | None,
    proxy: str | None,
    transport: object,
    coalesce: bool | float,
    telemetry: bool | Telemetry,
    local_files: bool,
    fetch_urls: bool,
    expect_space: str | None,
) -> Settings:
    """Return what a client is made with, checked; the arguments are those of `Client`.

    Raises:
        ConfigError: The address, or an option, cannot work.
    """
    servers, protocols = read_servers(server), read_protocols(transport)
    endpoints = [one.endpoint for one in servers]
    prepare(endpoints, protocols)
    from casdk._transport.proxy import check_proxy

    for name, option, kind in (
        ("pool", pool, Pool),
        ("tls", tls, TLS),
        ("timeouts", timeouts, Timeouts),
        ("retry", retry, Retry),
        ("limits", limits, Limits),
    ):
        if option is not None and not isinstance(option, kind):
            raise ConfigError(f"{name} must be a casdk.{kind.__name__}, not {type(option).__name__}")
    if tls is not None:
        check_tls(endpoints)
    if timeout is not None:
        if timeouts is not None:
            raise ConfigError("give timeout= or timeouts=, not both")
        timeouts = Timeouts(total=timeout)
    return Settings(
        servers=servers,
        pool=pool or Pool(),
        credential=read_credential(credential),
        tls=tls or TLS(),
        timeouts=timeouts or Timeouts(),
        limits=limits or Limits(),
        retry=retry or Retry(),
        proxy=check_proxy(proxy),
        transport=protocols,
        coalesce=coalesce,
        telemetry=telemetry,
        sources=read_sources(local_files, fetch_urls),
        expect_space=None if expect_space is None else Space.read(expect_space, "expect_space"),
        are_several=not isinstance(server, str) or pool is not None,
    )


def read_servers(server: Any) -> tuple[Server, ...]:
    """Return the servers that a client is made for, checked.

    Raises:
        ConfigError: There is none, one is there twice, or an address cannot work.
    """
    if isinstance(server, str):
        return (Server(server),)
    if isinstance(server, Server):
        raise ConfigError("the servers of a client are a list: write Client([Server(...)])")
    if not isinstance(server, list | tuple):
        # Raises the error of a value that is no address.
        parse_address(server)
    servers = tuple(one if isinstance(one, Server) else Server(one) for one in server)
    if not servers:
        raise ConfigError("a client needs at least one server: the list is empty")
    addresses = [str(one.endpoint) for one in servers]
    for position, address in enumerate(addresses):
        if address in addresses[:position]:
            raise ConfigError(
                f"{address} is among the servers twice: give one of them, with weight=2 if it is to count so"
            )
    return servers


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
    """Return the checked ``transport`` of a client: casdk's own protocols, or those of libraries.

    Raises:
        ConfigError: It is none of the allowed values.
    """
    if transport is not None and (not isinstance(transport, str) or transport not in PROTOCOLS):
        raise ConfigError(f"transport must be 'own', 'libraries' or None, not {transport!r}")
    return cast(Protocols, transport)


def make_coalescer(settings: Settings) -> Coalescer | None:
    """Return the coalescer, which merges small calls, if ``coalesce`` asks for one.

    Raises:
        ConfigError: ``coalesce`` is neither a bool nor a window in milliseconds.
    """
    from casdk._calls.merging import Coalescer

    coalesce = settings.coalesce
    if isinstance(coalesce, bool):
        return Coalescer(MINIBATCH, 0.0) if coalesce else None
    if not isinstance(coalesce, int | float) or not 0 < coalesce <= 1000:
        raise ConfigError(f"coalesce must be True, False or a window of up to 1000 ms, not {coalesce!r}")
    return Coalescer(MINIBATCH, coalesce / 1000)


def make_instruments(settings: Settings) -> Instruments | None:
    """Return the instruments, which record calls, if ``telemetry`` asks for them.

    Raises:
        ConfigError: ``telemetry`` has another type, or OpenTelemetry is missing.
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
    return Instruments(settings.endpoints, providers.tracer_provider, providers.meter_provider)
