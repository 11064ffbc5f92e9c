"""What requests get where casdk itself fails at what comes on their connection, e.g. as its extension is an old one.

asyncio logs such an error, and lets whoever waits on the connection wait, or tells them that it broke and not why. So
each connection gives itself up for it.
"""

from __future__ import annotations

from casdk._transport.address import Endpoint
from casdk._transport.channels.base import LOG
from casdk.errors import TransportError

__all__ = ["defect"]


def defect(endpoint: Endpoint, cause: BaseException) -> TransportError:
    """Log an error of casdk's own, and return that of the requests which were in flight on the connection.

    Args:
        endpoint: The server.
        cause: What was raised.
    """
    said = f"{endpoint}: casdk failed at what came on the connection ({type(cause).__name__}: {cause})"
    error = TransportError(f"{said}: please report it", retryable=False)
    error.__cause__ = cause
    LOG.error("%s", said, exc_info=cause)
    return error
