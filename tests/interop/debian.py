"""Debian's packages, unpacked without root's rights: nginx, and torch inside a venv, since PyPI's wheels of it bring
gigabytes of CUDA libraries.

apt's lists are fetched anew, to a directory of their own: stale ones name packages that are gone, and those of the
system are root's to change.
"""

from __future__ import annotations

import os
import re
import shutil
import sysconfig
import tempfile
from pathlib import Path

from commands import run

__all__ = ["library_path", "unpack", "unpack_torch"]

FROM_DEBIAN = ("python3-torch", "python3-torchvision")
MODULES = ("torch", "torchgen", "functorch", "torchvision")


def unpack_torch(home: Path, like: Path | None = None) -> None:
    """Unpack torch and torchvision into a venv of Debian's own version of Python.

    Args:
        home: The venv.
        like: A venv on the same disk that has them: the files, a gigabyte of them, are shared with it.

    Raises:
        OSError: This machine has no apt-get or dpkg.
        CommandError: A package could not be had.
    """
    root = _root(home)
    shutil.rmtree(root, ignore_errors=True)
    if like is None:
        unpack(root, *FROM_DEBIAN)
    else:
        shutil.copytree(_root(like), root, symlinks=True, copy_function=os.link)
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


def unpack(root: Path, *packages: str) -> None:
    """Unpack packages, and the shared libraries that the first of them needs and this machine lacks.

    Args:
        root: The directory, which is made.
        packages: Their names.

    Raises:
        OSError: This machine has no apt-get or dpkg.
        CommandError: A package could not be had.
    """
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise OSError(f"no {tool}: {packages[0]} is taken from Debian's packages")
    root.mkdir()
    with tempfile.TemporaryDirectory(prefix="casdk-interop-") as temporary:
        _download(Path(temporary), packages)
        for package in sorted(Path(temporary).glob("*.deb")):
            run("dpkg", "-x", str(package), str(root))


def _download(directory: Path, packages: tuple[str, ...]) -> None:
    state = {"Dir::State::lists": directory / "lists", "Dir::Cache": directory / "cache"}
    for place in (*state.values(), directory / "lists" / "partial", directory / "cache" / "archives" / "partial"):
        place.mkdir(parents=True, exist_ok=True)
    # root's own hands, or apt warns that its sandbox's user cannot write here
    options = {**state, "APT::Sandbox::User": "root", "Acquire::Retries": "5", "Acquire::Languages": "none"}
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    run(*apt, "update")
    plan = run(*apt, "install", "--simulate", "--no-install-recommends", packages[0])
    run(*apt, "download", *dict.fromkeys([*_libraries(plan), *packages]), cwd=directory)


def _libraries(plan: str) -> list[str]:
    """Return the names of the packages that the first one needs and this machine lacks, but for modules and data."""
    names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    unused = re.compile(r"python3-|libtorch-test|.*-common$")
    return [name for name in names if not unused.match(name)]
