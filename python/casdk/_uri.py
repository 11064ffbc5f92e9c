"""``"grpcs://host:port"`` -> `Endpoint`."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import msgspec

from casdk.errors import ConfigError

__all__ = ["ALIASES", "DEFAULT_PORTS", "Endpoint", "parse_address"]

DEFAULT_PORTS: Final = {
    "grpc": 80,
    "grpcs": 443,
    "http": 80,
    "https": 443,
    "websocket": 80,
    "websockets": 443,
}
"""Port of an address that names none: 80, and 443 with TLS, as jina's own client has them."""

ALIASES: Final = {"ws": "websocket", "wss": "websockets"}


class Endpoint(msgspec.Struct, frozen=True):
    """Where a server is and how to speak to it.

    Attributes:
        scheme: One of the six, aliases resolved.
        host: Name or address, an IPv6 literal without brackets.
        port: 1 to 65535.
    """

    scheme: str
    host: str
    port: int

    @property
    def tls(self) -> bool:
        """Whether the scheme is the secure one of its pair."""
        return self.scheme.endswith("s")

    @property
    def authority(self) -> str:
        """``host:port``, an IPv6 literal in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def parse_address(address: str) -> Endpoint:
    """Read a server's address.

    Args:
        address: ``scheme://host[:port]``.

    Returns:
        The endpoint, default port filled in.

    Raises:
        ConfigError: The address is not of that form. The message never repeats user info, which may be a secret.
    """
    if not isinstance(address, str):
        raise ConfigError(f"the server's address must be a str like 'grpc://127.0.0.1:51000', not {address!r}")
    scheme, found, _ = address.partition("://")
    scheme = ALIASES.get(scheme.lower(), scheme.lower())
    if not found or scheme not in DEFAULT_PORTS:
        known = " ".join([*DEFAULT_PORTS, *ALIASES])
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
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError(
            f"the server's address must end after the port, without path, query or fragment: {scheme}://{parts.netloc}"
        )
    if port == 0:
        raise ConfigError("port 0 is no address to connect to")
    return Endpoint(scheme, host, DEFAULT_PORTS[scheme] if port is None else port)


def _without_secret(error: ValueError) -> str:
    text = str(error)
    return "user info or port cannot be read" if "@" in text else text
