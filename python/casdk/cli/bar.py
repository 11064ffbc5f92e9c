"""Draws the client's progress bar on standard error, because standard output is for results."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

__all__ = ["bar_on_stderr"]


@contextlib.contextmanager
def bar_on_stderr() -> Iterator[bool]:
    """Draw the bar of ``show_progress=`` on standard error meanwhile; yields whether that is a terminal."""
    if not sys.stderr.isatty():
        yield False
        return
    import rich

    rich.reconfigure(stderr=True)
    try:
        yield True
    finally:
        rich.reconfigure()
