"""Which reply belongs to which request over HTTP/1.1, which has no ids of its own."""

from __future__ import annotations

from typing import Final, NamedTuple

from casdk._rust import place_of

__all__ = ["REMEMBERED_IDS", "Asked", "Pairing"]

REMEMBERED_IDS: Final = 256
"""Ids of the user's that a connection remembers at most; then it is replaced."""


class Asked(NamedTuple):
    """What the reply to one request is recognised by.

    Attributes:
        request_id: The packer makes the ids of documents that have none of their own from it.
        first: Id of its first document.
    """

    request_id: str
    first: str | None

    def owns(self, found: str) -> bool:
        """Whether the packer made up this id for this request."""
        return place_of(found, self.request_id) is not None


class Pairing:
    """Which requests were made on a connection, so that a late reply to one is not taken for the reply to another.

    Attributes:
        used: Whether there was a request on it: a second reply to that may be on its way.
        answered_at: When the last one was answered, in the engine's time.
    """

    __slots__ = ("_seen_ids", "answered_at", "used")

    def __init__(self) -> None:
        self.used = False
        self.answered_at = 0.0
        self._seen_ids: set[str] = set()
        """The user's ids that earlier requests began with: a reply that begins with one may be to either."""

    def can_pair(self, asked: Asked) -> bool:
        """Whether a reply to this request could not be mistaken for a reply to an earlier one."""
        if not self.used:
            return True
        first, seen = asked.first or "", self._seen_ids
        return asked.owns(first) or (first not in seen and first != "" and len(seen) < REMEMBERED_IDS)

    def note_answer(self, asked: Asked, now: float) -> None:
        """Note that a request was answered."""
        self.used, self.answered_at = True, now
        if asked.first and not asked.owns(asked.first):
            self._seen_ids.add(asked.first)
