"""The reference environments: real jina servers and real docarrays, each in a venv beside the user's other caches.

Packages come from PyPI, exactly as pinned in ``locks/``; torch comes from Debian's packages, see `debian`.

    python environment.py            build what is missing, print where it is
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from commands import CommandError, run
from debian import library_path, unpack, unpack_torch

LOCKS = Path(__file__).with_name("locks")
WALLPAPERS = ("mate-backgrounds", "ukui-wallpapers")
"""Debian's packages with large photographs."""
BUILT_AT_ONCE = 2
"""Environments that are built at the same time: pip waits for the network and the disk half of the time."""
PYTHONS = ("3.11", "3.12")
"""numpy 1.26, the last that all of them work with, has wheels for these; Debian 12's torch is built for the first."""
PLATFORM = sysconfig.get_platform().encode()
QUIET = {
    "JINA_OPTOUT_TELEMETRY": "1",
    "JINA_HIDE_SURVEY": "1",
    "NO_VERSION_CHECK": "1",
    "JINA_LOG_LEVEL": "ERROR",
}


class UnavailableError(Exception):
    """A part of an environment cannot be had on this machine; the text says why."""


def cached(name: str, made_of: bytes) -> Path:
    """Return where something is built: beside the user's other caches, keyed by what it is made of."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "casdk" / "interop" / f"{name}-{hashlib.sha256(made_of).hexdigest()[:12]}"


@contextmanager
def once(name: str, home: Path, part: str) -> Iterator[bool]:
    """Yield whether ``part`` is still to be built in ``home``; two runs at a time do not build it twice."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "building").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = home / f"{part}.done"
        if done.exists():
            yield False
            return
        began = time.monotonic()
        print(f"interop: {name}: building {part} ...", flush=True)
        yield True
        done.touch()
        print(f"interop: {name}: {part} built in {time.monotonic() - began:.0f} s", flush=True)


@dataclass(frozen=True)
class Environment:
    """One venv.

    Attributes:
        package: What it is built around, ``jina`` or ``docarray``.
        version: Of the package; the two name the lock file.
        clip: Whether clip_server's ONNX executor and annlite's indexer belong in it.
    """

    package: str
    version: str
    clip: bool = False

    @property
    def name(self) -> str:
        """Package and version."""
        return f"{self.package}-{self.version}"

    @property
    def home(self) -> Path:
        """Where the venv lies: keyed by its pins and its interpreter."""
        pins = b"".join(lock.read_bytes() for lock in self._locks)
        return cached(self.name, pins + PLATFORM + _interpreter()[1].encode())

    @property
    def _locks(self) -> list[Path]:
        return [LOCKS / f"{self.name}.txt", *([LOCKS / "clip.txt"] if self.clip else [])]

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.home / "bin" / "python"

    @property
    def variables(self) -> dict[str, str]:
        """The process environment in which its interpreter is to be started."""
        foreign = ("PYTHON", "PYTEST", "JINA_", "CLIP_", "CASDK_", "GRPC_")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        return inherited | QUIET | library_path(self.home)

    def build(self) -> None:
        """Build what is missing of the venv; returns at once when nothing is.

        Raises:
            CommandError: A package could not be installed.
        """
        with once(self.name, self.home, "packages") as missing:
            if missing:
                shutil.rmtree(self.home / "lib", ignore_errors=True)
                run(_interpreter()[0], "-m", "venv", str(self.home))
                self._pip("setuptools<81", "wheel")
                self._pip("--no-deps", "-r", str(self._locks[0]))

    def build_clip(self) -> None:
        """Add clip_server's ONNX executor and annlite to the venv.

        Raises:
            UnavailableError: Debian's packages or a C++ compiler cannot be had.
        """
        with once(self.name, self.home, "clip") as missing:
            if missing:
                has_torch = (e.home for e in ENVIRONMENTS if (e.home / "clip.done").exists())
                try:
                    unpack_torch(self.home, like=next(has_torch, None))
                    self._pip("--no-deps", "-r", str(self._locks[1]))
                    self._check("clip_server.executors.clip_onnx", "annlite.executor")
                except OSError as error:
                    raise UnavailableError(f"no clip_onnx here: {error}") from error
                except CommandError as error:
                    print(f"interop: {error}", flush=True)
                    raise UnavailableError(f"no clip_onnx here: {error.last_words}") from error

    def _pip(self, *arguments: str) -> None:
        options = ("--quiet", "--disable-pip-version-check", "--no-input", "--retries", "10", "--timeout", "60")
        run(str(self.python), "-m", "pip", "install", *options, *arguments, env=self.variables)

    def _check(self, *modules: str) -> None:
        run(str(self.python), "-W", "ignore", "-c", f"import {', '.join(modules)}", env=self.variables)


