"""Outages: times in which a server is away, as one call and all calls of a client see them; there is no I/O here."""

from __future__ import annotations

from typing import Final

__all__ = ["PATIENCE_SECONDS", "Outage", "ServerState"]

PATIENCE_SECONDS: Final = 60.0
"""How long a server may be away, unless the client says: it may take as long to load its weights."""
LEAST_WAIT_SECONDS: Final = 0.02
"""The least time between two requests to a server that is away: their number is not limited, only their time is."""


class ServerState:
    """What the calls of one client have found out about its server.

    Attributes:
        answered: Whether the server has ever answered; before that, its address may be wrong.
    """

    def __init__(self, answered: bool = False) -> None:
        self.answered = answered
        self._waiting: set[object] = set()

    def wait(self, call: object) -> bool:
        """Note that a call waits for the server from now on; return whether it is the only call that does."""
        self._waiting.add(call)
        return len(self._waiting) == 1

    def is_back(self) -> bool:
        """Note that the server has answered a call that waited; return whether this is the first report of that."""
        first = bool(self._waiting)
        self._waiting.clear()
        return first

    def has_another(self, now: float) -> bool:
        """Whether another server may take a request that this one has failed on; there is no other one here."""
        return False

    @property
    def is_awaited(self) -> bool:
        """Whether a call waits for the server."""
        return bool(self._waiting)

    def leave(self, call: object) -> None:
        """Note that a call is over, and does not wait any more."""
        self._waiting.discard(call)


class Outage:
    """A time in which the server is away, as one call sees it.

    Attributes:
        since: When the first request failed because the server is away.
        ask_at: When the next request may be sent, to find out whether the server is back.
        asking: The batch that is in flight to find that out, if one is.
        tries: Requests that were sent to find that out, and the one that failed first.
        given_up: Whether the call does not wait for the server any longer.
    """

    def __init__(self, since: float) -> None:
        self.since = self.ask_at = since
        self.asking: object = None
        self.tries = 0
        self.given_up = False

    def may_ask(self, now: float) -> bool:
        """Whether another request may be sent now; once the call has stopped waiting, it always may."""
        return self.given_up or (self.asking is None and now >= self.ask_at)

    def wait(self, now: float, backoff: float, asked: float, patience: float) -> None:
        """Set when the next request may be sent; the last one is sent when the patience is over.

        Args:
            now: When the last request failed.
            backoff: Seconds between that request and the next.
            asked: Seconds that the server, or a proxy before it, asked to wait.
            patience: Seconds that the server may be away.
        """
        self.ask_at = max(min(now + max(LEAST_WAIT_SECONDS, backoff), self.since + patience), now + asked)
