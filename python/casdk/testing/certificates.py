"""Certificates for tests: an authority, valid certificates, and every common kind of invalid one."""

from __future__ import annotations

import functools
import ssl
import tempfile
from collections.abc import Sequence
from datetime import timedelta

from casdk.server.certificates import LOOPBACK, Bearer, Certificate, sign

__all__ = ["LOOPBACK", "Authority", "Certificate", "authority", "self_signed", "server_context"]

DAY = timedelta(days=1)


class Authority:
    """A certificate authority.

    Args:
        name: Its common name.

    Attributes:
        pem: Its own certificate, PEM, which a client has to trust (``TLS(ca=authority.pem)``).
    """

    def __init__(self, name: str = "casdk testing authority") -> None:
        self._bearer = Bearer(name)
        self.pem: bytes = sign(self._bearer, self._bearer, life=365 * DAY, is_authority=True, usages=()).pem

    def server(self, names: Sequence[str] = LOOPBACK, days: int = 365) -> Certificate:
        """Return a certificate for a server of these DNS names and IP addresses, valid for so many days."""
        return self._issue("casdk testing server", names, life=days * DAY)

    def client(self, name: str = "casdk testing client") -> Certificate:
        """Return a certificate for a client (mTLS)."""
        return self._issue(name)

    def expired(self, names: Sequence[str] = LOOPBACK) -> Certificate:
        """Return a server certificate whose last day was yesterday."""
        return self._issue("casdk testing expired", names, start=-30 * DAY, life=29 * DAY)

    def premature(self, names: Sequence[str] = LOOPBACK) -> Certificate:
        """Return a server certificate whose first day is tomorrow."""
        return self._issue("casdk testing premature", names, start=DAY)

    def wrong_host(self) -> Certificate:
        """Return a server certificate that is valid only for another host."""
        return self.server(("elsewhere.invalid",))

    def _issue(
        self, name: str, names: Sequence[str] = (), start: timedelta = timedelta(), life: timedelta = 365 * DAY
    ) -> Certificate:
        return sign(Bearer(name), self._bearer, names, start=start, life=life)


@functools.cache
def authority() -> Authority:
    """Return the default authority of this process, which is made by the first call."""
    return Authority()


def self_signed(names: Sequence[str] = LOOPBACK) -> Certificate:
    """Return a server certificate that is signed by itself."""
    server = Bearer("casdk testing self-signed")
    return sign(server, server, names)


def server_context(
    certificate: Certificate,
    alpn: Sequence[str],
    client_ca: bytes | None = None,
    maximum_version: ssl.TLSVersion | None = None,
) -> ssl.SSLContext:
    """Return a server's TLS context.

    Args:
        certificate: The server's certificate.
        alpn: The protocols that it offers.
        client_ca: PEM of the authority that must have signed a client's certificate; ``None`` asks for none.
        maximum_version: The newest version of TLS that it speaks, such as ``TLSv1_1``, which clients refuse.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as directory:
        context.load_cert_chain(*certificate.write(directory))
    context.set_alpn_protocols(list(alpn))
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_ca.decode("ascii"))
    if maximum_version is not None:
        # OpenSSL 3 speaks versions before TLS 1.2 only at its lowest security level.
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = min(maximum_version, ssl.TLSVersion.TLSv1_2)
        context.maximum_version = maximum_version
    return context
