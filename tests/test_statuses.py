"""gRPC's statuses become the same errors on both channels."""

import pytest
from casdk import AuthError, Client, OverloadedError, Retry, ServerError, TransportError
from casdk._transport.address import PROTOCOLS, parse_address
from casdk._transport.channels.statuses import CODES, error_of, page_error
from casdk.testing import FaultServer, Refuse

ENDPOINT = parse_address("grpc://clip.example:1")


@pytest.fixture(params=PROTOCOLS)
def protocols(request):
    """Each of the two channels in turn."""
    return request.param


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("CANCELLED", TransportError),
        ("UNKNOWN", ServerError),
        ("INVALID_ARGUMENT", ServerError),
        ("DEADLINE_EXCEEDED", TransportError),
        ("NOT_FOUND", ServerError),
        ("ALREADY_EXISTS", ServerError),
        ("PERMISSION_DENIED", AuthError),
        ("RESOURCE_EXHAUSTED", OverloadedError),
        ("FAILED_PRECONDITION", ServerError),
        ("ABORTED", TransportError),
        ("OUT_OF_RANGE", ServerError),
        ("UNIMPLEMENTED", ServerError),
        ("INTERNAL", ServerError),
        ("UNAVAILABLE", TransportError),
        ("DATA_LOSS", ServerError),
        ("UNAUTHENTICATED", AuthError),
    ],
)
def test_every_code_means_something(code, kind):
    error = error_of(ENDPOINT, code, "words", None, "1")
    assert type(error) is kind
    assert str(ENDPOINT) in str(error)
    assert "words" in str(error)
    assert code in CODES


@pytest.mark.parametrize(
    ("code", "asked", "kind", "seconds"),
    [
        ("UNAVAILABLE", "1500", TransportError, 1.5),
        ("RESOURCE_EXHAUSTED", "1500", OverloadedError, 1.5),
        ("RESOURCE_EXHAUSTED", "-1", OverloadedError, None),
        ("UNAVAILABLE", "soon", TransportError, None),
    ],
)
def test_a_wait_that_the_server_asks_for(code, asked, kind, seconds):
    error = error_of(ENDPOINT, code, "words", asked)
    assert type(error) is kind
    assert (error.retry_after, error.retryable) == (seconds, seconds is not None)
    assert repr(asked) in str(error)


def test_a_page_in_the_place_of_a_reply():
    error = page_error(ENDPOINT, 503, "7")
    assert type(error) is TransportError
    assert (error.retry_after, error.away, error.sent) == (7.0, True, True)
    too_large = page_error(ENDPOINT, 413)
    assert isinstance(too_large, ServerError)
    assert (too_large.too_large, too_large.sent) == (True, False)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (8, "Received message larger than max (4194305 vs. 4194304)"),
        (8, "grpc: received message larger than max (4194305 vs. 4194304)"),
        (8, "gRPC message exceeds maximum size 4194304: 4194305"),
        (8, "Received message exceeds the maximum configured message size."),
        (11, "Error, decoded message length too large: found 4194305 bytes, the limit is: 4194304 bytes"),
        (2, "Payload Too Large"),
    ],
)
def test_whatever_language_refuses_a_large_message(code, words, protocols):
    """C++ and Python, Go, Java, C#, Rust; Envoy."""
    with FaultServer(lambda request: Refuse(code, message=words) if len(request.texts) > 1 else None) as server:
        with Client(server.address("grpc"), retry=Retry(attempts=1), timeout=20, transport=protocols) as client:
            assert client.encode(["a", "b", "c"]).shape == (3, 512)
        assert server.counters.requests == 4  # of 3, 2, 1 and 1: what was too large once is not tried again


@pytest.mark.parametrize("code", [2, 12, 13])
def test_words_of_the_server_name_no_protocol(code, protocols):
    """What it says of a page that it could not fetch is no sign of another protocol here."""
    with FaultServer(Refuse(code, message="GET http://weights.example failed: HTTP/1.1 404")) as server:
        client = Client(server.address("grpc"), retry=Retry(attempts=1), timeout=20, transport=protocols)
        with client, pytest.raises(ServerError, match="weights") as caught:
            client.encode(["a"])
    assert type(caught.value) is ServerError
