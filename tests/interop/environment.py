"""The reference environments: real jina servers, each in a venv of its own beside the user's other caches.

Packages come from PyPI, exactly as pinned in ``locks/``. torch comes from Debian's packages, unpacked
inside the venv: PyPI's x86_64 wheels of it bring gigabytes of CUDA libraries for a model that never sees a
GPU.

    python environment.py            build what is missing, print where it is
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from debian import library_path, unpack_torch

LOCKS = Path(__file__).with_name("locks")
INTERPRETER = sys.executable if sys.version_info[:2] == (3, 11) else shutil.which("python3.11") or sys.executable
"""Debian's torch and numpy 1.26 are built for CPython 3.11."""
QUIET = {
    "JINA_OPTOUT_TELEMETRY": "1",
    "JINA_HIDE_SURVEY": "1",
    "NO_VERSION_CHECK": "1",
    "JINA_LOG_LEVEL": "ERROR",
}


class UnavailableError(Exception):
    """A part of an environment cannot be had on this machine; the text says why."""


@dataclass(frozen=True)
class Environment:
    """One venv.

    Attributes:
        jina: Version of jina in it, which also names its lock file.
        clip: Whether clip_server's ONNX executor and annlite's indexer belong in it.
    """

    jina: str
    clip: bool = False

    @property
    def home(self) -> Path:
        """Where the venv lies: keyed by its pins and its interpreter."""
        pins = b"".join(lock.read_bytes() for lock in self._locks)
        key = hashlib.sha256(pins + sysconfig.get_platform().encode() + _version_of(INTERPRETER))
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "casdk" / "interop" / f"jina-{self.jina}-{key.hexdigest()[:12]}"

    @property
    def _locks(self) -> list[Path]:
        return [LOCKS / f"jina-{self.jina}.txt", *([LOCKS / "clip.txt"] if self.clip else [])]

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.home / "bin" / "python"

    @property
    def variables(self) -> dict[str, str]:
        """The process environment in which its interpreter is to be started."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "JINA_", "CLIP_"))}
        return inherited | QUIET | library_path(self.home)

    def build(self) -> None:
        """Build what is missing of the venv; returns at once when nothing is.

        Raises:
            subprocess.CalledProcessError: A package could not be installed.
        """
        with self._once("packages") as missing:
            if missing:
                shutil.rmtree(self.home / "lib", ignore_errors=True)
                _run(INTERPRETER, "-m", "venv", str(self.home))
                self._pip("setuptools<81", "wheel")
                self._pip("--no-deps", "-r", str(self._locks[0]))

    def build_clip(self) -> None:
        """Add clip_server's ONNX executor and annlite to the venv.

        Raises:
            UnavailableError: Debian's packages or a C++ compiler cannot be had.
        """
        with self._once("clip") as missing:
            if missing:
                try:
                    unpack_torch(self.home)
                    self._pip("--no-deps", "-r", str(self._locks[1]))
                    self._check("clip_server.executors.clip_onnx", "annlite.executor")
                except (OSError, subprocess.CalledProcessError) as error:
                    raise UnavailableError(f"clip_onnx: {_last_words(error)}") from error

    def _pip(self, *arguments: str) -> None:
        _run(str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments)

    def _check(self, *modules: str) -> None:
        _run(str(self.python), "-W", "ignore", "-c", f"import {', '.join(modules)}", env=self.variables)

    @contextmanager
    def _once(self, part: str) -> Iterator[bool]:
        """Yield whether ``part`` is still to be built; two runs at a time do not build it twice."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "building").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = self.home / f"{part}.done"
            if done.exists():
                yield False
                return
            began = time.monotonic()
            print(f"interop: jina {self.jina}: building {part} ...", flush=True)
            yield True
            done.touch()
            print(f"interop: jina {self.jina}: {part} built in {time.monotonic() - began:.0f} s", flush=True)


OLDEST = Environment("3.12.0")
REFERENCE = Environment("3.33.1", clip=True)
NEWEST = Environment("3.34.0")
ENVIRONMENTS = (OLDEST, REFERENCE, NEWEST)


def _version_of(interpreter: str) -> bytes:
    return subprocess.run([interpreter, "-VV"], check=True, capture_output=True).stdout


def _run(*command: str, **options: object) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout  # type: ignore[call-overload]


def _last_words(error: OSError | subprocess.CalledProcessError) -> str:
    said = getattr(error, "stderr", None) or str(error)
    return said.strip().splitlines()[-1]


def main() -> None:
    """Build everything."""
    for environment in ENVIRONMENTS:
        environment.build()
        if environment.clip:
            try:
                environment.build_clip()
            except UnavailableError as reason:
                print(f"interop: {reason}")
        print(f"interop: jina {environment.jina}: {environment.python}")


if __name__ == "__main__":
    main()
