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
        answered: Whether it has ever answered: until then, nobody knows whether it is there at all.
    """

    def __init__(self, answered: bool = False) -> None:
        self.answered = answered
        self._waiting: set[object] = set()

    def wait(self, call: object) -> bool:
        """A call waits for it from now on; return whether it is the only one."""
        self._waiting.add(call)
        return len(self._waiting) == 1

    def is_back(self) -> bool:
        """It has answered a call that waited; return whether this is the first to report it."""
        first = bool(self._waiting)
        self._waiting.clear()
        return first

    def has_another(self, now: float) -> bool:
        """Whether another server may take what this one has failed on: there is none."""
        return False

    @property
    def is_awaited(self) -> bool:
        """Whether a call waits for it."""
        return bool(self._waiting)

    def leave(self, call: object) -> None:
        """A call is over."""
        self._waiting.discard(call)


class Outage:
    """A time in which the server is away, as one call finds it.

    Attributes:
        since: When a request failed on it first.
        ask_at: When another request may ask whether it is back.
        asking: The batch that does so now, if one does.
        tries: Requests that have asked, the one that found out about it included.
        given_up: Whether it is not waited for any longer.
    """

    def __init__(self, since: float) -> None:
        self.since = self.ask_at = since
        self.asking: object = None
        self.tries = 0
        self.given_up = False

    def may_ask(self, now: float) -> bool:
        """Whether another request may be sent: nothing bars it once the server is given up."""
        return self.given_up or (self.asking is None and now >= self.ask_at)

    def wait(self, now: float, backoff: float, asked: float, patience: float) -> None:
        """Let the next request ask in a while; the last one asks when the patience is over.

        Args:
            now: When the last one failed.
            backoff: Seconds between it and the next.
            asked: Seconds that the server, or a proxy before it, asked to wait.
            patience: Seconds that the server may be away.
        """
        self.ask_at = max(min(now + max(LEAST_WAIT_SECONDS, backoff), self.since + patience), now + asked)
