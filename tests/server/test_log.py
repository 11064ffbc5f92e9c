"""No text of a client can begin a line of its own in the log."""

import logging

import pytest
from casdk.server.log import OneLineFormatter

FORGED = [
    "\nERROR:root:all is lost",
    "\r\n",
    "\x1b[2J\x1b[H",
    "\x85",
    "\u2028",
    "\u202eoot",
    "\x00",
    "\x9b31m",
    "\x0b\x0c",
]


def _written(message, *arguments, error=None):
    info = None if error is None else (type(error), error, None)
    record = logging.LogRecord("name", logging.WARNING, __file__, 1, message, arguments, info)
    return OneLineFormatter(logging.BASIC_FORMAT).format(record)


@pytest.mark.parametrize("forged", FORGED)
def test_a_record_is_one_line_of_what_can_be_seen(forged):
    written = _written("%s failed", f"/encode{forged}")
    assert len(written.splitlines()) == 1
    assert written.isprintable()
    assert written.startswith("WARNING:name:/encode\\")


@pytest.mark.parametrize("forged", FORGED)
def test_a_traceback_is_indented(forged):
    first, *others = _written("failed", error=ValueError(f"no{forged}")).split("\n")
    assert first == "WARNING:name:failed"
    assert others
    assert all(line.startswith("    ") and line.isprintable() for line in others)


def test_other_words_are_left_alone():
    assert _written("ünïcödé 日本語 %d", 7) == "WARNING:name:ünïcödé 日本語 7"
