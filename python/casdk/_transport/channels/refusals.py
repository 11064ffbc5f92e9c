"""What an HTTP status other than 200 means, and what the body behind it says of it."""

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


def refusal_of(status: int, body: bytes, retry_after: str | None, where: str) -> CasdkError:
    """Return the error of a server, or of a proxy before it, that answered with a status other than 200.

    Args:
        status: The status.
        body: What came with it, if it can be read.
        retry_after: The header of that name as it was sent, if it was.
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
    """Return exception name and description of a gateway's error body, empty where it has none.

    What a proxy or a stranger sends in its place may be as long as a reply, and a hundred times as long in objects.
    """
    if len(body) > MOST_DESCRIBED_BYTES:
        return "", ""
    try:
        error = msgspec.json.decode(body, type=_ErrorBody)
        detail = bytes(error.detail)  # not parsed yet
        said = msgspec.json.decode(detail, type=str) if detail.startswith(b'"') else detail.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # lists in lists, as deep as a body is long
        return "", ""
    if error.header is not None and error.header.status is not None:
        status = error.header.status
        return (status.exception.name if status.exception else ""), status.description
    return "", "" if said == "null" else said
