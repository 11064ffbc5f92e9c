"""Finds out for the doctor which protocol a port speaks: it sends each protocol's first bytes and reads the answer."""

from __future__ import annotations

import socket
import ssl
from base64 import b64encode
from typing import Final, NamedTuple

from casdk import TLS
from casdk._transport.address import SCHEMES, counterpart
from casdk._transport.channels.base import PROXY_CREDENTIAL_WANTED, secured, ssl_context
from casdk._transport.channels.causes import BEHIND
from casdk.cli.handshake import refused, unverified
from casdk.cli.route import CURE_OF_PROXY, Route
from casdk.cli.trouble import TroubleError

__all__ = ["Greeting", "addresses_that_work", "greet"]

ENOUGH_BYTES: Final = 512
"""So many bytes of an answer are enough to show its protocol."""
H2_OPENING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""HTTP/2's preface and an empty SETTINGS frame (RFC 9113, 3.4)."""
NO_SUCH_ENDPOINT: Final = frozenset({404, 405, 501})
DOUBTFUL: Final[dict[str, tuple[int, ...]]] = {"grpc": (), "http": (400, 403), "websocket": (403,)}
"""Statuses that may come from the right server or from another one: FastAPI refuses an unknown websocket with 403."""


class Greeting(NamedTuple):
    """The first bytes of a server, and the protocol that they show.

    Attributes:
        spoken: ``HTTP/2``, ``HTTP/1.1``, ``TLS``, ``SSH``, ``silence``, ``the end`` or ``something else``.
        status: The status of HTTP/1.1.
        data: The bytes, as they came.
    """

    spoken: str
    status: int = 0
    data: bytes = b""

    @property
    def words(self) -> str:
        """The words of a message that name the protocol."""
        if self.spoken == "HTTP/1.1":
            return f"HTTP/1.1 (status {self.status})"
        return f"{self.spoken} ({self.data[:40]!r})" if self.spoken in ("SSH", "something else") else self.spoken


def greet(route: Route, tls: TLS) -> str:
    """Send the first bytes of the scheme's protocol; return a sentence that says which protocol the server speaks.

    Raises:
        TroubleError: The port speaks another protocol.
    """
    endpoint = route.endpoint

    def otherwise() -> list[str]:
        return addresses_that_work(route)

    sock = route.open()
    try:
        if endpoint.tls:
            context = ssl_context(tls, [SCHEMES[endpoint.scheme].alpn])
            sock = secured(context, sock, tls.server_name or endpoint.host)
        greeting = _ask(sock, route, endpoint.channel)
    except ssl.SSLError as error:
        raise refused(error, route, otherwise) from None
    finally:
        sock.close()
    if greeting.spoken == "HTTP/1.1" and greeting.status == PROXY_CREDENTIAL_WANTED:
        # Plain http has no tunnel, so the proxy refuses the first request.
        raise TroubleError("the proxy wants a user and a password (status 407)", CURE_OF_PROXY)
    kind = endpoint.channel
    fits = _fits(kind, greeting)
    working = [] if fits and greeting.status not in DOUBTFUL[kind] else otherwise()
    if fits and not working:
        return f"{greeting.spoken} is spoken there"
    raise _mismatch(route, greeting, working)


def _mismatch(route: Route, greeting: Greeting, working: list[str]) -> TroubleError:
    endpoint = route.endpoint
    cure = f"use {' or '.join(working)}" if working else f"correct the port, or have the server speak {endpoint.scheme}"
    if greeting.spoken in ("silence", "the end") and working:
        return TroubleError(f"no {endpoint.scheme} on port {endpoint.port}: it has no answer to that", cure)
    if greeting.spoken == "silence":
        return TroubleError(f"whoever listens on port {endpoint.port} says nothing within {route.seconds:g} s", cure)
    if greeting.spoken == "the end":
        return TroubleError(f"port {endpoint.port} accepts connections and closes them without a word", BEHIND)
    if greeting.spoken == "HTTP/1.1" and greeting.status in NO_SUCH_ENDPOINT and endpoint.channel == "http":
        return TroubleError(
            f"a web server is on port {endpoint.port}, but it takes no POST /post: no CLIP server", cure
        )
    if greeting.spoken == "HTTP/1.1" and 300 <= greeting.status < 400:
        return TroubleError(f"port {endpoint.port} sends its callers elsewhere (status {greeting.status})", cure)
    return TroubleError(f"no {endpoint.scheme} on port {endpoint.port}: it speaks {greeting.words}", cure)


