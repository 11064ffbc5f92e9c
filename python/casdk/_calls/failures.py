"""The log line of a request that failed; `Run` writes it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from casdk._engine.logging import logger_of

if TYPE_CHECKING:
    from casdk._calls.batches import Request
    from casdk._calls.decisions import NextStep
    from casdk.errors import CasdkError

__all__ = ["log_failure"]

LOG: Final = logger_of("casdk.calls")
CONSEQUENCES: Final[dict[str, tuple[int, str]]] = {
    "move": (logging.WARNING, ", and goes to another server at once"),
    "repeat": (logging.WARNING, ", and is sent again in {wait:.2f} s"),
    "wait": (logging.DEBUG, ", and is sent again when the server is back"),
    "split": (logging.INFO, ", and is halved{why}"),
    "lost": (logging.WARNING, " for good"),
}
"""The level of the log line, and its words for what the call does next."""


def log_failure(where: str, request: Request, error: CasdkError, outcome: NextStep, wait: float) -> None:
    """Log that a request failed, and what the call does next.

    Args:
        where: The server that it was sent to.
        request: The request.
        error: Why it failed.
        outcome: What the call does next, as `Call.fail` has decided.
        wait: Seconds until the request is sent again, if it is.
    """
    level, consequence = CONSEQUENCES.get(outcome, (logging.DEBUG, " for good"))
    if not LOG.isEnabledFor(level):
        return
    why = ", as it is too large" if getattr(error, "too_large", False) else " to find the item"
    batch, said = request.batch, consequence.format(wait=wait, why=why)
    which = (where, request.id, len(batch), batch.indices[0], batch.attempts)
    LOG.log(level, f"%s: request %s of %d items from item %d failed on attempt %d{said}: %s", *which, error)
