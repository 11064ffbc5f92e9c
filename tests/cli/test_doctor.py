"""Scripted faults of credentials and flows, healthy servers, and what the doctor prints."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from casdk import TLS
from casdk.testing import (
    SCHEMES,
    ConnectProxy,
    DeadExecutor,
    ExecutorError,
    FaultServer,
    Garbage,
    Never,
    NoEmbedding,
    NotFinite,
    Refuse,
    certificates,
)

STEPS = ["address", "dns", "tcp", "proxy", "tls", "protocol", "auth", "dry run", "encode"]
TOKEN = "s3cret-token"
QUICK = ("--connect-timeout", "0.5", "--read-timeout", "2")


def test_no_token_for_grpc(diagnosed):
    with FaultServer(token=TOKEN) as server:
        diagnosed(server.address("grpc"), "auth", server.address("grpc"), "none was given: set CLIP_AUTH_TOKEN", 7)


def test_no_token_for_a_websocket(diagnosed):
    with FaultServer(token=TOKEN) as server:
        diagnosed(server.address("websocket"), "auth", "401", "none was given: set CLIP_AUTH_TOKEN", 7)


def test_a_wrong_token(diagnosed):
    with FaultServer(token=TOKEN) as server:
        environment = {"CLIP_AUTH_TOKEN": "wr0ng-token"}
        diagnosed(server.address("http"), "auth", "401", "wrong or has run out", 7, environment=environment)


def test_a_token_that_cannot_travel(diagnosed, tmp_path):
    (tmp_path / "token").write_text("first line\nsecond line")
    with FaultServer(token=TOKEN) as server:
        words = ("--credential-file", tmp_path / "token")
        diagnosed(server.address("http"), "auth", "printable ASCII", "credential", 2, words)


# the flow


def test_an_executor_that_is_down(diagnosed):
    with FaultServer(unready="failed to connect to clip at port 55123") as server:
        diagnosed(server.address("grpc"), "dry run", "failed to connect to clip", "every executor runs", 6)


def test_an_executor_that_died(diagnosed):
    with FaultServer(DeadExecutor()) as server:
        diagnosed(server.address("grpc"), "encode", "Communication error with deployment clip", "executor runs")


@pytest.mark.parametrize("scheme", ["http", "websocket"])
def test_an_executor_that_died_on_other_protocols(diagnosed, scheme):
    with FaultServer(DeadExecutor()) as server:
        diagnosed(server.address(scheme), "encode", "Communication error with deploym", "executor runs")


@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_a_proxy_that_wants_a_password(diagnosed, scheme):
    """Over http it refuses the request itself, since there is no tunnel: that is found a step later."""
    with FaultServer() as server, ConnectProxy("user", "s3cret-pass") as proxy:
        environment = {"http_proxy": proxy.url()}
        step = "protocol" if scheme == "http" else "proxy"
        diagnosed(server.address(scheme), step, "407", "user and password", environment=environment)


def test_an_executor_that_raises(diagnosed):
    with FaultServer(ExecutorError("RuntimeError", "CUDA out of memory")) as server:
        diagnosed(server.address("http"), "encode", "CUDA out of memory", "its log on the server", 6)


def test_an_executor_that_is_stuck(diagnosed):
    with FaultServer(Never()) as server:
        words = ("--read-timeout", "0.5")
        diagnosed(server.address("websocket"), "encode", "no reply within 0.5 s", "busy, stuck", 5, words)


def test_a_server_with_too_much_to_do(diagnosed):
    with FaultServer(Refuse.overloaded()) as server:
        diagnosed(server.address("http"), "encode", "429", "too much to do", 6)


def test_a_flow_without_an_encoder(diagnosed):
    with FaultServer(NoEmbedding()) as server:
        diagnosed(server.address("grpc"), "encode", "without", "answers at /encode", 3)


def test_numbers_that_are_none(diagnosed):
    with FaultServer(NotFinite()) as server:
        diagnosed(server.address("grpc"), "encode", "NaN", "precision", 6)


def test_answers_that_are_none(diagnosed):
    with FaultServer(Garbage()) as server:
        diagnosed(server.address("http"), "encode", "", "versions of jina", 6)


@pytest.mark.parametrize("kind", ["embedded", "fault"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_is_wrong(command, tmp_path, request, scheme, kind):
    with ExitStack() as stack:
        server = request.getfixturevalue("server") if kind == "embedded" else stack.enter_context(FaultServer())
        words = []
        if scheme.endswith("s"):
            pem = server.ca.read_bytes() if kind == "embedded" else server.ca
            (tmp_path / "ca.pem").write_bytes(pem)
            words = ["--ca", tmp_path / "ca.pem"]
        ran = command("doctor", server.address(scheme), "--json", *words)
    assert ran.code == 0, ran.out
    assert all(finding["ok"] for finding in ran.lines)
    wanted = [step for step in STEPS if step != "proxy" and (step != "tls" or scheme.endswith("s"))]
    assert [finding["step"] for finding in ran.lines] == wanted
    assert "512 numbers" in ran.lines[-1]["detail"]


@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_a_gateway_too_old_to_be_asked(command, scheme):
    with FaultServer(unready=None) as server:
        ran = command("doctor", server.address(scheme), "--json")
    *_, auth, dry_run, encode = ran.lines
    assert ran.code == 0, ran.out
    assert (auth["ok"], dry_run["ok"], encode["ok"]) == (True, None, True)
    assert dry_run["detail"] == "this gateway has none"


@pytest.mark.parametrize("scheme", ["http", "websocket"])
def test_an_executor_that_is_down_on_other_protocols(diagnosed, scheme):
    with FaultServer(unready="no connection to clip") as server:
        diagnosed(server.address(scheme), "dry run", "no connection to clip", "every executor runs", 6)


@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_through_a_proxy(command, monkeypatch, scheme):
    with FaultServer() as server, ConnectProxy("user", "s3cret-pass") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url("user:s3cret-pass"))
        ran = command("doctor", server.address(scheme), *QUICK)
    assert ran.code == 0, ran.out
    assert "proxy    ok" in ran.out
    assert "s3cret" not in ran.out


def test_a_token_that_is_let_in(command, monkeypatch):
    monkeypatch.setenv("CLIP_AUTH_TOKEN", TOKEN)
    with FaultServer(token=TOKEN) as server:
        ran = command("doctor", server.address("grpc"))
    assert ran.code == 0
    assert "the token of CLIP_AUTH_TOKEN" in ran.out
    assert TOKEN not in ran.out


def test_any_certificate_if_asked(command):
    with FaultServer(certificate=certificates.self_signed()) as server:
        ran = command("doctor", server.address("https"), "--insecure")
    assert ran.code == 0
    assert "not verified" in ran.out


def test_a_certificate_that_ends_soon(command, tmp_path):
    authority = certificates.Authority("soon")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    with FaultServer(certificate=authority.server(days=3)) as server:
        ran = command("doctor", server.address("https"), "--ca", tmp_path / "ca.pem")
    assert ran.code == 0
    assert "WHICH IS IN 2 DAYS" in ran.out


def test_in_words(command, free_port):
    ran = command("doctor", f"grpc://127.0.0.1:{free_port}")
    assert ran.code == 4
    *_, wrong, cure = ran.out.splitlines()
    assert wrong.startswith("tcp      WRONG nothing listens on 127.0.0.1")
    assert cure.startswith("cure           start the server")


def test_tls_is_as_the_options_say(tmp_path):
    from casdk.cli.access import Access

    assert Access(ca=tmp_path).tls() == TLS(ca=tmp_path)
