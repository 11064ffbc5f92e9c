"""Valid and invalid certificates, as OpenSSL judges them."""

import ssl

import pytest
from casdk.testing.certificates import Authority, authority, self_signed, server_context
from cryptography import x509


def shake_hands(context, trusted, name="localhost", client=None, version=None):
    """Shake hands without a network; return the version, or what OpenSSL says against it."""
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.load_verify_locations(cadata=trusted.decode())
    if client is not None:
        asking.load_cert_chain(*client)
    if version is not None:
        asking.maximum_version = version
    ways = [ssl.MemoryBIO() for _ in range(2)]
    ends = [asking.wrap_bio(*ways, server_hostname=name), context.wrap_bio(*ways[::-1], server_side=True)]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
            except ssl.SSLError as error:
                return error.reason
    return ends[0].version()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_a_good_one(name):
    made = Authority()
    assert shake_hands(server_context(made.server(), ["h2"]), made.pem, name) == "TLSv1.3"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("expired", "certificate has expired"),
        ("premature", "certificate is not yet valid"),
        ("wrong_host", "Hostname mismatch, certificate is not valid for 'localhost'."),
    ],
)
def test_a_bad_one_is_bad_for_its_one_reason(kind, says):
    made = Authority()
    assert shake_hands(server_context(getattr(made, kind)(), ["h2"]), made.pem) == says


def test_nobody_vouches_for_one_that_is_self_signed_or_of_another_authority():
    made, other = Authority(), Authority("another")
    assert "self-signed" in shake_hands(server_context(self_signed(), ["h2"]), made.pem)
    assert "unable to get local issuer" in shake_hands(server_context(other.server(), ["h2"]), made.pem)


def test_a_server_that_asks_for_a_certificate_takes_its_own_authoritys_alone(tmp_path):
    made, other = Authority(), Authority("another")
    context = server_context(made.server(), ["h2"], client_ca=made.pem)
    for number, (issuer, fits) in enumerate(((made, True), (other, False))):
        (tmp_path / str(number)).mkdir()
        client = issuer.client().write(tmp_path / str(number))
        # TLS 1.2, in which the client hears of the refusal within the handshake.
        found = shake_hands(context, made.pem, client=client, version=ssl.TLSVersion.TLSv1_2)
        assert (found == "TLSv1.2") is fits
    assert shake_hands(context, made.pem, version=ssl.TLSVersion.TLSv1_2) == "PEER_DID_NOT_RETURN_A_CERTIFICATE"


def test_an_old_version_is_spoken_where_it_was_asked_for():
    made = Authority()
    context = server_context(made.server(), ["h2"], maximum_version=ssl.TLSVersion.TLSv1_2)
    assert shake_hands(context, made.pem) == "TLSv1.2"


def test_there_is_one_default_authority():
    assert authority() is authority()
    extensions = x509.load_pem_x509_certificate(authority().pem).extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca
