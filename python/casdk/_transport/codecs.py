"""Packing requests and scanning replies, which Rust does, and what is made of replies in Python.

Errors, documents and responses of replies become the objects of `casdk.errors`, `casdk.documents` and `casdk.models`
here, for both forms of the wire.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from casdk._remarks import remark
from casdk._rust import Packed, Packer, Reply, copy_rows, scan, scan_status
from casdk.documents import Document, DocumentArray, NamedScore
from casdk.errors import (
    DataURIError,
    DownloadError,
    EmptyItemError,
    FileMissingError,
    FileUnreadableError,
    ItemError,
    ItemTooLargeError,
    ItemTypeError,
    NotAllowedError,
    NotAnImageError,
    OverloadedError,
    ServerError,
    TransportError,
)
from casdk.models import Header, Response, Route, Status, Timings

if TYPE_CHECKING:
    from casdk._rust import Codec, RawDocument, Tensor
    from casdk._rust import Status as RawStatus

__all__ = [
    "Packed",
    "Packer",
    "Reply",
    "copy_rows",
    "failure_of",
    "read_documents",
    "read_error",
    "read_response",
    "read_status",
    "scan",
]

FAILURES: Final[dict[str, type[ItemError]]] = {
    "missing": FileMissingError,
    "unreadable": FileUnreadableError,
    "not_image": NotAnImageError,
    "not_allowed": NotAllowedError,
    "data_uri": DataURIError,
    "too_large": ItemTooLargeError,
    "empty": EmptyItemError,
    "type": ItemTypeError,
    "not_fetched": DownloadError,
}
"""The error for each kind of failure that the packer reports."""

SERVER_FAULTS: Final = frozenset(
    {
        "MemoryError",
        "OutOfMemoryError",
        "TimeoutError",
        "ConnectionError",
        "ConnectionRefusedError",
        "ConnectionResetError",
        "BrokenPipeError",
        "AioRpcError",
        "CancelledError",
    }
)
"""Exceptions of an executor that are not the items' fault: splitting the batch would not help."""
DEAD_EXECUTOR: Final = frozenset({"InternalNetworkError", "<class 'jina.excepts.InternalNetworkError'>"})
"""Names of the exception of a gateway that does not reach an executor."""
BUSY: Final = ("gateway", "BusyError")
TOO_LARGE: Final = ("gateway", "TooLargeError")
"""Executor and exception in the status by which the embedded server refuses a request: `BUSY` if other requests use the
memory, `TOO_LARGE` if there never is as much. Refusals of the protocol would end a connection that others use, too."""

REASON_CHARACTERS: Final = 1000
"""Characters that are shown of why an image was not fetched, its URL included."""
USER_INFO: Final = re.compile(r"(https?://)[^\s/@]+@", re.IGNORECASE)
"""The user and password in a URL."""
DESCRIPTION_CHARACTERS: Final = 2000
"""Characters that are shown of an executor's error; all of it is in ``stacks``."""


def failure_of(kind: str, index: int, item: object, reason: str, cause: BaseException | None) -> ItemError:
    """Return the error of an item that the packer left out."""
    if kind == "not_fetched":  # the reason contains text of the image's host, and the URL
        reason = remark(reason, REASON_CHARACTERS)
    if "@" in reason:
        reason = USER_INFO.sub(r"\1***@", reason)
    return FAILURES[kind](index, item, reason, cause)


def read_status(codec: Codec, message: bytes) -> Status:
    """Return the status in the answer to a dry run.

    Raises:
        ReplyError: The bytes are not a status.
    """
    return _read_status(scan_status(codec, message))


def read_error(reply: Reply) -> ServerError | TransportError | None:
    """Return the error in a reply's header, if there is one (status code 1)."""
    if not reply.failed:
        return None
    status = reply.status
    assert status is not None
    _, description, name, arguments, stacks, executor = status
    message = remark(description, DESCRIPTION_CHARACTERS) or remark(name) or "the server failed without a word"
    if name in DEAD_EXECUTOR:
        return TransportError(message)
    if (executor, name) == BUSY:
        return OverloadedError(message, name=name, request_id=reply.request_id, retryable=True)
    if (executor, name) == TOO_LARGE:
        return ServerError(message, name=name, request_id=reply.request_id, too_large=True, sent=False)
    return ServerError(
        message,
        name=name,
        arguments=arguments,
        stacks=stacks,
        executor=executor,
        request_id=reply.request_id,
        retryable=name in SERVER_FAULTS,
        for_item=name not in SERVER_FAULTS and "CUDA" not in description and "start new thread" not in description,
    )


def read_documents(raw: list[RawDocument]) -> DocumentArray:
    """Return the documents of a reply as `Document` objects."""
    return DocumentArray([_read_document(document) for document in raw])


def _read_document(raw: RawDocument) -> Document:
    fields: dict[str, Any] = dict(raw)
    for name in ("tensor", "embedding"):
        if name in fields:
            fields[name] = _read_tensor(fields[name])
    for name in ("scores", "evaluations"):
        if name in fields:
            fields[name] = {key: NamedScore(*score) for key, score in fields[name].items()}
    for name in ("chunks", "matches"):
        if name in fields:
            fields[name] = read_documents(fields[name])
    return Document(**fields)


def _read_tensor(tensor: Tensor) -> np.ndarray[Any, Any]:
    buffer, shape, dtype = tensor
    return np.frombuffer(buffer, dtype=dtype).reshape(shape)


def read_response(
    reply: Reply, request_id: str, stamps: tuple[float, float, float, float, float, float], connecting: float = 0.0
) -> Response:
    """Return the `Response` that a callback gets: everything that the reply has in it.

    Args:
        reply: The reply.
        request_id: The request's id, since an http reply has another one.
        stamps: When the request's items were read, taken to be packed, packed and sent, and when its reply was
            received and placed: what `Timings.between` takes.
        connecting: Seconds until a connection was opened for it, if one was.
    """
    routes = tuple(
        Route(executor=executor, start_ns=start, end_ns=end, status=_read_status(status))
        for executor, start, end, status in reply.routes
    )
    return Response(
        header=Header(request_id=request_id, exec_endpoint=reply.endpoint, target_executor=reply.target_executor),
        status=_read_status(reply.status),
        routes=routes,
        timings=Timings.between(*stamps, routes, connecting=connecting),
        parameters=reply.parameters,
        docs=read_documents(reply.documents()),
    )


def _read_status(status: RawStatus | None) -> Status:
    if status is None:
        return Status()
    code, description, name, arguments, stacks, executor = status
    return Status(code=code, description=description, name=name, args=arguments, stacks=stacks, executor=executor)
