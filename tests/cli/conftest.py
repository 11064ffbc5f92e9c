"""What the tests of the command line share: the command, a server's address, standard input."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from casdk.cli import main
from casdk.testing import FaultServer


class Ran(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "CLIP_AUTH_TOKEN":
            monkeypatch.delenv(name)


@pytest.fixture
def pipe(monkeypatch) -> Callable[[str | bytes], None]:
    """A function that puts text on standard input."""

    def put(text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))

    return put


@pytest.fixture
def command(capfd) -> Callable[..., Ran]:
    """A function that runs a command line in this process."""

    def run(*words: object) -> Ran:
        capfd.readouterr()
        code = main([str(word) for word in words])
        return Ran(code, *capfd.readouterr())

    return run


STEPS = ["address", "dns", "tcp", "proxy", "tls", "protocol", "auth", "dry run", "encode"]
QUICK = ("--connect-timeout", "0.5", "--read-timeout", "2")
SECRETS = ("s3cret", "wr0ng", "second line")


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port that nothing listens on, nor can, since the test holds it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield int(sock.getsockname()[1])


@pytest.fixture
def trusting(tmp_path) -> Callable[[FaultServer], tuple[object, ...]]:
    """A function from a server to the options that trust its default authority."""

    def words(server: FaultServer) -> tuple[object, ...]:
        (tmp_path / "ca.pem").write_bytes(server.ca)
        return ("--ca", tmp_path / "ca.pem")

    return words


@pytest.fixture
def diagnosed(command, monkeypatch) -> Callable[..., None]:
    """A function that asks the doctor about an address and holds it to what is wrong there.

    Its arguments: the address; the step (or steps) that it goes wrong at; part of what is seen there, and of its cure;
    the exit code; options; variables of the environment.
    """

    def check(
        url: str,
        step: str,
        detail: str,
        cure: str,
        code: int = 4,
        words: tuple[object, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        for variable, value in (environment or {}).items():
            monkeypatch.setenv(variable, value)
        ran = command("doctor", url, "--json", *(words if "--read-timeout" in words else (*QUICK, *words)))
        *before, last = ran.lines
        assert last["step"] in step.split(" or "), last
        assert detail in last["detail"]
        assert cure in last["cure"]
        assert ran.code == last["exit"] == code
        assert last["ok"] is False
        assert all(finding["ok"] is not False and not finding["cure"] for finding in before)
        steps = [STEPS.index(finding["step"]) for finding in (*before, last)]
        assert steps == sorted(set(steps))
        assert ran.err == ""
        assert "\n" not in last["detail"] + last["cure"]
        assert not any(secret in ran.out for secret in SECRETS)

    return check


@pytest.fixture
def url(server) -> str:
    """The embedded server over grpc."""
    return server.address("grpc")


@pytest.fixture
def too_deep(tmp_path) -> Iterator[Path]:
    """A directory with an image in it, and directories so deep below it that no path leads to the last of them."""
    top = tmp_path / "deep"
    top.mkdir()
    (top / "a.png").touch()
    here = os.getcwd()
    try:
        os.chdir(top)
        for _ in range(18):
            os.mkdir("d" * 250)
            os.chdir("d" * 250)
    finally:
        os.chdir(here)
    yield top
    shutil.rmtree(top)
