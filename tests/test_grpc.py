import grpc.aio
import numpy as np
import pytest
from casdk import Retry
from casdk._channels.grpc import CHANNEL, _lost
from casdk.errors import TLSError, TransportError

ADDRESS = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:43251: "


@pytest.mark.parametrize(
    ("tls", "details", "kind", "retryable"),
    [
        (False, ADDRESS + "Failed to connect to remote host: Connection refused", TransportError, True),
        (False, ADDRESS + "tcp handshaker shutdown", TransportError, True),
        (True, ADDRESS + "tcp handshaker shutdown", TransportError, True),
        (True, ADDRESS + "Failed to create security handshaker.", TLSError, True),
        (True, "Ssl handshake failed: Socket closed", TLSError, True),
        (True, "Ssl handshake failed: SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED", TLSError, False),
    ],
)
def test_what_grpc_says_of_a_lost_connection(tls, details, kind, retryable):
    """The words are gRPC's own, as they were seen."""
    error = _lost(tls, details, "where")
    assert type(error) is kind
    assert (error.retryable, error.sent) == (retryable, False)


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
    np.testing.assert_array_equal(connect("grpc").encode(["a"]), expected(["a"]))
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
    client = connect("grpcs", retry=Retry(attempts=2, backoff=0.001))
    np.testing.assert_array_equal(client.encode(["a"]), expected(["a"]))
    assert len(asked) == 2
