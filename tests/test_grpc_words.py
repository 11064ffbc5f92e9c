"""grpcio's error texts are translated into casdk's errors."""

import pytest
from casdk._transport.channels.libraries.grpc_words import is_break, is_limit, is_silence, lost
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
def test_what_grpc_says_of_alost_connection(tls, details, kind, retryable):
    """The words are gRPC's own, as they were seen."""
    error = lost(tls, details, "where")
    assert type(error) is kind
    assert (error.retryable, error.sent) == (retryable, False)


@pytest.mark.parametrize("tls", [False, True])
def test_an_unknown_host_is_not_away(tls):
    words = "errors resolving nowhere.invalid:80: [field:hostname lookup error: DNS query timed out]"
    error = lost(tls, words, "where")
    assert type(error) is TransportError
    assert (error.retryable, error.sent, error.away) == (True, False, False)
    assert not is_silence(words)


@pytest.mark.parametrize(
    ("details", "silent"),
    [
        (ADDRESS + "connection attempt timed out before receiving SETTINGS frame", True),
        (ADDRESS + "Handshake read failed (Endpoint closing)", True),
        (ADDRESS + "tcp handshaker shutdown", True),
        (ADDRESS + "Failed parsing HTTP/2 (Expected SETTINGS frame as the first frame, got frame type 80)", False),
        (ADDRESS + "Handshake read failed (Socket closed)", False),
        (ADDRESS + "Failed to connect to remote host: Connection refused", False),
    ],
)
def test_what_grpc_says_of_silence(details, silent):
    assert is_silence(details) is silent


@pytest.mark.parametrize(
    ("details", "ours"),
    [
        ("CLIENT: Received message larger than max (5 vs. 4)", True),
        ("Received message larger than max (5 vs. 4)", True),
        ("Received message larger than max (5 vs. 3)", False),
        ("SERVER: Received message larger than max (5 vs. 4)", False),
    ],
)
def test_whose_limit_it_is(details, ours):
    assert is_limit(details, 4) is ours


def test_what_broke_is_no_word_of_the_servers():
    assert is_break("Stream removed (something)")
    assert not is_break("the stream was removed")
