"""A call of 20 texts that a server ends after two requests; shared by the tests of stopped calls."""

from __future__ import annotations

from typing import Any

from casdk import Retry

ONCE = Retry(attempts=1)
BATCH = 4
TEXTS = [f"text {number}" for number in range(20)]
DONE = 2 * BATCH
"""Items of the requests that a server answers before it fails."""


def failing(fault: Any, good: int = DONE // BATCH) -> list[Any]:
    """Return a script that lets so many requests pass and fails all others; a window of one makes the order certain."""
    return [*[None] * good, *[fault] * 100]
