"""The token, Host and Origin of a request decide whether the embedded server answers it."""

import pytest
from casdk.server.access import Access

LOOPBACK = [
    "localhost",
    "LOCALHOST:51001",
    "localhost.",
    "127.0.0.1",
    "127.9.8.7:1",
    "[::1]",
    "[::1]:51001",
    "0.0.0.0",
    "[::]:1",
]
ELSEWHERE = [
    "evil.example",
    "evil.example:51001",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "127.evil.example",
    "192.168.1.7",
    "10.0.0.1:51001",
    "[fe80::1]",
    "[2001:db8::1]:51001",
    "evil.example@localhost",
    "localhost@evil.example",
    "",
    "xn--localhost-",
    "loc\u0430lhost",
    "127.0.0.1\t",
    "2130706433",
    "[::1].evil.example",
    "[::1]evil.example:1",
    "localhost:80@evil.example",
    "127.0.0.1:evil",
    "[]",
    "[",
    ":51001",
    "::1",
]


def _refusal(access, *hosts, **headers):
    given = [(b"host", host.encode()) for host in hosts]
    return access.refusal([*given, *((name.encode(), value) for name, value in headers.items())])


@pytest.mark.parametrize("listens", ["127.0.0.1", "::1", "localhost", "127.0.0.2"])
def test_on_loopback_a_server_is_called_by_names_of_loopback(listens):
    access = Access(None, listens)
    assert [host for host in LOOPBACK if _refusal(access, host)] == []
    for host in ELSEWHERE:
        assert _refusal(access, host) == (
            403,
            "on loopback this server is called by names of loopback; --allow-host NAME adds one",
        )


@pytest.mark.parametrize("listens", ["0.0.0.0", "::", "192.168.1.7", "no.such.name.example"])
def test_elsewhere_it_is_called_as_people_like(listens):
    assert [host for host in LOOPBACK + ELSEWHERE if _refusal(Access(None, listens), host)] == []


def test_names_are_added():
    access = Access(None, "127.0.0.1", ["Clip.Example", "other"])
    assert _refusal(access, "clip.example:51001") is None
    assert _refusal(access, "CLIP.example.") is None
    assert _refusal(access, "not.clip.example")[0] == 403


def test_each_host_counts_and_one_that_says_none_is_no_browser():
    access = Access(None, "127.0.0.1")
    assert _refusal(access, "localhost", "evil.example")[0] == 403
    assert _refusal(access, "evil.example", "localhost")[0] == 403
    assert _refusal(access) is None


def test_a_token_is_asked_for_besides():
    access = Access("secret", "127.0.0.1")
    assert _refusal(access, "evil.example", authorization=b"secret")[0] == 403
    assert _refusal(access, "localhost", authorization=b"other")[0] == 401
    assert _refusal(access, "localhost") == (401, "the authorization is missing or wrong")
    assert _refusal(access, "localhost", authorization=b"secret", origin=b"https://evil.example") is None
    assert access.refusal([(b"host", b"localhost")], open_to_all=True) is None


def test_a_page_of_another_site_is_told_by_its_origin():
    access = Access(None, "127.0.0.1")
    assert _refusal(access, "localhost:1", origin=b"http://localhost:1") is None
    for origin in (b"http://localhost:2", b"https://evil.example", b"null", b""):
        assert _refusal(access, "localhost:1", origin=origin)[0] == 403
