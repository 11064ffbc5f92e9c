"""The environments of `suites/`: each library in a venv of its own beside the user's other caches, keyed by its pins.

python tests/ecosystem/environment.py [name ...]      build what is missing, print where it is
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "interop"))

from debian import library_path, unpack_torch  # noqa: E402


class UnavailableError(Exception):
    """An environment cannot be had on this machine; the text says why."""


PINS = {path.stem: path for path in sorted((HERE / "pins").glob("*.txt"))}
"""Library -> its packages, exactly; dependencies of casdk's own among them, but not casdk."""
INTERPRETER = sys.executable if sys.version_info[:2] == (3, 11) else shutil.which("python3.11") or sys.executable
"""The pins were drawn with CPython 3.11, which Debian's torch is built for too."""


def home_of(name: str) -> Path:
    """Return where an environment lies."""
    said = subprocess.run([INTERPRETER, "-VV"], check=True, capture_output=True).stdout
    key = hashlib.sha256(PINS[name].read_bytes() + said).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "casdk" / "ecosystem" / f"{name}-{key}"


def python_of(name: str) -> Path:
    """Return an environment's interpreter, built first where it is missing.

    Raises:
        UnavailableError: What an environment needs of the machine is not there.
        subprocess.CalledProcessError: A package could not be installed.
    """
    if name == "spark" and shutil.which("java") is None:
        raise UnavailableError("Spark needs java")
    if name == "uwsgi" and shutil.which("cc") is None:
        raise UnavailableError("uWSGI is built here, and that needs a C compiler")
    home = home_of(name)
    home.parent.mkdir(parents=True, exist_ok=True)
    python = home / "bin" / "python"
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "done").exists():
            began = time.monotonic()
            print(f"ecosystem: {name}: building its environment ...", flush=True)
            subprocess.run([INTERPRETER, "-m", "venv", "--clear", str(home)], check=True, stdin=subprocess.DEVNULL)
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*install, "-r", str(PINS[name])], check=True)
            if name == "torch":
                _unpack_torch(home)
            (home / "done").touch()
            print(f"ecosystem: {name}: built in {time.monotonic() - began:.0f} s", flush=True)
    return python


def _unpack_torch(home: Path) -> None:
    try:
        unpack_torch(home)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UnavailableError(f"torch: {getattr(error, 'stderr', None) or error}".strip()) from error


def variables_of(name: str) -> dict[str, str]:
    """Return the process environment an environment's interpreter is to be started in: casdk is this tree's."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST"))}
    home = home_of(name)
    paths = {"PYTHONPATH": str(ROOT / "python"), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "120"}
    return inherited | paths | {"PYSPARK_PYTHON": str(home / "bin" / "python")} | library_path(home)


def main() -> None:
    """Build what was named, or everything."""
    for name in sys.argv[1:] or PINS:
        try:
            print(f"ecosystem: {name}: {python_of(name)}")
        except UnavailableError as reason:
            print(f"ecosystem: {reason}")


if __name__ == "__main__":
    main()
