"""Why a connection was not made, in words of our own, and what to do about it: for errors and for the doctor.

Cures name the options of `Client`; `casdk.cli.exits.for_command_line` replaces them by those of the command line.
"""

from __future__ import annotations

import errno
import re
import socket
from typing import Final, NamedTuple

__all__ = [
    "BEHIND",
    "BROKE",
    "CLIENT_REFUSED",
    "CLOSED",
    "CLOSED_IN_TLS",
    "EXPIRED",
    "NOT_YET_VALID",
    "NO_LOOK_UP",
    "NO_ROUTE",
    "OLD_TLS",
    "OTHER_NAME",
    "SELF_SIGNED",
    "UNKNOWN_AUTHORITY",
    "Cause",
    "cause_of",
    "without_grpc",
]


class Cause(NamedTuple):
    """Why a connection was not made, and what to do about it.

    Attributes:
        seen: The cause, as the client sees it.
        cure: What to do.
    """

    seen: str
    cure: str

    def __str__(self) -> str:
        return f"{self.seen}; {self.cure}"


BEHIND: Final = "see whether a server runs behind what accepts connections there (a load balancer, a container's port)"

REFUSED: Final = Cause("nothing listens there", "start the server, or correct the port")
CLOSED: Final = Cause("the connection was closed as soon as it was made", BEHIND)
NO_ADDRESS: Final = Cause("the name has no address", "check its spelling, or name the server by its IP address")
NO_LOOK_UP: Final = Cause("the name cannot be looked up", "check this machine's network and its DNS server")
NO_ROUTE: Final = Cause("there is no route to it", "check the address, the network and any VPN")

EXPIRED: Final = Cause(
    "the server's certificate has expired",
    "renew it on the server; if the time here is wrong, set this machine's clock",
)
NOT_YET_VALID: Final = Cause(
    "the server's certificate is not valid yet",
    "set this machine's clock, or the clock of who signed the certificate",
)
OTHER_NAME: Final = Cause(
    "the server's certificate is for another name",
    "use a name that it was made for, give it as TLS(server_name=...), or have it made for this one",
)
SELF_SIGNED: Final = Cause(
    "the server's certificate is self-signed, and not among those trusted",
    "get its PEM file from who runs the server and give TLS(ca=...)",
)
UNKNOWN_AUTHORITY: Final = Cause(
    "the server's certificate is signed by nobody who is trusted here",
    "give TLS(ca=...) with that authority's PEM; if it is a public one, have the server send its whole chain",
)
OLD_TLS: Final = Cause(
    "the server speaks no TLS newer than 1.1, which is not safe any more",
    "have it speak TLS 1.2 or 1.3",
)
NO_DESCRIPTOR: Final = Cause(
    "this process has too many files and connections open", "close some, or raise the limit (ulimit -n)"
)
CLIENT_REFUSED: Final = Cause(
    "the server refuses this client in the TLS handshake",
    "it asks for a client's certificate that it trusts: give TLS(cert=..., key=...)",
)
BROKEN_OFF: Final = Cause("the server broke off the TLS handshake with an alert", "see its log for the reason")
NO_SENSE: Final = Cause(
    "what the server sent in the TLS handshake makes no sense", "see whether a TLS server listens there"
)
CLOSED_IN_TLS: Final = Cause(
    "the connection was closed in the TLS handshake, or right after it",
    f"{BEHIND}; if it wants a client's certificate, give TLS(cert=..., key=...)",
)

NUMBERED: Final[dict[int, Cause]] = {
    errno.ECONNREFUSED: REFUSED,
    errno.EMFILE: NO_DESCRIPTOR,
    errno.ECONNRESET: CLOSED,
    errno.ENETUNREACH: NO_ROUTE,
    errno.EHOSTUNREACH: NO_ROUTE,
    errno.EADDRNOTAVAIL: NO_ROUTE,
    socket.EAI_AGAIN: NO_LOOK_UP,
    **{getattr(socket, name): NO_ADDRESS for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name)},
}
WORDED: Final[tuple[tuple[str, Cause], ...]] = (
    # An alert comes from the server, so one about a certificate means the client's own certificate.
    (r"alert (no |bad |unsupported )?certificate|alert (unknown ca|handshake failure|access denied)", CLIENT_REFUSED),
    (r"alert protocol version|unsupported protocol|no protocols available", OLD_TLS),
    (r"certificate has expired", EXPIRED),
    (r"certificate is not yet valid", NOT_YET_VALID),
    (r"(hostname|ip address) mismatch|hostname verification check failed", OTHER_NAME),
    (r"self.signed certificate in certificate chain", UNKNOWN_AUTHORITY),
    (r"unable to get (local )?issuer certificate|unable to verify the first certificate", UNKNOWN_AUTHORITY),
    (r"self.signed certificate", SELF_SIGNED),
    (r"eof (occurred|in the tls handshake)|unexpected eof|handshake (read )?failed[ (:]+socket closed", CLOSED_IN_TLS),
    (r"alert|unrecognized name", BROKEN_OFF),
    (
        r"unexpected (record|message)|(packet|encrypted) length too long|too many (warn|empty)|record too small"
        r"|ssl routines:openssl internal:reason",
        NO_SENSE,
    ),
    (r"connection refused", REFUSED),
    (r"too many open files", NO_DESCRIPTOR),
    (r"network is unreachable|no route to host", NO_ROUTE),
    (r"contact(ing)? dns servers|query timed out|temporary failure in name", NO_LOOK_UP),
    (r"domain name not found|name or service not known|errors resolving|dns resolution failed", NO_ADDRESS),
)
"""Words of OpenSSL, BoringSSL, gRPC and the system, in lower case and without underscores."""
NUMBER: Final = re.compile(r"\[errno (-?\d+)\]")


def cause_of(said: str) -> Cause | None:
    """Return the cause of a library's error for a connection that was not made; ``None`` if it is not known.

    Args:
        said: The library's message.
    """
    text = said.lower().replace("_", " ")
    numbers = {int(number) for number in NUMBER.findall(text)}
    if len(numbers) == 1 and (cause := NUMBERED.get(numbers.pop())) is not None:
        return cause
    return next((cause for words, cause in WORDED if re.search(words, text)), None)


BEHIND_THE_SERVER: Final = "the server does not reach what is behind it: "
OF_GATEWAY: Final = re.compile(r"failed to connect to all addresses[^|]*\|Gateway: ")
"""gRPC's error in a gateway that did not reach an executor; the gateway's own words follow it."""
OF_GRPC: Final = re.compile(r"^failed to connect to all addresses; last error: \w+: ")
ADDRESS: Final = re.compile(r"^(ipv4|ipv6|unix):\S+: ")
BROKE: Final = re.compile(
    r"^(stream removed|socket closed|connection reset|goaway received|transport closed|broken pipe|keepalive watchdog)",
    re.IGNORECASE,
)


def without_grpc(said: str, *, connected: bool = False) -> str:
    """Return gRPC's message for a failed call without gRPC's internal terms, which users do not know.

    Args:
        said: gRPC's message.
        connected: Whether it may come from the server, which repeats gRPC's message if it has lost its executor.
    """
    if BROKE.match(said):
        return "the connection broke"
    said = OF_GATEWAY.sub(BEHIND_THE_SERVER, said)
    return OF_GRPC.sub(BEHIND_THE_SERVER, said) if connected else ADDRESS.sub("", OF_GRPC.sub("", said))
