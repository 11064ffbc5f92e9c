"""A server on tonic, which knows nothing of casdk: ``tonic/`` is a crate of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Self

from commands import CommandError, run
from environment import PLATFORM, UnavailableError, cached, once

TONIC = Path(__file__).with_name("tonic")
STOPS_WITHIN = 30.0


@cache
def tonic_program() -> Path:
    """Return the server on tonic; cargo builds it in about half a minute.

    Raises:
        UnavailableError: It could not be built.
    """
    sources = sorted([*TONIC.glob("Cargo.*"), *TONIC.glob("src/*.rs")])
    home = cached("tonic", b"".join(path.read_bytes() for path in sources) + PLATFORM)
    try:
        with once("tonic", home, "server") as missing:
            if missing:
                ignore = shutil.ignore_patterns("target")
                shutil.copytree(TONIC, home, ignore=ignore, dirs_exist_ok=True, copy_function=shutil.copyfile)
                run("cargo", "build", "--release", "--quiet", "--locked", "--target-dir", "target", cwd=home)
    except (OSError, CommandError) as error:
        raise UnavailableError(f"no tonic here: {error}") from error
    return home / "target" / "release" / "tonic-peer"


class Tonic:
    """The server on tonic, a process.

    Args:
        options: As ``max-streams=2``; ``tonic/src/main.rs`` has them.
        port: The port of a server that stops, to be taken over from it.

    Attributes:
        address: For a client.
    """

    def __init__(self, *options: str, port: int = 0) -> None:
        self._process = subprocess.Popen(
            [tonic_program(), str(port), *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._port = 0

    @property
    def port(self) -> int:
        """Where it listens; asked first, this waits until it does."""
        self._port = self._port or int(self._read())
        return self._port

    @property
    def address(self) -> str:
        """For a client."""
        return f"grpc://127.0.0.1:{self.port}"

    def counts(self, until: str = "") -> dict[str, Any]:
        """Return what it has counted, e.g. when there are ``"cancelled 1"``."""
        self._say(until)
        return json.loads(self._read())  # type: ignore[no-any-return]

    def begin_to_stop(self) -> None:
        """Tell it to finish what is under way and to begin nothing more."""
        self._say("stop")

    def stop(self) -> dict[str, Any]:
        """Wait until it has stopped; returns its last counts."""
        said, _ = self._process.communicate(timeout=STOPS_WITHIN)
        assert self._process.returncode == 0
        return json.loads(said.splitlines()[-1])  # type: ignore[no-any-return]

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the server on tonic ended with status {self._process.wait()}"
        return line

    def __enter__(self) -> Self:
        assert self.port
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
