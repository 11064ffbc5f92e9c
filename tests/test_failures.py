"""What the log says of a request that failed."""

from __future__ import annotations

import logging

import pytest
from casdk import ServerError
from casdk._calls.batches import Batch, Request
from casdk._calls.failures import CONSEQUENCES, log_failure

SAID = {
    "move": ", and goes to another server at once",
    "repeat": ", and is sent again in 1.50 s",
    "wait": ", and is sent again when the server is back",
    "split": ", and is halved to find the item",
    "lost": " for good",
    "stop": " for good",
}


@pytest.mark.parametrize("outcome", SAID)
def test_the_line_says_what_the_call_does_next(caplog, outcome):
    caplog.set_level(logging.DEBUG, "casdk.calls")
    batch = Batch(range(3, 5), ["a", "b"], b"", attempts=2)
    log_failure("grpc://a:1", Request(batch, "id"), ServerError("why"), outcome, 1.5)
    [record] = caplog.records
    assert record.getMessage() == (
        f"grpc://a:1: request id of 2 items from item 3 failed on attempt 2{SAID[outcome]}: why"
    )
    assert record.levelno == CONSEQUENCES.get(outcome, (logging.DEBUG, ""))[0]


def test_the_line_says_that_a_request_was_too_large(caplog):
    caplog.set_level(logging.INFO, "casdk.calls")
    request = Request(Batch(range(2), ["a", "b"], b""), "id")
    log_failure("grpc://a:1", request, ServerError("why", too_large=True), "split", 0.0)
    assert ", and is halved, as it is too large: why" in caplog.text
