"""A self-signed certificate for the secure schemes on this machine."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["check_certificate", "write_certificate"]

VALID = datetime.timedelta(days=365)
SKEW = datetime.timedelta(hours=1)


def write_certificate(directory: Path, host: str = "127.0.0.1") -> tuple[Path, Path]:
    """Make a certificate for ``localhost``, ``127.0.0.1``, ``::1`` and ``host``; return its file and its key's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - SKEW, now + VALID)
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / "cert.pem", directory / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


def check_certificate(certificate: Path, key: Path) -> None:
    """Look whether a server can use a certificate and its key, as not all that use them say what is wrong.

    Raises:
        ValueError: It cannot; the message names the files.
    """

    def no_password() -> str:
        raise ValueError(f"the key {key} is encrypted, and there is nobody to ask for its password")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, no_password)
    except ssl.SSLError as error:
        raise ValueError(f"{certificate} and {key} are no certificate in PEM and its key: {error.reason}") from None
    except OSError as error:
        raise ValueError(f"cannot read the certificate {certificate} or its key {key}: {error.strerror}") from None


def _names(host: str) -> list[x509.GeneralName]:
    names: dict[str, x509.GeneralName] = {"localhost": x509.DNSName("localhost")}
    for text in ("127.0.0.1", "::1", host):
        try:
            names[text] = x509.IPAddress(ipaddress.ip_address(text))
        except ValueError:
            names[text] = x509.DNSName(text)
    return list(names.values())
