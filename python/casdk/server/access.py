"""Decides who may send requests to the server: by its token, and by the Host and Origin of browsers.

The gRPC, http and websocket ports each ask the one `Access` of the server.
"""

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
    """Checks the credential of a request, in constant time, and whether a browser may have sent it for another site.

    Args:
        token: What a client must send as ``authorization``, verbatim; ``None`` accepts everyone.
        host: Address that the server listens on.
        allow_hosts: Further host names that requests may use if the server listens on loopback.
    """

    def __init__(self, token: str | None, host: str = "", allow_hosts: Collection[str] = ()) -> None:
        self._token = None if token is None else token.encode()
        self._on_loopback = _leads_here(host)
        self._names = {name.lower().rstrip(".") for name in (host, *allow_hosts)}

    def allows(self, authorization: bytes | str | None) -> bool:
        """Whether this value of a header, or of gRPC metadata, is the right credential."""
        if self._token is None:
            return True
        presented = authorization.encode() if isinstance(authorization, str) else authorization or b""
        return hmac.compare_digest(presented, self._token)

    def refusal(self, headers: RawHeaders, *, open_to_all: bool = False) -> tuple[int, str] | None:
        """Return the status and the text of a refusal; ``None`` if the headers are fine.

        A web page of another site may let the browser on this machine send requests to loopback. Its requests have that
        site as their ``Origin``. If the site's own name resolves to loopback (DNS rebinding), they have that name as
        their ``Host``. A web page cannot know the token, so the ``Origin`` is checked only by a server without one.

        Args:
            headers: The headers, with names in lower case.
            open_to_all: Whether this path needs no token.
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
    """Return the host in ``name``, ``name:port``, ``[address]`` or ``[address]:port``; "" for anything else."""
    found = _AUTHORITY.fullmatch(authority)
    return "" if found is None else (found[1] or found[2]).lower().rstrip(".")


def _leads_here(host: str) -> bool:
    """Whether only this machine can reach a server that listens on a host."""
    if _is_of_loopback(host):
        return True
    try:
        found = {str(row[4][0]) for row in socket.getaddrinfo(host, None)} if host else set()
    except OSError:  # listening on it will fail, and report this
        return False
    return bool(found) and all(map(_is_of_loopback, found))


def _is_of_loopback(text: str, *, unspecified: bool = False) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_loopback or (unspecified and address.is_unspecified)
