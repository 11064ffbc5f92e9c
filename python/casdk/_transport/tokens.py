"""Tokens: the checks of a client's credential, and a type that hides the token in tracebacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from casdk.errors import ConfigError

__all__ = ["check_token", "read_credential"]


class Secret(str):
    """A token whose `repr` hides it, since tracebacks may show local variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"


def check_token(token: object) -> Secret:
    """Return the token, if it can be sent in a header.

    Raises:
        ConfigError: It cannot be sent; the message does not show it.
    """
    if not isinstance(token, str):
        raise ConfigError(f"a credential must be a str, or a callable that returns one, not {type(token).__name__}")
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError("a credential must be printable ASCII and not empty; this one is not (it is not shown here)")
    return Secret(token)


def read_credential(credential: object) -> Any:
    """Return a client's credential, checked; a callable is called later.

    Raises:
        ConfigError: It is of another type, or the token cannot be sent.
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
