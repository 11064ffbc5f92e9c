"""Several servers behind one client: `Server`, `Pool`, and what `Client.servers` returns of each."""

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


class Server(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of several servers behind a `Client`, where it needs more than an address.

    Attributes:
        address: ``scheme://host[:port]``, as `Client` takes it.
        weight: Its share compared with those of others that are as quick, a number more than 0: one of weight 2 gets
            twice as many requests as one of weight 1.
        tls: How its secure scheme verifies; the client's ``tls`` by default.
        credential: What `Client` takes as ``credential``; the client's own by default.
        requests_per_second: Requests sent to it in a second, evenly; by default as many as there are. What
            `Limits.requests_per_second` says of all servers together holds as well.
        items_per_second: Items sent to it in a second.

    Raises:
        ConfigError: The address, or an option, cannot work.

    Example:
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
        """Where it is and how to speak to it."""
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
        resolve: Whether the name in an address is looked up, and each of its addresses is a server of its own, as for
            the headless services of Kubernetes.
        resolve_seconds: How often a name is looked up, in seconds, while there are calls. A server whose address has
            vanished gets no more requests; what it works at is waited for.
        hedge: How many of the requests, from 0 to 1, may be sent to a second server as well, because the first has not
            answered in the time in which it answers 95 of 100 requests of the same verb. The first answer counts, and
            the other request is taken back. By default there are none; an ``index`` is never sent twice.
        check_space: Whether all servers are held to the vector space of the first one: each is asked by two small
            requests, one with a sentence and one with an image, which are the first of a model on each connection. Rows
            of two models are never mixed: that is a `ModelMismatchError`.
        index_on: Address of the server that `Client.index` and `Client.search` go to, since an index lives on one
            server. One that is not among the client's own gets their credential and TLS.

    Raises:
        ConfigError: An option cannot work.

    Example:
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
    """What a client knows of one of its servers; see `Client.servers`.

    Attributes:
        address: ``scheme://host:port``.
        state: ``"ready"``; ``"away"``, while it is left out, or waited for; ``"returning"``, when it has said that it
            is ready again and gets one request; ``"draining"``, when its address is not one of the name's any more.
        last_error: What a request to it failed on the last time, or why it refused one; ``None`` if none did.
        share: How many of the client's requests went to it, from 0 to 1.
    """

    address: str
    state: Literal["ready", "away", "returning", "draining"]
    last_error: str | None
    share: float
