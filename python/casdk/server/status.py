"""The versions that the server reports about itself, in the form of jina's status; each port has a path for it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["info"]


def info() -> dict[str, dict[str, str]]:
    """Return versions under ``jina``, and nothing under ``envs``, because the environment may hold secrets."""
    packages = {name: _version(name) for name in ("casdk", "grpcio", "protobuf", "numpy", "pillow", "uvicorn")}
    return {"jina": {"server": "casdk", "python": platform.python_version(), **packages}, "envs": {}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
