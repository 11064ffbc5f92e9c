"""Who may ask."""

from __future__ import annotations

import hmac

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

    def __repr__(self) -> str:
        return f"Access({'anyone' if self._token is None else 'with token'})"
