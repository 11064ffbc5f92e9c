"""Who may ask."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

__all__ = ["Access"]


class Access:
    """Compares what a client sends as ``authorization`` with the server's token, in constant time.

    Args:
        token: What a client must send, verbatim; ``None`` lets everyone in.
    """

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode()

    def allows(self, authorization: bytes | str | None) -> bool:
        """Whether this header or metadata value lets its sender in."""
        if self._token is None:
            return True
        given = authorization.encode() if isinstance(authorization, str) else authorization or b""
        return hmac.compare_digest(given, self._token)

    def from_elsewhere(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a browser sends this for a page of another site, which must not reach an open server on loopback.

        With a token the page would have to know it.
        """
        origin = headers.get(b"origin")
        if self._token is not None or origin is None:
            return False
        return origin.partition(b"://")[2] != headers.get(b"host")

    def __repr__(self) -> str:
        return f"Access({'anyone' if self._token is None else 'with token'})"
