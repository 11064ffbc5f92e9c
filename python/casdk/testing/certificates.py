"""Certificates for tests: an authority of one's own, good certificates and every common kind of bad one."""

from __future__ import annotations

import functools
import ipaddress
import ssl
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["LOOPBACK", "Authority", "Certificate", "authority", "self_signed", "server_context"]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names a server on this machine goes by."""

DAY = timedelta(days=1)


class Certificate:
    """A certificate and its private key.

    Attributes:
        pem: The certificate, PEM.
        key: The private key, PEM, unencrypted.
    """

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.pem: bytes = certificate.public_bytes(serialization.Encoding.PEM)
        self.key: bytes = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def __repr__(self) -> str:
        return f"Certificate(<{len(self.pem)} bytes>, key=***)"

    def write(self, directory: str | Path) -> tuple[Path, Path]:
        """Write ``cert.pem`` and ``key.pem`` into a directory and return their paths."""
        cert, key = Path(directory, "cert.pem"), Path(directory, "key.pem")
        key.touch(mode=0o600)
        cert.write_bytes(self.pem)
        key.write_bytes(self.key)
        return cert, key


class Authority:
    """A certificate authority.

    Args:
        name: Its common name.

    Attributes:
        pem: Its own certificate, PEM: what a client is told to trust (``TLS(ca=authority.pem)``).
    """

    def __init__(self, name: str = "casdk testing authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self._certificate = _sign(self._name, self._key, self._name, self._key, [], timedelta(), 365 * DAY, True)
        self.pem: bytes = self._certificate.public_bytes(serialization.Encoding.PEM)

    def server(self, names: Sequence[str] = LOOPBACK, days: int = 365) -> Certificate:
        """Return a certificate for a server of these DNS names and IP addresses, valid for so many days."""
        return self._issue("casdk testing server", names, timedelta(), days * DAY)

    def client(self, name: str = "casdk testing client") -> Certificate:
        """Return a certificate for a client (mTLS)."""
        return self._issue(name, (), timedelta(), 365 * DAY)

    def expired(self, names: Sequence[str] = LOOPBACK) -> Certificate:
        """Return a server certificate whose last day was yesterday."""
        return self._issue("casdk testing expired", names, -30 * DAY, 29 * DAY)

    def premature(self, names: Sequence[str] = LOOPBACK) -> Certificate:
        """Return a server certificate whose first day is tomorrow."""
        return self._issue("casdk testing premature", names, DAY, 365 * DAY)

    def wrong_host(self) -> Certificate:
        """Return a server certificate that is good for another host only."""
        return self.server(("elsewhere.invalid",))

    def _issue(self, name: str, names: Sequence[str], start: timedelta, life: timedelta) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        return Certificate(_sign(_named(name), key, self._name, self._key, names, start, life, False), key)


@functools.cache
def authority() -> Authority:
    """Return this process's default authority, made once."""
    return Authority()


def self_signed(names: Sequence[str] = LOOPBACK) -> Certificate:
    """Return a server certificate that nobody but itself vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _named("casdk testing self-signed")
    return Certificate(_sign(name, key, name, key, names, timedelta(), 365 * DAY, False), key)


def server_context(
    certificate: Certificate,
    alpn: Sequence[str],
    client_ca: bytes | None = None,
    maximum_version: ssl.TLSVersion | None = None,
) -> ssl.SSLContext:
    """Return a server's TLS context.

    Args:
        certificate: What the server shows.
        alpn: Protocols it offers.
        client_ca: PEM of the authority a client's certificate must come from; ``None`` asks for none.
        maximum_version: Newest TLS it speaks, e.g. ``TLSv1_1`` to see it refused.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as directory:
        context.load_cert_chain(*certificate.write(directory))
    context.set_alpn_protocols(list(alpn))
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_ca.decode("ascii"))
    if maximum_version is not None:
        # OpenSSL 3 speaks what came before TLS 1.2 at its lowest security level only.
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = min(maximum_version, ssl.TLSVersion.TLSv1_2)
        context.maximum_version = maximum_version
    return context


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _sign(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    names: Sequence[str],
    start: timedelta,
    life: timedelta,
    is_authority: bool,
) -> x509.Certificate:
    # An hour's grace, for clocks that differ.
    not_before = datetime.now(UTC) + start - timedelta(hours=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_before + life)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(_usage(is_authority), critical=True)
    )
    if not is_authority:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _usage(is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
