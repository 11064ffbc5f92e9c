"""The settings of a client: their checks, their pickle, and the objects that are made of them."""

import pytest
from casdk import TLS, ConfigError, Limits, Pool, Retry, Server, Telemetry, Timeouts
from casdk._calls.options import MINIBATCH
from casdk._calls.settings import Settings, make_coalescer, make_instruments, read_sources
from casdk._content.inputs import EVERYTHING
from casdk._transport.tokens import read_credential


def settings(**changes):
    plain = {
        "servers": (Server("grpcs://host:1"),),
        "pool": Pool(),
        "credential": None,
        "tls": TLS(),
        "timeouts": Timeouts(),
        "limits": Limits(),
        "retry": Retry(),
        "proxy": None,
        "coalesce": False,
        "telemetry": False,
        "transport": None,
        "sources": EVERYTHING,
        "expect_space": None,
    }
    return Settings(**(plain | changes))


def test_a_credential_is_a_token_a_mapping_of_one_or_a_function():
    def ask():
        return "asked for"

    assert read_credential(None) is None
    assert read_credential(ask) is ask
    assert read_credential("token") == read_credential({"Authorization": "token"}) == "token"
    assert read_credential({}) is None


@pytest.mark.parametrize(
    ("credential", "words"),
    [
        ({"authorization": "token"}, "has the key 'authorization'; the one that is read is 'Authorization'"),
        ({"Authorization": "token", "Cookie": "c"}, "has the key 'Cookie'"),
        (7, "credential"),
        ("two\nlines", "credential"),
    ],
)
def test_what_is_no_credential_is_refused_and_not_shown(credential, words):
    with pytest.raises(ConfigError, match=words) as refusal:
        read_credential(credential)
    assert "token" not in str(refusal.value)
    assert "lines" not in str(refusal.value)


@pytest.mark.parametrize("local_files", [True, False])
@pytest.mark.parametrize("fetch_urls", [True, False])
def test_sources_are_what_was_said(local_files, fetch_urls):
    sources = read_sources(local_files, fetch_urls)
    assert (sources.local_files, sources.fetch_urls) == (local_files, fetch_urls)


def test_sources_are_nothing_else():
    with pytest.raises(ConfigError, match="local_files must be True or False, not 1"):
        read_sources(1, True)
    with pytest.raises(ConfigError, match="fetch_urls must be True or False, not None"):
        read_sources(True, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"credential": "s3cret"}, "credential is a str"),
        ({"tls": TLS(cert=b"-----BEGIN", key=b"-----BEGIN s3cret")}, "TLS key is bytes"),
        ({"proxy": "http://user:s3cret@proxy"}, "proxy holds a password"),
        ({"telemetry": Telemetry()}, "telemetry has providers of its own"),
    ],
)
def test_what_no_pickle_may_hold_is_named(changes, words):
    found = settings(**changes)
    assert found.obstacle().startswith(words)
    assert "s3cret" not in found.obstacle() + repr(found)


def test_what_a_pickle_may_hold():
    assert settings().obstacle() is None
    fine = settings(credential=len, tls=TLS(cert="cert.pem", key="key.pem"), proxy="http://proxy", telemetry=True)
    assert fine.obstacle() is None
    assert repr(fine) == "<settings of a client of grpcs://host:1>"


@pytest.mark.parametrize(("coalesce", "seconds"), [(True, 0.0), (5, 0.005), (0.5, 0.0005), (1000, 1.0)])
def test_a_window_is_given_in_milliseconds(coalesce, seconds):
    coalescer = make_coalescer(settings(coalesce=coalesce))
    assert coalescer._window == pytest.approx(seconds)
    assert coalescer.most == MINIBATCH


def test_calls_are_merged_only_where_it_was_asked_for():
    assert make_coalescer(settings(coalesce=False)) is None


@pytest.mark.parametrize("coalesce", [0, -1, 1001, float("nan"), "5", None])
def test_what_is_no_window(coalesce):
    with pytest.raises(ConfigError, match="coalesce must be True, False or a window of up to 1000 ms"):
        make_coalescer(settings(coalesce=coalesce))


def test_telemetry_is_made_only_where_it_was_asked_for():
    assert make_instruments(settings(telemetry=False)) is None
    assert make_instruments(settings(telemetry=True)) is not None
    assert make_instruments(settings(telemetry=Telemetry())) is not None
    with pytest.raises(ConfigError, match=r"telemetry must be True, False or a casdk\.Telemetry, not str"):
        make_instruments(settings(telemetry="yes"))
