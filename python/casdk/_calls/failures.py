"""What the log and the progress bar say of requests that fail, and of servers that are away; `Run` reports it here."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from casdk._engine.logging import logger_of

if TYPE_CHECKING:
    from casdk._calls.batches import Request
    from casdk._calls.decisions import Call, NextStep
    from casdk._calls.outages import Outage
    from casdk._calls.progress import Progress
    from casdk._calls.ways import Way
    from casdk.errors import CasdkError

__all__ = ["log_failure", "note_outage"]

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
    batch, next_step = request.batch, consequence.format(wait=wait, why=why)
    which = (where, request.id, len(batch), batch.indices[0], batch.attempts)
    LOG.log(level, f"%s: request %s of %d items from item %d failed on attempt %d{next_step}: %s", *which, error)


def note_outage(
    call: Call, way: Way, progress: Progress | None, before: Outage | None, error: CasdkError | None = None
) -> Outage | None:
    """Report to the log and the bar that a call begins to wait for its server, or that it does not wait any more.

    Args:
        call: The decisions about the call.
        way: Its servers.
        progress: Its progress bar.
        before: The outage that it waited for the end of, as was reported the last time.
        error: Why its last request failed, if it failed.

    Returns:
        The outage that it waits for the end of.
    """
    outage = call.outage
    awaited = None if outage is None or outage.given_up else outage
    if awaited is before:
        return awaited
    if progress is not None:
        progress.wait(awaited is not None)
    if awaited is not None:
        if way.state.wait(call):
            LOG.warning("%s is away: waiting for it, for %g s at most: %s", way.address, call.patience, error)
    elif outage is not None:
        way.state.leave(call)
    elif before is not None and way.state.is_back():
        LOG.info("%s answers again after %.1f s", way.address, asyncio.get_running_loop().time() - before.since)
    return awaited
