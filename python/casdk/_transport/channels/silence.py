"""Keeps gRPC's core from writing lines to standard error, unless the user has asked for them.

The core reads ``GRPC_VERBOSITY`` once: as its library is loaded or, before grpcio 1.74, as it is used for the first
time. So this module is imported before grpc, and has the core loaded with that variable set. It is taken away at once,
and ``os.environ`` never shows it: programs that this process starts write what they always wrote.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import PyDLL
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

__all__ = ["keep_silent"]

VERBOSITY: Final = "GRPC_VERBOSITY"
CHOSEN_BY: Final = (VERBOSITY, "GRPC_TRACE")
"""Variables of the environment by which a user chooses what gRPC writes."""
READS_WHEN_LOADED: Final = (1, 74)
"""Version of grpcio from which on the core reads the variable as it is loaded."""


@contextmanager
def _silenced() -> Iterator[None]:
    # Set in the C library only. A program that another thread starts in these milliseconds inherits it all the same.
    os.putenv(VERBOSITY, "NONE")
    try:
        yield
    finally:
        os.unsetenv(VERBOSITY)


def _load() -> bool:
    """Load gRPC's core without its lines, if casdk is the first to load it and nobody has chosen otherwise."""
    if "grpc" in sys.modules or any(name in os.environ for name in CHOSEN_BY):
        return False
    spec = find_spec("grpc")
    folders = () if spec is None else spec.submodule_search_locations or ()
    paths = [Path(folder, "_cython", f"cygrpc{suffix}") for folder in folders for suffix in EXTENSION_SUFFIXES]
    for path in paths:
        if path.exists():
            with _silenced():
                PyDLL(str(path))
            return True
    return False


_ours: Final = _load()


def keep_silent(grpc: Any) -> None:
    """Have the core of an older grpcio read what it may write, after its import."""
    version = tuple(int(part) for part in grpc.__version__.split(".")[:2])
    if _ours and version < READS_WHEN_LOADED:
        with _silenced():
            grpc._cython.cygrpc.CompletionQueue()  # the smallest thing that needs the core
