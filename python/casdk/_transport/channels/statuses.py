"""The errors of gRPC statuses, for both channels of gRPC."""

from __future__ import annotations

import re
from math import nan
from typing import Final

from casdk._remarks import remark
from casdk._transport.address import Endpoint
from casdk._transport.channels.base import (
    CONTENT_TOO_LARGE,
    PROXY_LIMIT,
    SHOWN_CHARACTERS,
    overloaded,
    refused,
    seconds_asked,
    too_large,
    unavailable,
)
from casdk._transport.channels.causes import without_grpc
from casdk.errors import AuthError, CasdkError, ProtocolMismatchError, ServerError, TransportError

__all__ = [
    "CODES",
    "DRY_RUN",
    "LATE_CODES",
    "PUSHBACK",
    "STREAM",
    "UNARY",
    "broken",
    "error_of",
    "larger_than_taken",
    "no_grpc",
    "page_error",
]

UNARY: Final = "/jina.JinaSingleDataRequestRPC/process_single_data"
STREAM: Final = "/jina.JinaRPC/Call"
"""The method of gateways that do not have `UNARY` (jina before 3.10)."""
DRY_RUN: Final = "/jina.JinaGatewayDryRunRPC/dry_run"

CODES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""gRPC's names of its codes; a code is the position of its name."""
AUTH_CODES: Final = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
LOST_CODES: Final = frozenset({"UNAVAILABLE", "CANCELLED", "ABORTED"})
LATE_CODES: Final = frozenset({"DEADLINE_EXCEEDED", "CANCELLED"})
"""Codes with which servers end a call after its deadline; tonic sends the second."""
SIZE_CODES: Final = frozenset({"RESOURCE_EXHAUSTED", "OUT_OF_RANGE", "UNKNOWN"})
TOO_LARGE: Final = re.compile(
    r"larger than max|exceeds (the )?maximum|length too large|(payload|entity|content) too large", re.IGNORECASE
)
"""Words of gRPC in C++, Go, Java, C# and Rust for a message that is too large, and of proxies like Envoy."""
TOO_LARGE_REPLY: Final = re.compile(r"(sent|send) message larger than max", re.IGNORECASE)
SERVER_LIMIT: Final = "the server, or a proxy before it, takes less (grpc.max_receive_message_length, 4 MB by default)"
PUSHED_BACK: Final = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED"})
PUSHBACK: Final = "grpc-retry-pushback-ms"
"""gRPC's trailer that corresponds to ``Retry-After``, in milliseconds."""


def error_of(endpoint: Endpoint, code: str, words: str, asked: str | None = None, request_id: str = "") -> CasdkError:
    """Return the error of a status that the server answered with.

    Args:
        endpoint: The server.
        code: gRPC's name of the code, one of `CODES`.
        words: The message of the status.
        asked: The trailer `PUSHBACK`, as it was sent, if it was.
        request_id: The request's id.
    """
    where = f"{endpoint}: {remark(without_grpc(words, connected=True))}"
    if code in AUTH_CODES:
        return AuthError(where, request_id=request_id)
    if code in SIZE_CODES and (larger := larger_than_taken(words, where)) is not None:
        return larger
    if code in PUSHED_BACK and asked is not None:
        said = f"{where} ({PUSHBACK}: {remark(asked, SHOWN_CHARACTERS)!r})"
        # In gRPC, a negative number means that the request must not be repeated.
        seconds = nan if asked.startswith("-") else seconds_asked(asked) / 1000
        if code == "UNAVAILABLE":
            return unavailable(said, seconds, away=True)
        return overloaded(said, seconds, request_id=request_id)
    if code == "RESOURCE_EXHAUSTED":
        return overloaded(where, request_id=request_id)
    if code == "DEADLINE_EXCEEDED":
        return TransportError(f"{where} ({code})", away=False)
    if code in LOST_CODES:
        return TransportError(where, away=code != "ABORTED")
    return ServerError(f"{where} ({code})", request_id=request_id)


def larger_than_taken(words: str, where: str) -> CasdkError | None:
    """Return the error of a message that is larger than the server takes, or may send, if its words say so."""
    if "metadata size exceeds" in words:
        return ServerError(where)
    if TOO_LARGE.search(words) is None:
        return None
    if TOO_LARGE_REPLY.search(words) is not None:
        return ServerError(f"{where}: the server may not send such a reply", too_large=True)
    return too_large(f"{where}: {SERVER_LIMIT}")


def page_error(endpoint: Endpoint, status: int, retry_after: str | None = None, request_id: str = "") -> CasdkError:
    """Return the error of an HTTP status in the place of a gRPC reply, which proxies send."""
    said = f"{endpoint}: HTTP {status} in the place of a gRPC reply"
    if status == CONTENT_TOO_LARGE:
        return too_large(f"{said}: {PROXY_LIMIT}")
    return refused(said, status, retry_after, request_id=request_id)


def broken(endpoint: Endpoint, *, sent: bool = True) -> TransportError:
    """Return the error of a request that was in flight when its connection ended."""
    return TransportError(f"{endpoint}: the connection broke", sent=sent)


def no_grpc(endpoint: Endpoint) -> ProtocolMismatchError:
    """Return the error of a port that speaks another protocol, which is noticed before a request is sent."""
    s = "s" if endpoint.tls else ""
    return ProtocolMismatchError(
        f"{endpoint}: this port does not speak gRPC; if it speaks HTTP/1.1 use http{s}:// or websocket{s}://",
        retryable=False,
        sent=False,
    )
