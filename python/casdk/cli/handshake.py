"""The doctor's TLS handshake: the server's certificate, and why it is not accepted."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from casdk import TLS
from casdk._transport.address import SCHEMES, Endpoint
from casdk._transport.channels.base import secured, ssl_context
from casdk._transport.channels.causes import (
    CLIENT_REFUSED,
    CLOSED_IN_TLS,
    EXPIRED,
    NOT_YET_VALID,
    OLD_TLS,
    OTHER_NAME,
    SELF_SIGNED,
    UNKNOWN_AUTHORITY,
    cause_of,
)
from casdk.cli.route import Route
from casdk.cli.trouble import TroubleError

__all__ = ["Identity", "refused", "shake", "unverified"]

SOON_DAYS: Final = 14
"""A certificate that expires within this time gets a warning."""
REFUSAL_SECONDS: Final = 0.3
"""How long a refusal of the client's certificate is waited for after the handshake."""
NO_TLS: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNEXPECTED_MESSAGE"}
)


class Identity:
    """The contents of a certificate.

    Args:
        der: The certificate.
    """

    def __init__(self, der: bytes) -> None:
        self._read = x509.load_der_x509_certificate(der)
        self.until: datetime = self._read.not_valid_after_utc
        self.since: datetime = self._read.not_valid_before_utc

    @property
    def names(self) -> list[str]:
        """The host names and addresses that it is valid for."""
        try:
            extension = self._read.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            return []
        dns = extension.value.get_values_for_type(x509.DNSName)
        return [*dns, *(str(address) for address in extension.value.get_values_for_type(x509.IPAddress))]

    @property
    def issuer(self) -> str:
        """Who signed it."""
        return self._read.issuer.rfc4514_string()

    def __str__(self) -> str:
        left = (self.until - datetime.now(UTC)).days
        soon = f", WHICH IS IN {left} DAYS" if 0 <= left < SOON_DAYS else ""
        return f"for {', '.join(self.names) or 'no name'}, signed by {self.issuer}, until {_day(self.until)}{soon}"


