"""Texts of servers and proxies are made short and harmless before a message shows them."""

import pytest
from casdk._remarks import SHOWN_CHARACTERS, remark

NGINX = b"<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n<center>nginx</center>"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (b"", ""),
        ("out of memory\n", "out of memory"),
        ("two\nlines", "two\nlines"),
        (NGINX, "a web page, '413 Request Entity Too Large'"),
        ("<!DOCTYPE html><p>no title</p>", "a web page"),
        (
            "<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC '-//W3C'><h1 id='a'>Not <b>here</b></h1>",
            "a web page, 'Not here'",
        ),
        ("<BODY>\n<H1>&#83;orry &amp; thanks</H1>", "a web page, 'Sorry & thanks'"),
        ("upstream said: <html><title>502</title>", "upstream said: a web page, '502'"),
        ("<1 items> of <class 'ValueError'>", "<1 items> of <class 'ValueError'>"),
        ("<Error><Code>EntityTooLarge</Code></Error>", "<Error><Code>EntityTooLarge</Code></Error>"),
        ("\x1b[31mred\x07\ttab", "\ufffd[31mred\ufffd\ttab"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("x" * (SHOWN_CHARACTERS + 1), "x" * SHOWN_CHARACTERS + "..."),
        (f"<title>{'y' * 500}</title>", f"a web page, {'y' * 100!r}"),
    ],
)
def test_what_is_left(words, shown):
    assert remark(words) == shown


@pytest.mark.parametrize("piece", ["<", "<title", "<title>", "<h1><", "&#", "<?xml"])
def test_whoever_sent_it_cannot_make_it_last(piece):
    assert len(remark(piece * 1_000_000)) < 1000
