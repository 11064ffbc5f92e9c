"""Which proxy a client uses: the environment is read and never changed, and `proxy=` overrides it."""

import os

import pytest
from casdk._transport.address import parse_address
from casdk._transport.proxy import check_proxy, proxy_of
from casdk.errors import ConfigError

SECURE, PLAIN = parse_address("grpcs://clip.example:1"), parse_address("websocket://clip.example:1")


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("environment", "secure", "plain"),
    [
        ({}, None, None),
        ({"HTTPS_PROXY": "http://s:1"}, "http://s:1", None),
        ({"HTTP_PROXY": "http://p:1"}, None, "http://p:1"),
        ({"ALL_PROXY": "http://a:1"}, "http://a:1", "http://a:1"),
        ({"ALL_PROXY": "http://a:1", "https_proxy": "s:1"}, "http://s:1", "http://a:1"),
        ({"HTTPS_PROXY": "http://S:1", "https_proxy": "http://s:1"}, "http://s:1", None),
        ({"ALL_PROXY": "http://a:1", "NO_PROXY": "clip.example"}, None, None),
        ({"ALL_PROXY": "http://a:1", "NO_PROXY": "*"}, None, None),
        ({"ALL_PROXY": "http://a:1", "NO_PROXY": "other.example"}, "http://a:1", "http://a:1"),
    ],
)
def test_environment_is_read_and_left_alone(monkeypatch, environment, secure, plain):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    assert (proxy_of(SECURE, None), proxy_of(PLAIN, None)) == (secure, plain)
    assert dict(os.environ) == before


def test_explicit_wins(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "http://a:1")
    assert proxy_of(SECURE, "http://x:2") == "http://x:2"
    assert proxy_of(SECURE, "") is None


ODD_HOSTS = ["http://\ud800:1", "http://a..b:1", f"http://{'a' * 64}.example:1", "http://me:s3cret\ud800@h:1"]


@pytest.mark.parametrize(
    "proxy", ["x", "http://h", "socks5://h:1", "http://:1", "http://me:s3cret@h:port", 7, *ODD_HOSTS]
)
def test_bad_proxy_is_refused_and_not_shown(proxy):
    with pytest.raises(ConfigError) as caught:
        check_proxy(proxy)
    assert "s3cret" not in str(caught.value)
    assert check_proxy("http://me:s3cret@h:1") == "http://me:s3cret@h:1"
