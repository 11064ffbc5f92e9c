"""The channel on grpcio: its errors are told from the server's own, and a broken channel is replaced."""

import re

import grpc.aio
import numpy as np
import pytest
from casdk import TLS, Client, Retry
from casdk._transport.channels.libraries.grpc import CHANNEL
from casdk.errors import ProtocolMismatchError, TransportError
from casdk.testing import FaultServer, Refuse


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("Ssl handshake failed: SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED", ""),
        ("connection attempt timed out before receiving SETTINGS frame", ""),
        ("Cannot check peer: missing selected ALPN property.", ""),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:9: Connection refused",
            "the server does not reach what is behind it: ipv4:127.0.0.1:9: Connection refused",
        ),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:9: Connection refused |Gateway: "
            "Communication error with deployment clip",
            "the server does not reach what is behind it: Communication error with deployment clip",
        ),
        ("DNS resolution failed for clip-encoder:51000", ""),
    ],
)
@pytest.mark.parametrize("scheme", ["grpc", "grpcs"])
def test_words_of_the_server_are_not_about_this_connection(scheme, words, said):
    """A gateway repeats gRPC's error of its own connection to the executor, which may have begun with the request."""
    with FaultServer(Refuse(14, message=words), width=8) as server:
        tls = TLS(ca=server.ca) if scheme == "grpcs" else None
        client = Client(server.address(scheme), tls=tls, retry=Retry(attempts=1), timeout=20, transport="libraries")
        with client, pytest.raises(TransportError, match=re.escape(said or words)) as caught:
            client.index(["a"])
    assert type(caught.value) is TransportError
    assert (caught.value.retryable, caught.value.sent, caught.value.away) == (True, True, True)


class Watching(grpc.aio.UnaryUnaryClientInterceptor):
    """What instrumentation puts around calls."""

    calls = 0

    async def intercept_unary_unary(self, continuation, details, request):
        self.calls += 1
        return await continuation(details, request)


def test_a_call_that_somebody_intercepts(connect, expected, monkeypatch):
    """OpenTelemetry's instrumentation of grpc.aio replaces what opens a channel."""
    watching, open_channel = Watching(), grpc.aio.insecure_channel
    monkeypatch.setattr(
        grpc.aio,
        "insecure_channel",
        lambda target, options: open_channel(target, options=options, interceptors=[watching]),
    )
    np.testing.assert_array_equal(connect("grpc", transport="libraries").encode(["a"]), expected(["a"]))
    assert watching.calls > 0


def test_a_channel_that_lost_its_certificates_is_replaced(connect, expected, monkeypatch):
    """A race of gRPC's that a restarting server brings about, once in some thousand times; here it is made sure of."""
    ask, asked = CHANNEL._credentials, []

    async def forgetful(channel, options):
        asked.append(channel)
        if len(asked) == 1:
            return grpc.ssl_channel_credentials(b"nothing that gRPC takes for a certificate")
        return await ask(channel, options)

    monkeypatch.setattr(CHANNEL, "_credentials", forgetful)
    client = connect("grpcs", retry=Retry(attempts=2, backoff=0.001), transport="libraries")
    np.testing.assert_array_equal(client.encode(["a"]), expected(["a"]))
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("code", "details", "other"),
    [
        (2, "Stream removed (Failed parsing HTTP/2 (Frame size 5460808 is larger than max frame size 16384))", True),
        (
            14,
            "Stream removed (Delayed close due to in-progress write (Failed parsing HTTP/2 (Frame size 5460808)))",
            True,
        ),
        (14, "Stream removed (Failed parsing HTTP/2 (x)) |Gateway: Communication error with deployment clip", False),
    ],
)
def test_what_grpc_says_of_bytes_that_are_none_of_its_protocol(code, details, other):
    """It depends on what it is about when it reads them; and a gateway says it of the executor behind it."""
    with FaultServer(Refuse(code, message=details)) as server:
        client = Client(server.address("grpc"), retry=Retry(attempts=1), timeout=20, transport="libraries")
        with client, pytest.raises(TransportError) as caught:
            client.encode(["a"])
    assert type(caught.value) is (ProtocolMismatchError if other else TransportError)
