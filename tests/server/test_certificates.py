"""The certificates that are made, checked with OpenSSL and the library cryptography."""

import asyncio
import ssl

import httpx
import pytest
from casdk.server import serve
from casdk.server.certificates import Bearer, check_certificate, sign, write_certificate
from casdk.server.gateway import Gateway
from casdk.server.settings import Settings
from cryptography import x509
from cryptography.hazmat.primitives import serialization


def test_a_certificate_of_ones_own(tmp_path):
    cert, key = write_certificate(tmp_path, "clip.example")
    with serve(schemes=["https"], cert=cert, key=key) as served:
        assert served.ca == cert
        context = ssl.create_default_context(cafile=cert)
        assert httpx.get(served.address("https"), verify=context).status_code == 200
    assert cert.exists()


def _keys(directory):
    """Two certificates with their keys, the first key once more under a password, and a file that is none of it."""
    for name in ("one", "other"):
        (directory / name).mkdir()
        write_certificate(directory / name)
    one = serialization.load_pem_private_key((directory / "one/key.pem").read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"password")
    pem = serialization.Encoding.PEM
    (directory / "secret.pem").write_bytes(one.private_bytes(pem, serialization.PrivateFormat.PKCS8, secret))
    (directory / "none.pem").write_text("no certificate")
    return directory


@pytest.mark.parametrize(
    ("cert", "key", "words"),
    [
        ("none.pem", "one/key.pem", "no certificate in PEM and its key"),
        ("one/cert.pem", "none.pem", "no certificate in PEM and its key"),
        ("one/cert.pem", "other/key.pem", "no certificate in PEM and its key"),
        ("one/key.pem", "one/cert.pem", "no certificate in PEM and its key"),
        ("one/cert.pem", "secret.pem", "secret.pem is encrypted, and there is nobody to ask"),
        ("one", "one", "Is a directory"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_named_on_every_scheme(tmp_path, cert, key, words):
    """gRPC said that it failed to bind, and OpenSSL asked for a password."""
    directory = _keys(tmp_path)
    for scheme in ("grpcs", "https"):
        settings = Settings(ports={scheme: 0}, cert=directory / cert, key=directory / key)
        with pytest.raises(ValueError, match=words) as refusal:
            asyncio.run(_started(settings))
        assert str(directory / key) in str(refusal.value)


async def _started(settings):
    async with Gateway(settings).run() as ready:
        return ready.addresses


def test_a_certificate_names_its_host_and_loopback(tmp_path):
    cert, key = write_certificate(tmp_path, "clip.example")
    made = x509.load_pem_x509_certificate(cert.read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["localhost", "clip.example"]
    assert [str(name) for name in names.value.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert not key.stat().st_mode & 0o077
    check_certificate(cert, key)


def test_openssl_accepts_it_for_each_of_its_names(tmp_path):
    cert, key = write_certificate(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    client = ssl.create_default_context(cafile=cert)
    for name, fits in (("localhost", True), ("127.0.0.1", True), ("::1", True), ("elsewhere", False)):
        assert _shake_hands(server, client, name) is fits


def _shake_hands(server, client, name):
    """Return whether a client that verifies takes the server's certificate for a name, without a network."""
    ways = [ssl.MemoryBIO() for _ in range(2)]
    ends = [client.wrap_bio(*ways, server_hostname=name), server.wrap_bio(*ways[::-1], server_side=True)]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return all(end.version() for end in ends)


def test_its_repr_shows_no_key():
    bearer = Bearer("name")
    made = sign(bearer, bearer)
    assert repr(made) == f"Certificate(<{len(made.pem)} bytes>, key=***)"
