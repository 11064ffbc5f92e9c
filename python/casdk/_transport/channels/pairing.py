"""Which reply belongs to which request over HTTP/1.1, which has no ids of its own, and what else its channels share."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol, TypeVar

from casdk._rust import Message, first_id_of, place_of
from casdk._transport.channels.base import LOG, Channel
from casdk._transport.connecting import host_field
from casdk.errors import TransportError

__all__ = ["HEADERS", "IDLE_SECONDS", "REMEMBERED_IDS", "Asked", "Pairing", "PairingChannel"]

HEADERS: Final = (
    ("user-agent", "casdk"),
    ("accept", "application/json"),
    ("accept-encoding", "identity"),
    ("content-type", "application/json"),
)
"""What each request says, beside its host and the headers of its client."""
IDLE_SECONDS: Final = 60.0
"""A connection that was idle for longer is not used again."""

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


class Paired(Protocol):
    """A connection whose requests and replies are paired.

    Attributes:
        pairing: Which requests were made on it.
    """

    pairing: Pairing


C = TypeVar("C", bound=Paired)


class PairingChannel(Channel):
    """What a channel of HTTP/1.1 needs whoever speaks the protocol: the host of its requests, and whose a reply is.

    HTTP/1.1 has no request ids, so a second reply to one request would be taken for the reply to the next one. jina's
    gateway makes up a new id for each reply, but sends back the documents' own: a reply that does not begin with the
    document its request began with ends the connection. It counts only if it was the first one there, which can be
    nobody else's.

    Attributes:
        trusted: Whether the server has always answered in turn, so that a connection may be used again.
        host: What the requests name as their host: with its port, if that is not the usual one.
    """

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.trusted = True
        self.host = host_field(self.endpoint)

    def pair(self, pairing: Pairing, asked: Asked, body: bytes | Message) -> bool:
        """Return whether a reply names its request.

        Raises:
            ReplyError: It cannot be read.
            TransportError: It names another one, and may be that one's.
        """
        found = first_id_of(body)
        if found and (found == asked.first or asked.owns(found)):
            return True
        if found is None or not pairing.used:  # no row to get wrong, or nobody else's
            return False
        if self.trusted:
            self.trusted = False
            LOG.warning("%s answered out of turn: each request gets a connection of its own from now on", self.endpoint)
        raise TransportError(f"{self.endpoint} answered another request than this one", away=False)

    def take_silent(self, idle: list[C], began: float) -> list[C]:
        """Take out the idle connections that may have gone silent, as one did, and return them.

        Args:
            idle: The idle connections.
            began: When the request began whose connection went silent; they have received nothing since then.
        """
        silent = [connection for connection in idle if connection.pairing.answered_at < began]
        idle[:] = [connection for connection in idle if connection not in silent]
        if silent:
            LOG.info("%s answered nothing: its %d idle connections are not used again", self.endpoint, len(silent))
        return silent
