"""The format of the server's log, which no client can forge; ``python -m casdk.server`` uses it."""

from __future__ import annotations

import logging
import re

__all__ = ["OneLineFormatter"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
INDENT = "    "


class OneLineFormatter(logging.Formatter):
    """Writes a record as one line, and a traceback as further ones that are indented.

    Messages and exceptions contain text of clients. Characters that would begin another line, move a terminal's cursor
    or change its direction are escaped, so that no client can write a log record of its own.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the record's line."""
        return _CONTROL.sub(_escaped, super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802 - logging's name
        """Return an indented traceback."""
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]
        return "\n".join(INDENT + _CONTROL.sub(_escaped, line) for line in lines)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
