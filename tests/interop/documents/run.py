"""docarray's own documents against casdk, each version of docarray in a venv beside the user's other caches.

    python tests/interop/documents/run.py [pytest's arguments]

The suites here are named so that an ordinary run of pytest does not collect them; `test_docarray.py` runs them in
``make interop``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
INTERPRETER = shutil.which("python3.11") or sys.executable
"""numpy 1.26, the last that docarray 0.21 works with, has no wheels for Python 3.13."""
SUITES = {"0.21.1": "document.py", "0.30.0": "base_doc.py", "0.41.0": "base_doc.py"}
"""Version of docarray -> what is run against it; its packages are pinned in ``docarray-<version>.txt``."""


def environment(version: str) -> Path:
    """Return the interpreter of a version's venv, built first where it is missing.

    Raises:
        subprocess.CalledProcessError: A package could not be installed.
    """
    pins = HERE / f"docarray-{version}.txt"
    said = subprocess.run([INTERPRETER, "-VV"], check=True, capture_output=True).stdout
    key = hashlib.sha256(pins.read_bytes() + said).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "casdk" / "interop" / f"docarray-{version}-{key}"
    home.mkdir(parents=True, exist_ok=True)
    python = home / "bin" / "python"
    with (home / "building").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "done").exists():
            print(f"interop: docarray {version}: building its environment ...", flush=True)
            subprocess.run([INTERPRETER, "-m", "venv", str(home)], check=True)
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*install, "setuptools<81", "wheel"], check=True)
            subprocess.run([*install, "-r", str(pins)], check=True)
            (home / "done").touch()
    return python


def run(version: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a version's suite; returns what pytest said."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    variables = inherited | {"PYTHONPATH": str(ROOT / "python"), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "120"}
    command = [str(environment(version)), "-m", "pytest", "-c", str(HERE / "pytest.ini"), str(HERE / SUITES[version])]
    return subprocess.run(
        [*command, *arguments], env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )


def main() -> int:
    """Run every suite; returns the worst of pytest's exit statuses."""
    worst = 0
    for version in SUITES:
        done = run(version, *sys.argv[1:])
        print(f"interop: docarray {version}\n{done.stdout}", flush=True)
        worst = max(worst, done.returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
