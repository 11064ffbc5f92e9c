"""What the log says of a request that failed."""

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
FOLLOWS: Final[dict[str, tuple[int, str]]] = {
    "move": (logging.WARNING, ", and goes to another server at once"),
    "repeat": (logging.WARNING, ", and is sent again in {wait:.2f} s"),
    "wait": (logging.DEBUG, ", and is sent again when the server is back"),
    "split": (logging.INFO, ", and is halved{why}"),
    "lost": (logging.WARNING, " for good"),
}
"""How loudly it is said, and what follows on the failure."""


def log_failure(where: str, request: Request, error: CasdkError, outcome: NextStep, wait: float) -> None:
    """Log that a request failed, and what follows.

    Args:
        where: The server that it was sent to.
        request: The request.
        error: Why it failed.
        outcome: What `Call.fail` made of it.
        wait: Seconds until it is sent again, if it is.
    """
    level, follows = FOLLOWS.get(outcome, (logging.DEBUG, " for good"))
    if not LOG.isEnabledFor(level):
        return
    why = ", as it is too large" if getattr(error, "too_large", False) else " to find the item"
    batch, said = request.batch, follows.format(wait=wait, why=why)
    which = (where, request.id, len(batch), batch.indices[0], batch.attempts)
    LOG.log(level, f"%s: request %s of %d items from item %d failed on attempt %d{said}: %s", *which, error)
