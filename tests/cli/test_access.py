"""Credentials, TLS and timeouts of a command line; no secret is ever shown."""

from pathlib import Path

import pytest
from casdk.cli.access import Access
from casdk.errors import ConfigError
from casdk.server import serve

TOKEN = "s3cret-token"


@pytest.fixture(scope="module")
def guarded():
    with serve(schemes=["grpc", "grpcs"], token=TOKEN) as served:
        yield served


def test_the_token_of_the_environment(command, guarded, monkeypatch, pipe):
    pipe("a cat")
    monkeypatch.setenv("CLIP_AUTH_TOKEN", TOKEN)
    assert command("encode", guarded.address("grpc")).code == 0


def test_the_token_of_a_file(command, guarded, tmp_path, pipe):
    pipe("a cat")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert command("encode", guarded.address("grpc"), "--credential-file", tmp_path / "token").code == 0


def test_no_token(command, guarded, pipe):
    pipe("a cat")
    ran = command("encode", guarded.address("grpc"))
    assert ran.code == 7
    assert "CLIP_AUTH_TOKEN" in ran.err
    assert ran.err.count("\n") == 1


def test_a_wrong_token_is_not_shown(command, guarded, tmp_path, pipe):
    pipe("a cat")
    (tmp_path / "token").write_text("wr0ng-token")
    ran = command("encode", guarded.address("grpc"), "--credential-file", tmp_path / "token")
    assert ran.code == 7
    assert "wr0ng" not in ran.out + ran.err


def test_a_file_is_read_again(tmp_path):
    path = tmp_path / "token"
    path.write_text("one")
    access = Access(credential_file=path)
    assert access.token() == "one"
    path.write_text("two")
    assert access.token() == "two"


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file"), (b"\xff\xfe", "no text"), (b"two\nlines", "printable ASCII")]
)
def test_a_file_that_cannot_be_a_token(command, url, tmp_path, pipe, content, reason):
    pipe("a cat")
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    ran = command("encode", url, "--credential-file", path)
    assert ran.code == 2
    assert reason in ran.err
    assert "lines" not in ran.err


def test_an_authority_of_ones_own(command, guarded, tmp_path, pipe, monkeypatch):
    monkeypatch.setenv("CLIP_AUTH_TOKEN", TOKEN)
    pipe("a cat")
    assert command("encode", guarded.address("grpcs"), "--ca", guarded.ca).code == 0
    pipe("a cat")
    ran = command("encode", guarded.address("grpcs"), "--timeout", "5")
    assert ran.code == 4
    assert f"`casdk doctor {guarded.address('grpcs')}`" in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ("--ca", "ca.pem"),
        ("--insecure",),
        ("--timeout", "0"),
        ("--connect-timeout", "-1"),
        ("--timeout", "soon"),
    ],
)
def test_options_that_cannot_work(command, url, words, pipe):
    pipe("a cat")
    ran = command("encode", url, *words)
    assert ran.code == 2
    assert ran.err.count("\n") == 1


def test_a_key_without_its_certificate():
    with pytest.raises(ConfigError, match="belong together"):
        Access(key=Path("key.pem")).tls()


@pytest.mark.parametrize("words", [("encode",), ("doctor",), ("profile",)])
def test_a_secret_in_an_address_is_not_repeated(command, pipe, words):
    pipe("a cat")
    ran = command(*words, "grpc://user:s3cret@127.0.0.1:1")
    assert ran.code == 2
    assert "s3cret" not in ran.out + ran.err


@pytest.mark.parametrize("words", [("profile",), ("doctor", "--connect-timeout", "1")])
def test_a_secret_in_a_proxy_is_not_repeated(command, monkeypatch, words):
    monkeypatch.setenv("http_proxy", "http://user:s3cret@127.0.0.1:1")
    ran = command(*words, "grpc://127.0.0.1:2")
    assert ran.code == 4
    assert "s3cret" not in ran.out + ran.err


def test_patience(command, guarded):
    assert Access(patience=3).retry().patience == 3
    assert Access().retry() is None
    ran = command("profile", guarded.address("grpc"), "--patience", "-1")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "patience" in ran.err
