"""The error of requests whose connection failed by a defect of casdk itself, e.g. an extension of another version.

By itself, asyncio would log an exception in a protocol, and leave the requests on the connection waiting. So each
connection catches such an exception, ends, and fails its requests with this error.
"""

from __future__ import annotations

from casdk._transport.address import Endpoint
from casdk._transport.channels.base import LOG
from casdk.errors import TransportError

__all__ = ["defect"]


def defect(endpoint: Endpoint, cause: BaseException) -> TransportError:
    """Log a defect of casdk, and return the error of the requests that were in flight on the connection.

    Args:
        endpoint: The server.
        cause: The exception.
    """
    said = f"{endpoint}: casdk failed at what came on the connection ({type(cause).__name__}: {cause})"
    error = TransportError(f"{said}: please report it", retryable=False)
    error.__cause__ = cause
    LOG.error("%s", said, exc_info=cause)
    return error
