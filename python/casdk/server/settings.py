"""The settings of the server, checked when they are made.

``python -m casdk.server`` makes them of its arguments; `gateway.py` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType

from casdk._transport.address import SCHEMES

__all__ = ["DEFAULT_PORTS", "Settings"]

DEFAULT_PORTS: Mapping[str, int] = MappingProxyType(
    dict(sorted(((scheme, row.served_port) for scheme, row in SCHEMES.items()), key=itemgetter(1)))
)
"""Port of each scheme for ``python -m casdk.server``."""
MIB = 1 << 20
LEAST_MEMORY_BYTES = 64 * MIB
MEMORY_PER_MESSAGE = 15
"""The ratio of ``max_memory`` to the largest message: a message takes 3 times its bytes, of a fifth of the memory."""

LARGEST_MESSAGE_BYTES = (1 << 31) - 1
"""The limit of gRPC."""
LONGEST_GRACE_SECONDS = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of ``python -m casdk.server``.

    Attributes:
        ports: Port of each scheme to serve; 0 takes a free one.
        host: Address to listen on.
        allow_hosts: Names by which clients may call a server on loopback, beside loopback's own.
        encoder: ``features`` or ``onnx:DIRECTORY``.
        token: What clients must send as ``authorization``; ``None`` lets everyone in.
        cert: PEM file of the certificate for the secure schemes; ``None`` makes one.
        key: PEM file of its key.
        index: Whether ``/index`` and ``/search`` have an index behind them.
        workspace: Directory of the index; ``None`` forgets it at the end.
        fetch_uris: Whether to fetch http(s) URIs on a client's behalf.
        chaos: Whether texts that begin with ``!!`` misbehave.
        max_message: Largest message taken, in bytes; ``None`` is as large as ``max_memory`` allows, a fifteenth of it.
        max_memory: What requests may take together, in bytes, beside the server itself and its models; they wait for
            it, and one that would take too much of it is refused.
        max_pixels: Largest image taken, in pixels.
        threads: Threads that encode.
        grace: Seconds to finish in when stopped.
    """

    ports: Mapping[str, int]
    host: str = "127.0.0.1"
    allow_hosts: Sequence[str] = ()
    encoder: str = "features"
    token: str | None = field(default=None, repr=False)
    cert: Path | None = None
    key: Path | None = None
    index: bool = True
    workspace: Path | None = None
    fetch_uris: bool = False
    chaos: bool = False
    max_message: int | None = None
    max_memory: int = 1536 * MIB
    max_pixels: int = 89_478_485
    threads: int = 4
    grace: float = 10.0

    def __post_init__(self) -> None:
        """Check what the types do not.

        Raises:
            ValueError: A setting cannot work.
        """
        if not self.ports:
            raise ValueError("no scheme to serve")
        if unknown := sorted(self.ports.keys() - DEFAULT_PORTS.keys()):
            raise ValueError(f"no scheme {unknown[0]!r}; there are {', '.join(DEFAULT_PORTS)}")
        if (self.cert is None) != (self.key is None):
            raise ValueError("a certificate and its key come together")
        if not self.host:
            raise ValueError("no host to listen on; 0.0.0.0 and :: are all there are")
        if self.token == "":
            raise ValueError("an empty token protects nothing")
        if self.token is not None and (self.token != self.token.strip() or not self.token.isprintable()):
            raise ValueError("no client can send a token with white space at its ends, or with control characters")
        if not 0 <= self.grace <= LONGEST_GRACE_SECONDS:
            raise ValueError(f"grace must be a number of seconds from 0 to {LONGEST_GRACE_SECONDS}")
        if self.threads < 1 or (self.max_message is not None and self.max_message < 1) or self.max_pixels < 1:
            raise ValueError("threads, max_message and max_pixels must be at least 1")
        if self.max_memory < LEAST_MEMORY_BYTES:
            raise ValueError(f"max_memory must be at least {LEAST_MEMORY_BYTES} bytes")
        if (self.max_message or 0) > self.max_memory // MEMORY_PER_MESSAGE:
            least = (self.max_message or 0) * MEMORY_PER_MESSAGE
            raise ValueError(f"messages of {self.max_message} bytes take max_memory of at least {least}")

    @property
    def message_bytes(self) -> int:
        """Largest message taken."""
        return min(self.max_message or self.max_memory // MEMORY_PER_MESSAGE, LARGEST_MESSAGE_BYTES)

    @property
    def image_memory(self) -> int:
        """Bytes for images that are being decoded."""
        return self.max_memory // 2

    @property
    def request_memory(self) -> int:
        """Bytes for messages that have arrived, and what they are parsed to."""
        return self.max_memory // 5

    @property
    def reply_memory(self) -> int:
        """Bytes for replies."""
        return self.max_memory // 5

    @property
    def little_memory(self) -> int:
        """Bytes for requests that take little; a twentieth is left for messages that are arriving."""
        return self.max_memory // 20
