"""The error of an HTTP status describes the server's answer, whatever the body is."""

import msgspec
import pytest
from casdk._transport.channels import refusals


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[" * 100_000,
        b'{"detail":' * 100_000,
        b'{"detail": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"detail": "\xff\xfe"}',
        b'{"header": {"status": {"description": 1}}}',
        b'{"header": {"status": {"description": "\\ud800"}}}',
        b"<html>nothing here</html>",
        bytes(range(256)),
    ],
    ids=lambda body: repr(body[:30]),
)
def test_a_body_that_describes_nothing(body):
    name, description = refusals._described(body)
    assert name == ""
    assert "<html" not in description


def test_a_body_that_describes():
    status = {"description": "out of memory", "exception": {"name": "RuntimeError"}}
    assert refusals._described(msgspec.json.encode({"header": {"status": status}})) == ("RuntimeError", "out of memory")
    assert refusals._described(b'{"detail": "no such path"}') == ("", "no such path")
