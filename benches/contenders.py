"""The contenders: each a process of its own, so that its CPU and its memory are its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "interop"))

OTHERS = ("baseten", "openai_python")
"""Other people's clients, which speak OpenAI's dialect."""


class FailedError(Exception):
    """A contender cannot do what was asked."""


class Contender:
    """One process that carries out orders.

    Args:
        name: ``casdk``, ``original``, ``stub``, ``bare``, ``floor``, ``baseten`` or ``openai_python``.
        address: Of the server.
        ca: PEM file of its authority, or ``""``.
    """

    def __init__(self, name: str, address: str, ca: str) -> None:
        self.name = name
        script = HERE / "workers" / f"{'ours' if name == 'casdk' else name}.py"
        python, variables = original(ca) if name == "original" else (sys.executable, None)
        if name in OTHERS:
            python = others()
        self._process = subprocess.Popen(
            [str(python), str(script), address, ca],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=variables,
        )

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    @property
    def running(self) -> bool:
        """Whether the process is there; what it is made of may have ended it."""
        return self._process.poll() is None

    def do(self, order: str, case: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Have an order carried out.

        Raises:
            FailedError: With what the contender said.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not self.running:
            raise FailedError(f"{self.name} ended with status {self._process.returncode}")
        print(json.dumps({"do": order, "case": case, "with": options}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise FailedError(f"{self.name} ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise FailedError(f"{self.name}: {answer['error']}")
        return answer


def original(ca: str = "") -> tuple[Path, dict[str, str]]:
    """Return interpreter and variables of the environment with clip_client 0.8.3, built if need be."""
    from environment import REFERENCE

    REFERENCE.build()
    # Its only ways to be told an authority: gRPC's variable, and OpenSSL's for the other two.
    trust = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": ca, "SSL_CERT_FILE": ca} if ca else {}
    return REFERENCE.python, REFERENCE.variables | trust


def others() -> Path:
    """Return the interpreter of the environment with other people's clients, built if need be.

    Raises:
        FailedError: They cannot be installed here.
    """
    return _installed("clients", "other clients")


def writer_of_clip_retrieval() -> Path:
    """Return the interpreter of the environment with clip-retrieval and what its writer needs, built if need be.

    Raises:
        FailedError: They cannot be installed here.
    """
    return _installed("clip_retrieval", "clip-retrieval's writer", "--no-deps")


def fsspec() -> Path:
    """Return the interpreter of the environment with fsspec's s3fs, built if need be.

    Raises:
        FailedError: It cannot be installed here.
    """
    return _installed("stores", "fsspec's s3fs")


def _installed(name: str, said: str, *options: str) -> Path:
    from environment import cached, once

    pins = HERE / f"{name}.txt"
    home = cached(name, pins.read_bytes() + sys.version.encode())
    python = home / "bin" / "python"
    try:
        with once(said, home, "packages") as missing:
            if missing:
                subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
                install = [str(python), "-m", "pip", "install", "--quiet", *options, "-r", str(pins)]
                subprocess.run(install, check=True)
    except subprocess.CalledProcessError as error:
        raise FailedError(f"the packages of {pins.name} cannot be installed: {error}") from error
    return python
