"""Makes certificates: one for the secure schemes of the embedded server, and every common kind for tests."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["LOOPBACK", "Bearer", "Certificate", "check_certificate", "sign", "write_certificate"]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""The names of a server on this machine."""
YEAR = timedelta(days=365)
PEER = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
"""The usages of a certificate of a server or a client."""


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


class Bearer:
    """A subject of certificates, or an authority that signs them.

    Args:
        name: Common name.

    Attributes:
        name: The name in certificates.
        key: The private key, a new one.
    """

    def __init__(self, name: str) -> None:
        self.name: x509.Name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key: ec.EllipticCurvePrivateKey = ec.generate_private_key(ec.SECP256R1())


def sign(
    subject: Bearer,
    issuer: Bearer,
    names: Sequence[str] = (),
    *,
    start: timedelta = timedelta(),
    life: timedelta = YEAR,
    is_authority: bool = False,
    usages: Sequence[x509.ObjectIdentifier] = PEER,
) -> Certificate:
    """Return a certificate of a subject, signed by an issuer, who may be the subject itself.

    Args:
        subject: The subject of the certificate.
        issuer: The authority that signs it.
        names: DNS names and IP addresses that it is valid for.
        start: The time from now until it begins to be valid.
        life: How long it is valid.
        is_authority: Whether its subject may sign other certificates.
        usages: What it may be used for; without any, for everything.
    """
    # It is valid an hour earlier, since clocks differ.
    not_before = datetime.now(UTC) + start - timedelta(hours=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject.name)
        .issuer_name(issuer.name)
        .public_key(subject.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_before + life)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(subject.key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
        .add_extension(_usage(is_authority), critical=True)
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
    return Certificate(builder.sign(issuer.key, hashes.SHA256()), subject.key)


def write_certificate(directory: Path, host: str = "127.0.0.1") -> tuple[Path, Path]:
    """Make a certificate for ``localhost``, ``127.0.0.1``, ``::1`` and ``host``; return its file and its key's."""
    server = Bearer("localhost")
    names = (*LOOPBACK, *({host} - {*LOOPBACK}))
    # It is an authority, since clients have to trust it as one.
    made = sign(server, server, names, is_authority=True, usages=(ExtendedKeyUsageOID.SERVER_AUTH,))
    return made.write(directory)


def check_certificate(certificate: Path, key: Path) -> None:
    """Check that a server can use a certificate and its key, because not every library reports what is wrong.

    Raises:
        ValueError: They cannot be used; the message names the files.
    """

    def no_password() -> str:
        raise ValueError(f"the key {key} is encrypted, and there is nobody to ask for its password")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, no_password)
    except ssl.SSLError as error:
        raise ValueError(f"{certificate} and {key} are no certificate in PEM and its key: {error.reason}") from None
    except OSError as error:
        raise ValueError(f"cannot read the certificate {certificate} or its key {key}: {error.strerror}") from None


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
