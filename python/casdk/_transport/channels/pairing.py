"""Which reply belongs to which request over HTTP/1.1, which has no request ids; both of its channels use this."""

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
"""The headers of each request, beside its host and the headers of its client."""
IDLE_SECONDS: Final = 60.0
"""A connection that was idle for longer is not used again."""

REMEMBERED_IDS: Final = 256
"""The most document ids of the user's that a connection remembers; then it is replaced."""


class Asked(NamedTuple):
    """What a request is recognised by in its reply.

    Attributes:
        request_id: The request's id, from which the packer makes ids of documents without one.
        first: Id of its first document.
    """

    request_id: str
    first: str | None

    def owns(self, found: str) -> bool:
        """Whether the packer has made this document id for this request."""
        return place_of(found, self.request_id) is not None


class Pairing:
    """The requests of one connection, so that a late reply to one is not taken for the reply to another.

    Attributes:
        used: Whether it has carried a request, to which a second reply may be on its way.
        answered_at: When the last request was answered, in the engine's time.
    """

    __slots__ = ("_seen_ids", "answered_at", "used")

    def __init__(self) -> None:
        self.used = False
        self.answered_at = 0.0
        self._seen_ids: set[str] = set()
        """The user's own ids of earlier requests' first documents: a reply that begins with one is ambiguous."""

    def can_pair(self, asked: Asked) -> bool:
        """Whether the reply to this request can be told from replies to earlier ones."""
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
        pairing: The requests of the connection.
    """

    pairing: Pairing


C = TypeVar("C", bound=Paired)


class PairingChannel(Channel):
    """The base of both channels of HTTP/1.1: it checks that a reply belongs to its request.

    HTTP/1.1 has no request ids, so a second reply to one request would be taken for the reply to the next one. jina's
    gateway makes up a new id for each reply, but sends back the documents' ids. If the first id of a reply is not the
    first id of its request, the connection ends. The reply counts only if it was the first one on that connection,
    since then it can belong to no other request.

    Attributes:
        trusted: Whether the server has always answered in order, so that a connection may be used again.
        host: The ``host`` of requests, with the port if it is not the scheme's default.
    """

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.trusted = True
        self.host = host_field(self.endpoint)

    def pair(self, pairing: Pairing, asked: Asked, body: bytes | Message) -> bool:
        """Return whether a reply names its request.

        Raises:
            ReplyError: The reply cannot be read.
            TransportError: The reply names another request, and may belong to that one.
        """
        found = first_id_of(body)
        if found and (found == asked.first or asked.owns(found)):
            return True
        if found is None or not pairing.used:  # the reply has no rows, or can belong to no other request
            return False
        if self.trusted:
            self.trusted = False
            LOG.warning("%s answered out of turn: each request gets a connection of its own from now on", self.endpoint)
        raise TransportError(f"{self.endpoint} answered another request than this one", away=False)

    def take_silent(self, idle: list[C], began: float) -> list[C]:
        """Remove the idle connections that may have gone silent, too, and return them.

        Args:
            idle: The idle connections.
            began: When the request began whose connection went silent. Idle connections that have answered since then
                stay.
        """
        silent = [connection for connection in idle if connection.pairing.answered_at < began]
        idle[:] = [connection for connection in idle if connection not in silent]
        if silent:
            LOG.info("%s answered nothing: its %d idle connections are not used again", self.endpoint, len(silent))
        return silent
