"""Tokens: what a credential may be, and that none shows itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from casdk.errors import ConfigError

__all__ = ["check_token", "read_credential"]


class Secret(str):
    """A token that does not show itself where the locals of a traceback are shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"


def check_token(token: object) -> Secret:
    """Return the token if it can travel in a header.

    Raises:
        ConfigError: It cannot; the message does not show it.
    """
    if not isinstance(token, str):
        raise ConfigError(f"a credential must be a str, or a callable that returns one, not {type(token).__name__}")
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError("a credential must be printable ASCII and not empty; this one is not (it is not shown here)")
    return Secret(token)


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
    return check_token(credential)