def _fits(kind: str, greeting: Greeting) -> bool:
    if kind == "grpc":
        return greeting.spoken == "HTTP/2"
    if greeting.spoken != "HTTP/1.1":
        return False
    # A server of the right kind may refuse the credential, or refuse the request because it is overloaded.
    if greeting.status in (401, 403, 429) or (greeting.status >= 500 and greeting.status not in NO_SUCH_ENDPOINT):
        return True
    if kind == "websocket":
        return greeting.status == 101
    return not (greeting.status in NO_SUCH_ENDPOINT or 300 <= greeting.status < 400 or greeting.status == 426)


def _ask(sock: socket.socket, route: Route, kind: str) -> Greeting:
    """Send the first bytes of one protocol, and recognise the answer."""
    opening = {"grpc": H2_OPENING, "http": _post(route), "websocket": _upgrade(route)}[kind]
    received = b""
    try:
        sock.sendall(opening)
        while len(received) < ENOUGH_BYTES and (piece := sock.recv(ENOUGH_BYTES)):
            received += piece
            if (kind == "grpc" and len(received) >= len("HTTP/1.1 ")) or b"\r\n\r\n" in received:
                break
    except TimeoutError:
        return read_greeting(received) if received else Greeting("silence")
    except ssl.SSLEOFError:
        pass
    except ssl.SSLError:
        raise
    except OSError:
        pass  # the bytes that were received before the connection broke may be enough
    return read_greeting(received)


def _post(route: Route) -> bytes:
    # Without a body this is not a valid request, so the answer only shows whether the server has this path.
    target = f"http://{route.endpoint.authority}/post" if route.forwarded else "/post"
    return _head(f"POST {target} HTTP/1.1", route, [("content-length", "0"), *route.proxy_headers()])


def _upgrade(route: Route) -> bytes:
    key = b64encode(b"casdk doctor key").decode()
    return _head(
        "GET / HTTP/1.1",
        route,
        [
            *(("connection", "Upgrade"), ("upgrade", "websocket")),
            *(("sec-websocket-version", "13"), ("sec-websocket-key", key), ("sec-websocket-protocol", "bytes")),
        ],
    )


def _head(first: str, route: Route, headers: list[tuple[str, str]]) -> bytes:
    lines = [first, f"host: {route.endpoint.authority}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_greeting(data: bytes) -> Greeting:
    """Recognise a protocol by its first bytes."""
    if not data:
        return Greeting("the end")
    if data.startswith(b"HTTP/1."):
        status = data[9:12]
        return Greeting("HTTP/1.1", int(status) if status.isdigit() else 0, data)
    if len(data) >= 9 and data[3] == 4 and data[5:9] == bytes(4) and data[0] == 0:
        return Greeting("HTTP/2", data=data)
    if len(data) >= 3 and data[0] in (0x15, 0x16) and data[1] == 3:
        return Greeting("TLS", data=data)
    return Greeting("SSH" if data.startswith(b"SSH-") else "something else", data=data)


def addresses_that_work(route: Route) -> list[str]:
    """Return the addresses with the same host and port, but another scheme, to which the server answers."""
    endpoint, route = route.endpoint, route.hurried()
    secure = _speaks_tls(route)
    found = []
    for kind in dict.fromkeys(row.channel for row in SCHEMES.values()):
        scheme = counterpart(endpoint.scheme, channel=kind, tls=secure)
        if scheme == endpoint.scheme:
            continue
        greeting = _look(route, kind, SCHEMES[scheme].alpn if secure else None)
        if _fits(kind, greeting) and greeting.status not in DOUBTFUL[kind]:
            found.append(f"{scheme}://{endpoint.authority}")
    return found


def _speaks_tls(route: Route) -> bool:
    try:
        with route.open() as sock, unverified(sock, route.endpoint.host, ["h2", "http/1.1"]):
            return True
    except ssl.SSLError as error:
        # A TLS alert is an answer of a server that speaks TLS, even if it refuses this handshake.
        return "ALERT" in (error.reason or "").upper()
    except (OSError, TroubleError):
        return False


def _look(route: Route, kind: str, alpn: str | None) -> Greeting:
    try:
        with route.open() as plain:
            if alpn is None:
                return _ask(plain, route, kind)
            with unverified(plain, route.endpoint.host, [alpn]) as sock:
                return _ask(sock, route, kind)
    except (OSError, TroubleError):
        return Greeting("the end")
