"""torch from Debian's packages, unpacked inside a venv: PyPI's wheels of it bring gigabytes of CUDA libraries."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

__all__ = ["library_path", "unpack_torch"]

FROM_DEBIAN = ("python3-torch", "python3-torchvision")
MODULES = ("torch", "torchgen", "functorch", "torchvision")


def unpack_torch(home: Path) -> None:
    """Unpack torch and torchvision into a venv of CPython 3.11.

    Raises:
        OSError: This machine has no apt-get or dpkg.
        subprocess.CalledProcessError: A package could not be had.
    """
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise OSError(f"no {tool}: torch is taken from Debian's packages")
    if subprocess.run(["apt-cache", "show", FROM_DEBIAN[0]], capture_output=True).returncode:
        _run("apt-get", "update", "-qq")
    root = _root(home)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    with tempfile.TemporaryDirectory() as downloads:
        _run("apt-get", "download", "-qq", *_libraries(), *FROM_DEBIAN, cwd=downloads)
        for package in sorted(Path(downloads).glob("*.deb")):
            _run("dpkg", "-x", str(package), str(root))
    site = next((home / "lib").glob("python3*")) / "site-packages"
    for module in MODULES:
        link = site / module
        link.unlink(missing_ok=True)
        link.symlink_to(root / "usr" / "lib" / "python3" / "dist-packages" / module)


def library_path(home: Path) -> dict[str, str]:
    """Return what a venv's environment needs so that its torch finds its libraries; nothing without a torch."""
    root = _root(home)
    lib = root / "usr" / "lib"
    arch = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
    dirs = [lib / arch, lib / arch / "blas", lib / arch / "lapack", lib, root / "lib" / arch]
    return {"LD_LIBRARY_PATH": ":".join(map(str, dirs))} if root.is_dir() else {}


def _root(home: Path) -> Path:
    return home / "debian"


def _libraries() -> list[str]:
    """Return the names of the shared libraries that torch needs and this machine lacks."""
    plan = _run("apt-get", "install", "-s", "--no-install-recommends", FROM_DEBIAN[0])
    names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    unused = re.compile(r"python3-|libtorch-test|.*-common$")
    return [name for name in names if not unused.match(name)]


def _run(*command: str, cwd: str | None = None) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd).stdout