def pictures() -> Path:
    """Return a folder with packages that pictures are taken from, fetched by the first who asks.

    Raises:
        CommandError: They cannot be had.
    """
    lock = LOCKS / "pictures.txt"
    home = cached("pictures", lock.read_bytes())
    with once("pictures", home, "packages") as missing:
        if missing:
            where = ("--no-deps", "--target", str(home / "packages"), "-r", str(lock))
            run(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *where)
    return home / "packages"


def wallpapers() -> list[Path]:
    """Return photographs of Debian's packages, of a megapixel and more; drawings are left out, which are PNG files.

    Raises:
        UnavailableError: They cannot be had on this machine.
    """
    home = cached("wallpapers", " ".join(WALLPAPERS).encode())
    root = home / "debian"
    with once("wallpapers", home, "packages") as missing:
        if missing:
            shutil.rmtree(root, ignore_errors=True)
            try:
                unpack(root, *WALLPAPERS)
            except OSError as error:
                raise UnavailableError(f"no wallpapers here: {error}") from error
    return sorted(path for path in root.rglob("*.jpg") if path.is_file() and not path.is_symlink())


OLDEST = Environment("jina", "3.12.0", clip=True)
REFERENCE = Environment("jina", "3.33.1", clip=True)
NEWEST = Environment("jina", "3.34.0", clip=True)
DOCARRAYS = tuple(Environment("docarray", version) for version in ("0.21.1", "0.30.0", "0.41.0"))
ENVIRONMENTS = (OLDEST, REFERENCE, NEWEST, *DOCARRAYS)


@cache
def _interpreter() -> tuple[str, str]:
    """Return path and full version of the Python that environments are made with."""
    ours = sys.executable if sys.version.startswith(PYTHONS[0]) else None
    for path in (ours, *(shutil.which(f"python{version}") for version in PYTHONS)):
        if path is not None:
            try:
                return path, run(path, "-c", "import ensurepip, sys, venv; print(sys.version)")
            except CommandError as error:  # a shim that leads nowhere, a Python without venv
                print(f"interop: {path} makes no environment: {error.last_words}", flush=True)
    raise UnavailableError("the reference environments need Python 3.11 with its venv module: install python3.11-venv")


def main() -> None:
    """Build everything.

    Raises:
        CommandError: A package could not be installed.
        UnavailableError: No Python is fit to make environments.
    """
    with ThreadPoolExecutor(BUILT_AT_ONCE) as builders:
        oldest = builders.submit(_build_whole, OLDEST)  # first, as the others take its torch
        packages = [builders.submit(environment.build) for environment in ENVIRONMENTS if environment != OLDEST]
        for built in (oldest, *packages):
            built.result()
        list(builders.map(_build_whole, ENVIRONMENTS))
    for environment in ENVIRONMENTS:
        print(f"interop: {environment.name}: {environment.python}", flush=True)


def _build_whole(environment: Environment) -> None:
    environment.build()
    if environment.clip:
        try:
            environment.build_clip()
        except UnavailableError as reason:
            print(f"interop: {reason}", flush=True)


if __name__ == "__main__":
    main()
