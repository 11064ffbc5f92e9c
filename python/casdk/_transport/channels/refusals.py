"""The errors of HTTP statuses other than 200, with the description in the body; both channels of HTTP/1.1 use this."""

from __future__ import annotations

from typing import Final

import msgspec

from casdk._remarks import remark
from casdk._transport.channels.base import CONTENT_TOO_LARGE, PROXY_LIMIT, refused, too_large
from casdk._transport.channels.causes import without_grpc
from casdk.errors import CasdkError, ProtocolMismatchError

__all__ = ["NO_SUCH_PATH", "refusal_of"]

MOST_DESCRIBED_BYTES: Final = 256 * 1024
"""An error's body that is larger is not parsed for a description."""
NO_SUCH_PATH: Final = frozenset({404, 405})
"""Statuses of a server that has no such path, or not with this method."""


def refusal_of(status: int, body: bytes, retry_after: str | None, where: str) -> CasdkError:
    """Return the error of a server, or of a proxy before it, that answered with a status other than 200.

    Args:
        status: The status.
        body: The body of the answer, if it can be read.
        retry_after: The header of that name, as it was sent, if it was.
        where: The server.
    """
    error = _meant(status, body, retry_after, where)
    error.code = str(status)
    return error


def _meant(status: int, body: bytes, retry_after: str | None, where: str) -> CasdkError:
    name, description = _described(body)
    said = f"{where}: HTTP {status}: {remark(without_grpc(description)) if description else remark(body)}".rstrip(": ")
    if status == CONTENT_TOO_LARGE:
        return too_large(f"{where}: HTTP {status}: {PROXY_LIMIT}")
    if status == 400 and b"HTTPS port" in body:
        return ProtocolMismatchError(f"{said}; use https://", retryable=False)
    if status in NO_SUCH_PATH:
        said = f"{said}: no CLIP server answers POST /post there"
    return refused(said, status, retry_after, name=name)


# The parts of a gateway's error body that are read, for `msgspec` to decode.


class _Exception(msgspec.Struct):
    name: str = ""


class _Status(msgspec.Struct):
    description: str = ""
    exception: _Exception | None = None


class _Header(msgspec.Struct):
    status: _Status | None = None


class _ErrorBody(msgspec.Struct):
    header: _Header | None = None
    detail: msgspec.Raw = msgspec.Raw(b"null")


def _described(body: bytes) -> tuple[str, str]:
    """Return exception name and description of a gateway's error body, empty if it has none.

    The body may come from a proxy or a stranger instead, and be as long as a reply. As Python objects it would take a
    hundred times as much memory, so a long one is not parsed.
    """
    if len(body) > MOST_DESCRIBED_BYTES:
        return "", ""
    try:
        error = msgspec.json.decode(body, type=_ErrorBody)
        detail = bytes(error.detail)  # not parsed yet
        said = msgspec.json.decode(detail, type=str) if detail.startswith(b'"') else detail.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the last one for lists in lists
        return "", ""
    if error.header is not None and error.header.status is not None:
        status = error.header.status
        return (status.exception.name if status.exception else ""), status.description
    return "", "" if said == "null" else said
