"""The certificates that the channel on grpcio needs: the server's own if nothing is verified, or the system's."""

import ssl

import pytest
from casdk import TLS, Limits, Timeouts, TLSError, TransportError
from casdk._transport.address import parse_address
from casdk._transport.channels.libraries.certificates import shown_certificate, system_roots
from casdk._transport.channels.libraries.grpc import GrpcChannel
from casdk.testing import ConnectProxy, FaultServer
from casdk.testing.certificates import Authority, self_signed


def channel_to(address, proxy=None, **tls):
    return GrpcChannel(parse_address(address), TLS(verify=False, **tls), Timeouts(connect=5), Limits(), proxy)


def test_the_systems_are_those_that_python_trusts(monkeypatch):
    monkeypatch.delenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", raising=False)
    trusted = ssl.create_default_context().get_ca_certs(binary_form=True)
    roots = system_roots()
    blocks = (roots or b"").decode().count("BEGIN CERTIFICATE")
    assert blocks == len(trusted)
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "/some/file")
    assert system_roots() is None


@pytest.mark.parametrize(
    ("names", "asked", "good_for"),
    [
        (("localhost", "127.0.0.1"), None, "127.0.0.1"),
        (("localhost",), "localhost", "localhost"),
        (("elsewhere.invalid", "other.invalid"), None, "elsewhere.invalid"),
        (("*.elsewhere.invalid",), None, "any.elsewhere.invalid"),
        ((), None, "casdk testing self-signed"),
    ],
)
def test_what_is_shown_and_a_name_it_is_good_for(names, asked, good_for):
    made = self_signed(names)
    with FaultServer(certificate=made) as server:
        pem, name = shown_certificate(channel_to(server.address("grpcs"), server_name=asked))
    assert ssl.PEM_cert_to_DER_cert(pem.decode()) == ssl.PEM_cert_to_DER_cert(made.pem.decode())
    assert name == good_for


@pytest.mark.parametrize("kind", ["expired", "premature"])
def test_what_grpc_takes_in_no_case_is_said(kind):
    with (
        FaultServer(certificate=getattr(Authority(), kind)()) as server,
        pytest.raises(TLSError, match="grpc takes no such certificate, not even with verify=False") as refusal,
    ):
        shown_certificate(channel_to(server.address("grpcs")))
    assert (refusal.value.retryable, refusal.value.sent) == (False, False)


def test_a_proxy_is_gone_through():
    with FaultServer() as server, ConnectProxy() as proxy:
        pem, _ = shown_certificate(channel_to(server.address("grpcs"), proxy.url()))
        assert proxy.targets == [f"127.0.0.1:{server.port('grpcs')}"] * 2
    assert pem.startswith(b"-----BEGIN CERTIFICATE-----")


def test_where_nobody_speaks_tls_there_is_no_connection():
    with (
        FaultServer() as server,
        pytest.raises(TransportError, match=f"no TLS connection to grpcs://127.0.0.1:{server.port('grpc')}"),
    ):
        shown_certificate(channel_to(f"grpcs://127.0.0.1:{server.port('grpc')}"))