def _day(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"


def shake(route: Route, tls: TLS, otherwise: Callable[[], list[str]]) -> str:
    """Make the TLS handshake as the client would; return a line with the TLS version and the certificate.

    Args:
        route: The way to the server.
        tls: How to verify it.
        otherwise: Returns addresses that would work instead of this one, if any.

    Raises:
        TroubleError: The server cannot be trusted, or the handshake failed.
        ConfigError: The client's own certificates cannot be used.
    """
    endpoint = route.endpoint
    wanted = SCHEMES[endpoint.scheme].alpn
    context = ssl_context(tls, [wanted])
    sock = route.open()
    try:
        with secured(context, sock, tls.server_name or endpoint.host) as secure:
            version, agreed = secure.version(), secure.selected_alpn_protocol()
            identity = Identity(secure.getpeercert(binary_form=True) or b"")
            _wait_for_refusal(secure)
    except ssl.SSLCertVerificationError as error:
        raise _unaccepted(error, route, tls) from None
    except ssl.SSLError as error:
        raise refused(error, route, otherwise) from None
    except TimeoutError:
        raise TroubleError(
            f"the server does not finish the TLS handshake within {route.seconds:g} s",
            _cure_otherwise(otherwise(), "see whether the server, or what stands before it, is overloaded or stuck"),
        ) from None
    except OSError as error:
        raise _broken(error, otherwise) from None
    finally:
        sock.close()
    if wanted == "h2" and agreed != "h2":
        raise TroubleError(
            "TLS is fine, but the server does not agree to HTTP/2 in it (ALPN h2), which gRPC needs",
            _cure_otherwise(otherwise(), "have what ends TLS there speak HTTP/2"),
            step="protocol",
        )
    unchecked = "" if tls.verify else " (not verified: --insecure)"
    return f"{version}; certificate {identity}{unchecked}"


def _wait_for_refusal(secure: ssl.SSLSocket) -> None:
    """Wait a little for a refusal: in TLS 1.3, a server checks the client after the client's handshake is complete."""
    secure.settimeout(REFUSAL_SECONDS)
    try:
        received = secure.recv(1)
    except TimeoutError:
        return
    if not received:
        raise ConnectionAbortedError("closed right after it")


def unverified(sock: socket.socket, host: str, alpn: list[str]) -> ssl.SSLSocket:
    """Return a TLS socket that accepts any certificate: it may be used to examine a server, and never to send data."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(alpn)
    return secured(context, sock, host)


def _shown(route: Route, tls: TLS) -> Identity:
    name = tls.server_name or route.endpoint.host
    with route.open() as sock, unverified(sock, name, [SCHEMES[route.endpoint.scheme].alpn]) as secure:
        return Identity(secure.getpeercert(binary_form=True) or b"")


def _unaccepted(error: ssl.SSLCertVerificationError, route: Route, tls: TLS) -> TroubleError:
    """Return why the server's certificate is not accepted, from the error and from the certificate itself."""
    identity = _shown(route, tls)
    cause, now = cause_of(str(error)), datetime.now(UTC)
    if cause is None:
        return TroubleError(
            f"the server's certificate is not accepted: {error.verify_message}",
            "have a certificate made for a TLS server",
        )
    if cause is EXPIRED and identity.until > now:
        return TroubleError(
            "a certificate above the server's own has expired",
            "renew the chain on the server, or the file of TLS(ca=...)",
        )
    if cause is EXPIRED:
        return TroubleError(f"{cause.seen} at {_day(identity.until)}; it is {_day(now)} here", cause.cure)
    if cause is NOT_YET_VALID:
        detail = f"the server's certificate is not valid before {_day(identity.since)}; it is {_day(now)} here"
        return TroubleError(detail, cause.cure)
    if cause is OTHER_NAME:
        asked, names = tls.server_name or route.endpoint.host, ", ".join(identity.names) or "no name at all"
        return TroubleError(
            f"the server's certificate is for {names}, not for {asked}",
            _cure_of_name(route.endpoint, identity),
        )
    if cause is SELF_SIGNED:
        return TroubleError(f"{cause.seen} ({identity.issuer})", cause.cure)
    if cause is UNKNOWN_AUTHORITY:
        trusted = "the authorities of TLS(ca=...)" if tls.ca is not None else "the system's authorities"
        return TroubleError(
            f"the server's certificate is signed by {identity.issuer}, which {trusted} do not vouch for", cause.cure
        )
    return TroubleError(cause.seen, cause.cure)


def _cure_of_name(endpoint: Endpoint, identity: Identity) -> str:
    if not identity.names:
        return "have a certificate made that names the server (subjectAltName)"
    name = identity.names[0]
    return (
        f"use {endpoint.scheme}://{name}:{endpoint.port}, or give --server-name {name}, or have it made for this name"
    )


def refused(error: ssl.SSLError, route: Route, otherwise: Callable[[], list[str]]) -> TroubleError:
    """Return the meaning of a failed handshake, or of a refusal by TLS 1.3, which comes with the first read."""
    reason = (error.reason or "").upper()
    if reason in NO_TLS:
        return TroubleError(
            f"no TLS is spoken on port {route.endpoint.port}",
            _cure_otherwise(otherwise(), "use a scheme without s, or have the server speak TLS"),
            step="tls",
        )
    cause = cause_of(str(error))
    if cause is not None and cause in (OLD_TLS, CLIENT_REFUSED):
        return TroubleError(f"{cause.seen} ({error.reason})", cause.cure, step="tls")
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return _broken(error, otherwise)
    return TroubleError(f"the TLS handshake fails: {error.reason or error}", "see the server's log", step="tls")


def _broken(error: OSError, otherwise: Callable[[], list[str]]) -> TroubleError:
    cure = _cure_otherwise(otherwise(), CLOSED_IN_TLS.cure)
    return TroubleError(f"{CLOSED_IN_TLS.seen} ({type(error).__name__})", cure)


def _cure_otherwise(addresses: list[str], fallback: str) -> str:
    return f"use {' or '.join(addresses)}" if addresses else fallback
