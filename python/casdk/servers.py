"""The public settings and states of a pool: `Server`, `Pool`, and the `ServerStatus` that `Client.servers` returns.

`casdk._calls.settings` reads them when a client is made. The structs check their fields and do no I/O.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal

import msgspec

from casdk._checks import check_number, check_rate, check_seconds
from casdk._transport.address import Endpoint, check_tls, parse_address
from casdk._transport.tokens import read_credential
from casdk._wording import shown
from casdk.config import TLS
from casdk.errors import ConfigError

__all__ = ["Pool", "Server", "ServerStatus"]

MOST_WEIGHT: Final = 1e6
"""The largest weight of a server; a larger ratio of two weights has no use."""


class Server(msgspec.Struct, frozen=True, omit_defaults=True):
    """One server of a `Client` with several, if it needs more than an address.

    Attributes:
        address: ``scheme://host[:port]``, as for `Client`.
        weight: Share of the requests compared with servers of the same speed, more than 0: a server of weight 2 gets
            twice as many requests as one of weight 1.
        tls: How its secure scheme verifies the server; the client's ``tls`` by default.
        credential: As for `Client`; the client's credential by default.
        requests_per_second: Most requests per second to this server, sent evenly; no limit by default.
            `Limits.requests_per_second` limits all servers together as well.
        items_per_second: Most items per second to this server; no limit by default.

    Raises:
        ConfigError: The address, or an option, cannot work.

    Examples:
        >>> from casdk import Server
        >>> Server("grpc://127.0.0.1:51000", weight=2).address
        'grpc://127.0.0.1:51000'
    """

    address: str
    weight: float = 1.0
    tls: TLS | None = None
    credential: str | Callable[[], str | Awaitable[str]] | Mapping[str, str] | None = None
    requests_per_second: float | None = None
    items_per_second: float | None = None

    def __post_init__(self) -> None:
        endpoint = parse_address(self.address)
        check_number(self, "weight")
        if not 0 < self.weight <= MOST_WEIGHT:
            raise ConfigError(f"Server: weight must be more than 0, at most {MOST_WEIGHT:g}, not {shown(self.weight)}")
        if self.tls is not None:
            if not isinstance(self.tls, TLS):
                raise ConfigError(f"Server: tls must be a casdk.TLS, not {type(self.tls).__name__}")
            check_tls([endpoint])
        for name in ("requests_per_second", "items_per_second"):
            if getattr(self, name) is not None:
                check_rate(self, name)
        msgspec.structs.force_setattr(self, "credential", read_credential(self.credential))

    @property
    def endpoint(self) -> Endpoint:
        """The parsed address."""
        return parse_address(self.address)

    def __repr__(self) -> str:
        shown = [repr(self.address)] + ([f"weight={self.weight:g}"] if self.weight != 1 else [])
        shown += [f"tls={self.tls!r}"] if self.tls is not None else []
        shown += ["credential=***"] if self.credential is not None else []
        for name in ("requests_per_second", "items_per_second"):
            shown += [f"{name}={value:g}"] if (value := getattr(self, name)) is not None else []
        return f"Server({', '.join(shown)})"


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """How a client of several servers uses them.

    Attributes:
        resolve: Whether the name in an address is looked up and each of its IP addresses is a server of its own, as for
            the headless services of Kubernetes.
        resolve_seconds: Seconds between two look-ups of a name, while there are calls. A server whose address has
            vanished gets no more requests; requests in flight there are still answered.
        hedge: Share of the requests, from 0 to 1, that may also be sent to a second server because the first has not
            answered within the time of 95 of 100 requests of the same verb. The first answer counts, and the other
            request is cancelled. 0 by default. An ``index`` is never sent twice.
        check_space: Whether all servers must have the vector space of the first one. If so, two small requests, with a
            sentence and an image, are the first ones for each model on each connection, and a server with another
            space raises `ModelMismatchError`, so rows of two models are never mixed.
        index_on: Address of the server for `Client.index` and `Client.search`, because an index lives on one server. If
            it is not one of the client's servers, it gets the client's credential and TLS.

    Raises:
        ConfigError: An option cannot work.

    Examples:
        >>> from casdk import Pool
        >>> Pool(resolve=True, resolve_seconds=10).index_on is None
        True
    """

    resolve: bool = False
    resolve_seconds: float = 30.0
    hedge: float = 0.0
    check_space: bool = True
    index_on: str | None = None

    def __post_init__(self) -> None:
        for name in ("resolve", "check_space"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"Pool: {name} must be True or False, not {shown(getattr(self, name))}")
        check_seconds(self, "resolve_seconds")
        check_number(self, "hedge")
        if not 0 <= self.hedge <= 1:
            raise ConfigError(f"Pool: hedge must be from 0 to 1, not {shown(self.hedge)}")
        if self.index_on is not None:
            parse_address(self.index_on)


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one server, as its client knows it; see `Client.servers`.

    Attributes:
        address: ``scheme://host:port``.
        state: ``"ready"``; ``"away"`` while it gets no requests, or while calls wait for it; ``"returning"`` when it is
            reachable again and gets one request; ``"draining"`` when its address no longer belongs to the name.
        last_error: The message of the last failed or refused request; ``None`` if there was none.
        share: Share of the client's requests that it got, from 0 to 1.
    """

    address: str
    state: Literal["ready", "away", "returning", "draining"]
    last_error: str | None
    share: float
