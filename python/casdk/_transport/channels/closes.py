"""The errors of websockets: the meaning of close codes and of refused handshakes, for both websocket channels."""

from __future__ import annotations

from typing import Final

from casdk._remarks import remark
from casdk._transport.address import counterpart
from casdk._transport.channels.base import overloaded, refused
from casdk._transport.channels.causes import without_grpc
from casdk.errors import AuthError, CasdkError, ProtocolMismatchError, ServerError, TransportError

__all__ = ["IDLE_CLOSES", "SERVER_LIMIT", "TOO_BIG", "closed_with", "handshake_refused", "no_websocket"]

AUTH_CLOSES: Final = frozenset({1008, 4401, 4403})
FINAL_CLOSES: Final = frozenset({1002, 1003, 1007, 1010})
"""Codes of a server that would refuse the same request again, like 400, 404 and 500 over http."""
TRY_LATER: Final = 1013
TOO_BIG: Final = 1009
SERVER_LIMIT: Final = "the server takes less (uvicorn: ws_max_size, 16 MB by default; websockets: max_size, 1 MB)"
"""Which limit a request has exceeded that is refused with `TOO_BIG`, and where to raise it."""
AWAY_CLOSES: Final = frozenset({1000, 1001, 1005, 1011, 1012, 1014})
"""Codes, while requests are in flight, of a server that stops or has lost its executor: jina's gateway closes with
1011 where it answers 503 over http."""
IDLE_CLOSES: Final = frozenset({1000, 1005})
"""Codes of a server that closes a connection because it was idle, and not because of a request. A server that stops,
with 1001 or 1012, is waited for."""
HANDSHAKE_REFUSALS: Final = frozenset({401, 403, 407, 408, 429})
"""HTTP statuses, besides those of 500 and more, of a server that may speak websocket all the same."""


def closed_with(code: int, reason: str, where: str, *, shared: bool = False) -> CasdkError:
    """Return the error of a request that was in flight when the server closed the websocket.

    Args:
        code: The close code.
        reason: The close reason.
        where: The server.
        shared: Whether more than one request was in flight.
    """
    said = f"{where}: the server closed the connection with {code} {remark(without_grpc(reason))}".rstrip()
    ours = _meant(code, said, shared)
    ours.code = str(code)
    return ours


def _meant(code: int, said: str, shared: bool) -> CasdkError:
    if code in AUTH_CLOSES:
        return AuthError(said, shared=shared)
    if code == TRY_LATER:
        return overloaded(said, shared=shared)
    if code in FINAL_CLOSES:
        return ServerError(said, shared=shared)
    if code == TOO_BIG:
        return TransportError(said, away=False, blameless=True)
    return TransportError(said, away=code in AWAY_CLOSES)


def handshake_refused(status: int, retry_after: str | None, where: str) -> CasdkError:
    """Return the error of a handshake that was answered with an HTTP status that refuses it.

    Args:
        status: The status.
        retry_after: The header of that name, as it was sent, if it was.
        where: The server.
    """
    said = f"{where}: the server answered the handshake with HTTP {status}"
    if status in HANDSHAKE_REFUSALS or status >= 500:
        ours = refused(said, status, retry_after, sent=False)
        ours.code = str(status)
        return ours
    other = counterpart(where.partition("://")[0], channel="http")
    said = f"{said}: this port speaks HTTP but no websocket; use {other}://"
    return ProtocolMismatchError(said, retryable=False, sent=False)


def no_websocket(words: str, where: str) -> ProtocolMismatchError:
    """Return the error of a port that does not answer the handshake as a websocket server does.

    Args:
        words: What was wrong with the answer.
        where: The server.
    """
    said = f"{where}: this port does not speak websocket ({remark(words)})"
    return ProtocolMismatchError(said, retryable=False, sent=False)
