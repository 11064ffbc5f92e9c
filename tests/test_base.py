"""What all channels share: the errors of HTTP statuses, waits that a server asks for, slices of messages, TLS."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from math import inf, isnan, nan
from urllib.parse import urlsplit

import pytest
from casdk import (
    TLS,
    AuthError,
    ConfigError,
    OverloadedError,
    ProtocolMismatchError,
    ProxyError,
    ServerError,
    TransportError,
)
from casdk._transport.address import parse_address
from casdk._transport.channels.base import (
    SLICE_BYTES,
    no_tls,
    no_tunnel,
    overloaded,
    proxy_headers,
    read_pem,
    refused,
    run_out,
    seconds_asked,
    slices,
    ssl_context,
    unavailable,
)
from casdk.testing.certificates import Authority
from hypothesis import example, given
from hypothesis import strategies as st

ENDPOINT = parse_address("grpcs://host:1")


@pytest.mark.parametrize("size", [0, 1, SLICE_BYTES, SLICE_BYTES + 1, 3 * SLICE_BYTES])
def test_slices_are_the_message_again(size):
    message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    found = list(slices(message))
    assert b"".join(found) == message
    assert all(len(piece) == SLICE_BYTES for piece in found[:-1])
    assert all(piece.obj is message for piece in found)


@pytest.mark.parametrize(
    ("status", "kind", "retryable", "sent"),
    [
        (401, AuthError, False, True),
        (403, AuthError, False, True),
        (407, ProxyError, False, False),
        (408, TransportError, True, False),
        (413, ServerError, False, True),
        (426, ProtocolMismatchError, False, True),
        (429, OverloadedError, True, True),
        (500, ServerError, False, True),
        (502, TransportError, True, True),
        (503, TransportError, True, True),
        (504, TransportError, True, True),
    ],
)
def test_a_status_is_one_error(status, kind, retryable, sent):
    error = refused("said", status)
    assert type(error) is kind
    assert str(error).startswith("said")
    assert (error.retryable, error.sent) == (retryable, sent)


@pytest.mark.parametrize(
    ("status", "away"), [(502, True), (503, True), (504, False), (408, False)], ids=lambda value: str(value)
)
def test_which_statuses_say_that_the_server_is_away(status, away):
    assert refused("said", status).away is away
    assert no_tunnel(ENDPOINT, f"{status} Reason").away is away


def test_a_wait_that_a_server_asks_for_is_in_the_error():
    error = refused("said", 503, "7")
    assert error.retry_after == 7
    assert str(error) == "said (Retry-After: '7')"
    hostile = refused("said", 429, "x" * 9_999 + "\x1b[31m")
    assert hostile.retry_after is None
    assert len(str(hostile)) < 600
    assert "\x1b" not in str(hostile)


@pytest.mark.parametrize("make", [overloaded, lambda said, asked: unavailable(said, asked, away=False)])
@pytest.mark.parametrize(
    ("asked", "retryable", "retry_after"), [(None, True, None), (3.5, True, 3.5), (inf, False, inf), (nan, False, None)]
)
def test_a_request_is_not_repeated_after_an_endless_wait(make, asked, retryable, retry_after):
    error = make("said", asked)
    assert (error.retryable, error.retry_after) == (retryable, retry_after)


@given(st.floats(0, 1e9, allow_nan=False))
@example(0.0)
def test_seconds_are_a_number(seconds):
    assert seconds_asked(f" {seconds!r} ") == seconds
    assert seconds_asked(f"-{seconds!r}") == 0


@given(st.integers(-(10**6), 10**6))
@example(0)
def test_seconds_are_until_a_date(offset):
    then = datetime.now(UTC) + timedelta(seconds=offset)
    late = 0.0 if offset < 0 else offset
    assert seconds_asked(format_datetime(then, usegmt=True)) == pytest.approx(late, abs=30)
    # What asctime wrote names no time zone.
    assert seconds_asked(then.strftime("%a %b %d %H:%M:%S %Y")) == pytest.approx(late, abs=30)


@pytest.mark.parametrize("words", ["", "soon", "1_0", "٣", "nan", "-inf", "Mon, 99 Foo 2024", "Thu, 01 Jan 99999"])
def test_what_is_neither_is_no_number(words):
    assert isnan(seconds_asked(words))


def test_a_number_that_no_float_holds_is_without_end():
    assert seconds_asked("1" + "0" * 400) == inf


@given(st.text(max_size=30))
def test_any_words_are_seconds_or_none(words):
    seconds = seconds_asked(words)
    assert isnan(seconds) or seconds >= 0


@pytest.mark.parametrize(
    ("answer", "code", "retryable"),
    [("403 Forbidden", "403", False), ("503 Away", "503", True), ("²²² odd", "", False), ("", "", False)],
)
def test_a_proxy_that_opens_no_tunnel(answer, code, retryable):
    error = no_tunnel(ENDPOINT, answer)
    assert type(error) is ProxyError
    assert (error.code, error.retryable, error.sent) == (code, retryable, False)
    assert "host:1: the proxy opens no tunnel: HTTP" in str(error)


def test_a_port_without_tls_names_the_plain_scheme():
    assert str(no_tls(ENDPOINT)).endswith("this port does not speak TLS; use grpc://")


@pytest.mark.parametrize(
    ("proxy", "headers"),
    [
        ("http://proxy:1", {}),
        ("http://user@proxy:1", {"Proxy-Authorization": "Basic dXNlcjo="}),
        ("http://us%3Aer:p%40ss@proxy:1", {"Proxy-Authorization": "Basic dXM6ZXI6cEBzcw=="}),
    ],
)
def test_what_a_proxy_is_sent(proxy, headers):
    assert proxy_headers(urlsplit(proxy)) == headers


async def wait_within(limit, also=()):
    async with limit:
        run_out([*also, limit] if also else [])
        await asyncio.Event().wait()


async def test_timeouts_run_out_at_once_and_those_that_have_stay_so():
    gone = asyncio.timeout(0)
    with pytest.raises(TimeoutError):
        await wait_within(gone)
    with pytest.raises(TimeoutError):
        await wait_within(asyncio.timeout(600), also=[gone])
    assert gone.expired()


def test_pem_is_bytes_or_a_file(tmp_path, monkeypatch):
    pem = Authority().pem
    (tmp_path / "ca.pem").write_bytes(pem)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_pem(pem, "ca") == read_pem(tmp_path / "ca.pem", "ca") == read_pem("~/ca.pem", "ca") == pem
    with pytest.raises(ConfigError, match=r"TLS: ca: No such file or directory: .*none"):
        read_pem(tmp_path / "none", "ca")
    with pytest.raises(ConfigError, match="TLS: key holds no PEM block"):
        read_pem(b"nothing", "key")


def test_a_context_verifies_as_it_was_asked_for():
    authority = Authority()
    made = ssl_context(TLS(ca=authority.pem), ["h2"])
    assert len(made.get_ca_certs()) == 1
    assert made.verify_mode is ssl.CERT_REQUIRED
    assert made.check_hostname
    assert made.minimum_version is ssl.TLSVersion.TLSv1_2
    unverified = ssl_context(TLS(verify=False), ["h2"])
    assert unverified.verify_mode is ssl.CERT_NONE
    assert not unverified.check_hostname


def test_a_certificate_of_the_clients_and_another_key_do_not_fit():
    authority = Authority()
    one, other = authority.client(), authority.client()
    ssl_context(TLS(cert=one.pem, key=one.key), ["h2"])
    with pytest.raises(ConfigError, match="TLS: ca, cert or key cannot be used"):
        ssl_context(TLS(cert=one.pem, key=other.key), ["h2"])
