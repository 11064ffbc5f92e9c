"""Who may ask."""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Collection, Sequence
from typing import TypeAlias

__all__ = ["Access"]

_AUTHORITY = re.compile(r"(?:\[([^]]+)\]|([^:]+))(?::\d*)?")

RawHeaders: TypeAlias = Sequence[tuple[bytes, bytes]]


class Access:
    """Who may ask: compares what a client sends as ``authorization`` with the server's token, in constant time.

    Args:
        token: What a client must send, verbatim; ``None`` lets everyone in.
        host: Address that the server listens on.
        allow_hosts: Names by which it may be called, beside loopback's, if that address is one of loopback.
    """

    def __init__(self, token: str | None, host: str = "", allow_hosts: Collection[str] = ()) -> None:
        self._token = None if token is None else token.encode()
        self._on_loopback = _leads_here(host)
        self._names = {name.lower().rstrip(".") for name in (host, *allow_hosts)}

    def allows(self, authorization: bytes | str | None) -> bool:
        """Whether this header or metadata value lets its sender in."""
        if self._token is None:
            return True
        presented = authorization.encode() if isinstance(authorization, str) else authorization or b""
        return hmac.compare_digest(presented, self._token)

    def refusal(self, headers: RawHeaders, *, open_to_all: bool = False) -> tuple[int, str] | None:
        """Return status and words for an exchange that its headers do not let in.

        A page of another site, which a browser on this machine shows, may send requests to an address on loopback. It
        shows in its ``Origin``; and where the site's own name was made to lead here (DNS rebinding), in the ``Host``,
        which is that name. It could not know a token, and so an ``Origin`` matters to a server without one alone.

        Args:
            headers: Their names in lower case.
            open_to_all: Whether no token is asked for.
        """
        hosts = [value for name, value in headers if name == b"host"]
        found = dict(headers)
        if self._on_loopback and not all(map(self._may_be_called, hosts)):
            return 403, "on loopback this server is called by names of loopback; --allow-host NAME adds one"
        if not open_to_all and not self.allows(found.get(b"authorization")):
            return 401, "the authorization is missing or wrong"
        origin = found.get(b"origin")
        if self._token is None and origin is not None and origin.partition(b"://")[2] not in hosts:
            return 403, "pages of other sites may not ask a server without a token"
        return None

    def _may_be_called(self, authority: bytes) -> bool:
        name = _name(authority.decode("latin-1"))
        return bool(name) and (name in self._names or name == "localhost" or _is_of_loopback(name, unspecified=True))

    def __repr__(self) -> str:
        return f"Access({'anyone' if self._token is None else 'with token'})"


def _name(authority: str) -> str:
    """Return the name in ``name``, ``name:port``, ``[address]`` or ``[address]:port``, and "" for what is neither."""
    found = _AUTHORITY.fullmatch(authority)
    return "" if found is None else (found[1] or found[2]).lower().rstrip(".")


def _leads_here(host: str) -> bool:
    """Return whether nobody but this machine can reach what listens there."""
    if _is_of_loopback(host):
        return True
    try:
        found = {str(row[4][0]) for row in socket.getaddrinfo(host, None)} if host else set()
    except OSError:  # which is said when it is listened on
        return False
    return bool(found) and all(map(_is_of_loopback, found))


def _is_of_loopback(text: str, *, unspecified: bool = False) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_loopback or (unspecified and address.is_unspecified)
