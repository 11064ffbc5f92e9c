import grpc.aio
import numpy as np
import pytest
from casdk._channels.grpc import _lost
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
