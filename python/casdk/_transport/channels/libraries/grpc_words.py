"""The meaning of grpcio's error messages, which are the only description of a failed call that it gives."""

from __future__ import annotations

import re
from typing import Final

from casdk._transport.channels.causes import BROKE, CLOSED, CLOSED_IN_TLS, cause_of, without_grpc
from casdk.errors import ProtocolMismatchError, TLSError, TransportError

__all__ = [
    "COMPRESSED",
    "HTTP_STATUS",
    "NO_HANDSHAKER",
    "NO_STATUS",
    "NO_TUNNEL",
    "PINGS_REFUSED",
    "UNREADABLE",
    "is_break",
    "is_limit",
    "is_silence",
    "lost",
]

COMPRESSED: Final = "Compression algorithm"
"""The beginning of gRPC's message for a reply that it does not decompress."""
HTTP_STATUS: Final = re.compile(r"received http2 header with status: (\d{3})", re.IGNORECASE)
"""gRPC's message for the answer of a proxy that speaks plain HTTP."""
NO_STATUS: Final = "No status received"
"""gRPC's message for an answer with a successful HTTP status and no gRPC status."""
UNREADABLE: Final = re.compile(r"Stream removed \((?!.*\|Gateway: ).*Failed parsing HTTP/2")
"""gRPC's message for bytes on this connection that are not HTTP/2; it comes with one of several codes."""
NO_TUNNEL: Final = re.compile(r"http proxy returned response code (\d{3})", re.IGNORECASE)
PINGS_REFUSED: Final = "too many pings"
"""gRPC's message if a server, by default, allows a ping only every five minutes while it works at requests. jina's
server sends pings itself, so that a connection to it is checked without ours."""
NO_HANDSHAKER: Final = "failed to create security handshaker"
"""gRPC's message if a server resets connections; never for wrong settings, since these are checked before."""
BROKEN: Final = ("socket closed", "connection reset", NO_HANDSHAKER)
SILENCE: Final = ("timed out", "timeout occurred", "endpoint closing", "tcp handshaker shutdown")
UNKNOWN_HOST: Final = ("dns resolution", "errors resolving", "hostname lookup")
OTHER_PROTOCOL: Final = ("alpn", "http1.x", "trying to connect an http", "failed parsing http/2")
"""Words that come only where bytes of another protocol were received."""
TLS_WORDS: Final = ("ssl", "tls", "certificate", "handshak", "verification check")


def is_silence(details: str) -> bool:
    """Whether gRPC closed a connection on which nothing was received, after the same timeout as ours."""
    text = details.lower()
    return any(words in text for words in SILENCE) and not any(words in text for words in UNKNOWN_HOST)


def is_break(details: str) -> bool:
    """Whether the message says that the stream or the connection broke, and is not the server's."""
    return BROKE.match(details) is not None


def is_limit(details: str, most: int) -> bool:
    """Whether gRPC refused a reply because it is larger than ``most``; a server refuses requests in similar words."""
    ours = f"vs. {most})" in details and "SERVER: " not in details
    return "larger than max" in details and ("CLIENT: " in details or ours)


def lost(tls: bool, details: str, where: str) -> TransportError:
    """Return the error of a call for which there was no connection.

    Args:
        tls: Whether the scheme is a secure one.
        details: gRPC's words for the reason.
        where: The server.
    """
    text = details.lower().replace("tcp handshaker", "tcp connector")  # gRPC's name for what comes before TLS
    cause = cause_of(details)
    said = f"{where}: {cause or without_grpc(details)}"
    if any(words in text for words in UNKNOWN_HOST):
        return TransportError(said, sent=False, away=False)
    if tls and any(word in text for word in TLS_WORDS):
        # A connection that broke during the handshake says nothing against the certificate.
        return TLSError(said, retryable=any(words in text for words in BROKEN), sent=False)
    if any(words in text for words in OTHER_PROTOCOL):
        s = "s" if tls else ""
        return ProtocolMismatchError(
            f"{where}: this port does not speak gRPC; if it speaks HTTP/1.1 use http{s}:// or websocket{s}://",
            retryable=False,
            sent=False,
        )
    connecting = "failed to connect" in text
    if connecting and cause is None and "socket closed" in text:
        said = f"{where}: {CLOSED_IN_TLS if tls else CLOSED}"
    return TransportError(said, sent=not connecting)
