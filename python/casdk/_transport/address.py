"""``"grpcs://host:port"`` -> `Endpoint`, and the table of schemes: all that is particular to one scheme."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - imported early: a signal's handler may interrupt the import by one of its own
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from casdk.errors import ConfigError

__all__ = [
    "PROTOCOLS",
    "SCHEMES",
    "Endpoint",
    "Protocols",
    "Scheme",
    "check_tls",
    "counterpart",
    "module_of",
    "parse_address",
]

Protocols: TypeAlias = Literal["own", "libraries"] | None
"""Which code speaks the protocols: casdk's own, as by default, or a library for each of them."""
PROTOCOLS: Final = ("own", "libraries")


class Scheme(msgspec.Struct, frozen=True):
    """All that is particular to one scheme; no other place knows it.

    Attributes:
        channel: The protocol; `module_of` says which module has its channel.
        codec: The form of its messages.
        tls: Whether it is the secure one of its pair.
        port: Port of an address that names none, as in jina's own client.
        served_port: Default port of the embedded server.
        alpn: The protocol that the TLS handshake asks for.
        alias: Another name of the scheme.
    """

    channel: Literal["grpc", "http", "websocket"]
    codec: Literal["proto", "json"]
    tls: bool
    port: int
    served_port: int
    alpn: Literal["h2", "http/1.1"]
    alias: str | None = None


SCHEMES: Final = {
    "grpc": Scheme("grpc", "proto", False, 80, 51000, "h2"),
    "grpcs": Scheme("grpc", "proto", True, 443, 51443, "h2"),
    "http": Scheme("http", "json", False, 80, 51001, "http/1.1"),
    "https": Scheme("http", "json", True, 443, 51444, "http/1.1"),
    "websocket": Scheme("websocket", "proto", False, 80, 51002, "http/1.1", alias="ws"),
    "websockets": Scheme("websocket", "proto", True, 443, 51445, "http/1.1", alias="wss"),
}
"""Every scheme by its name; a new scheme only needs a row here."""


def counterpart(scheme: str, *, channel: str | None = None, tls: bool | None = None) -> str:
    """Return the scheme that differs from another one in these fields alone: ``counterpart("https", tls=False)``."""
    row = SCHEMES[scheme]
    wanted = (channel or row.channel, row.tls if tls is None else tls)
    return next(name for name, other in SCHEMES.items() if (other.channel, other.tls) == wanted)


class Endpoint(msgspec.Struct, frozen=True):
    """Where a server is and how to speak to it.

    Attributes:
        scheme: One of the six, aliases resolved.
        host: Name or address, an IPv6 literal without brackets.
        port: 1 to 65535.
        name: The name that was looked up to get this host, if a pool has looked up the names of its servers.
    """

    scheme: str
    host: str
    port: int
    name: str | None = None

    @property
    def tls(self) -> bool:
        """Whether the scheme is the secure one of its pair."""
        return SCHEMES[self.scheme].tls

    @property
    def channel(self) -> str:
        """The protocol: ``grpc``, ``http`` or ``websocket``."""
        return SCHEMES[self.scheme].channel

    @property
    def authority(self) -> str:
        """``host:port``, an IPv6 literal in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


OWN: Final = {"http": "http1", "grpc": "http2", "websocket": "websocket"}
"""Modules of our own channels by protocol; those on libraries are in ``libraries/`` and named after the protocol."""


def module_of(endpoint: Endpoint, protocols: Protocols = None) -> str:
    """Return the name of the module that has the channel of an endpoint."""
    channel = endpoint.channel
    return f"casdk._transport.channels.{f'libraries.{channel}' if protocols == 'libraries' else OWN[channel]}"


def check_tls(endpoints: list[Endpoint]) -> None:
    """Check that one of the endpoints has a secure scheme, which ``tls=`` needs.

    Raises:
        ConfigError: No endpoint has one.
    """
    if not any(endpoint.tls for endpoint in endpoints):
        scheme = endpoints[0].scheme
        raise ConfigError(f"tls= needs a secure scheme: {counterpart(scheme, tls=True)}://, not {scheme}://")


def parse_address(address: str) -> Endpoint:
    """Read a server's address.

    Args:
        address: ``scheme://host[:port]``.

    Returns:
        The endpoint; if the address has no port, it has the scheme's default port.

    Raises:
        ConfigError: The address is not of that form. The message never repeats user info, which may be a secret.
    """
    if not isinstance(address, str):
        raise ConfigError(f"the server's address must be a str like 'grpc://127.0.0.1:51000', not {address!r}")
    scheme, found, _ = address.partition("://")
    aliases = {row.alias: name for name, row in SCHEMES.items() if row.alias is not None}
    scheme = aliases.get(scheme.lower(), scheme.lower())
    if not found or scheme not in SCHEMES:
        known = " ".join([*SCHEMES, *aliases])
        raise ConfigError(
            f"the server's address must begin with one of these schemes and '://': {known}; for example 'grpc://127.0.0.1:51000'"
        )
    if any(c.isspace() or not c.isprintable() for c in address):
        raise ConfigError("the server's address must not hold white space or control characters")
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"the server's address has a bad host or port: {_without_secret(error)}") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("the server's address must not hold user info; give the token as Client(..., credential=...)")
    if not host:
        raise ConfigError(f"the server's address has no host: write {scheme}://host:port")
    try:
        host.encode("idna")  # checked here, since each library would raise an error of its own later
    except UnicodeError as error:
        raise ConfigError(f"the server's address has a host that no name can be: {error}") from None
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError(
            f"the server's address must end after the port, without path, query or fragment: {scheme}://{parts.netloc}"
        )
    if port == 0:
        raise ConfigError("port 0 is no address to connect to")
    return Endpoint(scheme, host, SCHEMES[scheme].port if port is None else port)


def _without_secret(error: ValueError) -> str:
    text = str(error)
    return "user info or port cannot be read" if "@" in text else text
