"""The pages that users read, and the fenced blocks on them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
}
"""Path from the root -> text."""
ADDRESS = re.compile(r"\b(grpcs?|https?|websockets?)://127\.0\.0\.1:51\d{3}\b")
"""An address of the embedded server, as `python -m casdk.server` takes it by default."""
FENCE = re.compile(r'^``` ?(\S*)(?: title="([^"]*)")?(.*)\n((?:.*\n)*?)^```$', re.MULTILINE)


class Fence(NamedTuple):
    """A fenced block.

    Attributes:
        page: Its page's path from the root.
        line: Where its text begins there, from 1.
        language: ``python``, ``console``...
        title: Of a python block: the library whose own environment it runs in; empty for the tests' environment.
        rest: Of its info string, which should be nothing.
        text: What stands in it.
    """

    page: str
    line: int
    language: str
    title: str
    rest: str
    text: str


def fences() -> list[Fence]:
    """Return the blocks of every page in order."""
    return [
        Fence(page, text[: found.start(4)].count("\n") + 1, found[1], found[2] or "", found[3], found[4])
        for page, text in PAGES.items()
        for found in FENCE.finditer(text)
    ]


def titled() -> list[Fence]:
    """Return the python blocks that need an environment of their own."""
    return [fence for fence in fences() if fence.language == "python" and fence.title]
