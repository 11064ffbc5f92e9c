"""A websocket's close code, or a refused handshake, becomes the right error."""

import pytest
from casdk import AuthError, OverloadedError, ProtocolMismatchError, ProxyError, ServerError, TransportError
from casdk._transport.channels.closes import closed_with, handshake_refused, no_websocket

WHERE = "websockets://host:1"


@pytest.mark.parametrize(
    ("code", "kind", "away"),
    [
        (1000, TransportError, True),
        (1001, TransportError, True),
        (1002, ServerError, None),
        (1007, ServerError, None),
        (1008, AuthError, None),
        (1009, TransportError, False),
        (1011, TransportError, True),
        (1013, OverloadedError, None),
        (4001, TransportError, False),
        (4401, AuthError, None),
    ],
)
def test_what_the_server_closed_with(code, kind, away):
    error = closed_with(code, "why", WHERE)
    assert type(error) is kind
    assert str(error) == f"{WHERE}: the server closed the connection with {code} why"
    assert error.code == str(code)
    assert away is None or error.away is away


@pytest.mark.parametrize("code", [1008, 1013, 1003])
def test_a_code_does_not_say_which_of_several_requests_it_refuses(code):
    assert closed_with(code, "", WHERE, shared=True).shared
    assert not closed_with(code, "", WHERE).shared


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AuthError),
        (407, ProxyError),
        (429, OverloadedError),
        (500, ServerError),
        (503, TransportError),
        (200, ProtocolMismatchError),
        (404, ProtocolMismatchError),
    ],
)
def test_a_handshake_that_is_answered_otherwise(status, kind):
    error = handshake_refused(status, None, WHERE)
    assert type(error) is kind
    assert not error.sent
    assert ("use https://" in str(error)) is (kind is ProtocolMismatchError)


def test_a_wait_that_is_asked_for_in_the_handshake():
    assert handshake_refused(429, "7", WHERE).retry_after == 7


def test_what_is_no_answer_to_a_handshake():
    error = no_websocket("no colon in a line", WHERE)
    assert (error.retryable, error.sent) == (False, False)
    assert str(error) == f"{WHERE}: this port does not speak websocket (no colon in a line)"
