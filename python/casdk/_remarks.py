"""Makes texts of servers and proxies short and harmless, for the messages of errors."""

from __future__ import annotations

import re
from html import unescape
from typing import Final

__all__ = ["remark"]

SHOWN_CHARACTERS: Final = 500
"""Characters that are shown of a long text."""
UNPRINTABLE: Final = "\N{REPLACEMENT CHARACTER}"
TITLE_CHARACTERS: Final = 100
MARKUP: Final = re.compile(
    r"(?:<\?xml[^>]*>\s*)?<(?:!doctype\s+html|(?:html|head|body|title|meta|center|h1|script)\b)", re.IGNORECASE
)
"""The beginning of a page of HTML."""
TITLE: Final = re.compile(r"<(title|h1)\b[^>]*>(.*?)</\1", re.IGNORECASE | re.DOTALL)
SEARCHED_CHARACTERS: Final = 4096
"""Characters of a page in which its title is looked for: a hostile page may make the search slow."""


def remark(words: str | bytes, most: int = SHOWN_CHARACTERS) -> str:
    """Return a text without anything that could disturb a terminal or a log.

    A page of HTML becomes its title, control characters are replaced, and a long text is cut.

    Args:
        words: The text as it was sent.
        most: Characters that are shown.
    """
    beginning = words[:SEARCHED_CHARACTERS]
    text = (beginning.decode(errors="replace") if isinstance(beginning, bytes) else beginning).strip()
    page = MARKUP.search(text)
    if page is not None:
        text = f"{text[: page.start()]}{_described(text[page.start() :])}"
    text = "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
    return text if len(text) <= most else f"{text[:most].rstrip()}..."


def _described(page: str) -> str:
    title = TITLE.search(page)
    shown = " ".join(unescape(re.sub(r"<[^>]*>", " ", title[2])).split()) if title is not None else ""
    return f"a web page, {shown[:TITLE_CHARACTERS]!r}" if shown else "a web page"
