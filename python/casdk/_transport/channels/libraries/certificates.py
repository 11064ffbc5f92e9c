"""Certificates for grpcio, which cannot skip verification and has trusted certificates of its own."""

from __future__ import annotations

import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

from casdk._transport.channels.base import Channel, proxy_headers, secured, ssl_context
from casdk.errors import TLSError, TransportError

__all__ = ["shown_certificate", "system_roots"]


def system_roots() -> bytes | None:
    """Return the system's trusted certificates: grpc's own bundle is another store than https and wss verify by."""
    import os

    if os.environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
        return None
    context = ssl.create_default_context()
    ders = context.get_ca_certs(binary_form=True)
    return "".join(ssl.DER_cert_to_PEM_cert(der) for der in ders).encode() or None


def shown_certificate(channel: Channel) -> tuple[bytes, str]:
    """Return the certificate that a server shows, as PEM, and a name in it, for ``verify=False``.

    It takes two handshakes, since Python parses a certificate only if it has verified it.
    """
    endpoint = channel.endpoint
    asked = channel.tls.server_name or endpoint.host
    context = ssl_context(channel.tls, ["h2"])
    try:
        with _handshake(channel, asked, context) as connection:
            pem = ssl.DER_cert_to_PEM_cert(connection.getpeercert(True) or b"")
        context.load_verify_locations(cadata=pem)
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags = ssl.VERIFY_X509_PARTIAL_CHAIN
        with _handshake(channel, asked, context) as connection:
            names = _names(connection.getpeercert() or {})
    except ssl.SSLCertVerificationError as error:
        said = f"{endpoint}: {error.verify_message}: grpc takes no such certificate, not even with verify=False"
        raise TLSError(said, retryable=False, sent=False) from error
    except OSError as error:
        raise TransportError(f"no TLS connection to {endpoint}: {error}", sent=False) from error
    if not names:
        said = f"{endpoint}: the certificate holds no name: grpc takes no such certificate, not even with verify=False"
        raise TLSError(said, retryable=False, sent=False)
    return pem.encode(), asked if asked in names else names[0].replace("*", "any", 1)


def _handshake(channel: Channel, name: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    from http.client import HTTPConnection  # which imports all of email

    endpoint = channel.endpoint
    way = urlsplit(channel.proxy) if channel.proxy is not None else None
    host, port = (endpoint.host, endpoint.port) if way is None else (way.hostname or "", way.port)
    # http.client tries one address after the other, and each may take the whole timeout.
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    tunnel = HTTPConnection(host, port, timeout=channel.timeouts.connect / len(addresses))
    if way is not None:
        tunnel.set_tunnel(endpoint.host, endpoint.port, proxy_headers(way))
    tunnel.connect()
    try:
        return secured(context, tunnel.sock, name)
    except BaseException:
        tunnel.close()
        raise


def _names(certificate: dict[str, Any]) -> list[str]:
    """Return the names in a certificate; the one of its subject, if it has no others."""
    names = [str(value) for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    subject = [str(value) for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"]
    return names or subject
