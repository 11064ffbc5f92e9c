"""What can go wrong, as values: what a fault server's script is made of.

A `Fault` happens to one request, a `ConnectionFault` to one connection::

    FaultServer(script=[Refuse.unavailable(), None, Delay(0.2)])         # first, second, third request; then none
    FaultServer(script=lambda request: Cut() if request.number % 7 == 0 else None)
    FaultServer(connections=[Silent()])                                  # the first connection only

Several faults of one request are given as a tuple; they act in the order of the request's life.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from casdk.server.wire import jina_pb2
from casdk.testing.executor import embed, embedding_of, fail, put_embedding

if TYPE_CHECKING:
    from casdk.testing._connection import Connection, Exchange, Incoming

__all__ = [
    "AddDocument",
    "Babble",
    "ConnectionFault",
    "Cut",
    "DeadExecutor",
    "Deaf",
    "DeepNesting",
    "Delay",
    "DropDocument",
    "Duplicate",
    "EndlessHeaders",
    "ExecutorError",
    "Fault",
    "Garbage",
    "Gate",
    "Hold",
    "HugeLength",
    "Mix",
    "Never",
    "NoEmbedding",
    "NotFinite",
    "Plan",
    "Refuse",
    "Reorder",
    "Request",
    "Rules",
    "Shut",
    "Silent",
    "Stall",
    "StallHandshake",
    "TextReply",
    "Trickle",
    "Truncate",
    "Width",
    "WrongId",
    "planner",
]

Manner: TypeAlias = Literal["close", "reset", "half-close"]
"""How a connection ends: FIN, RST, or FIN in the server's direction only."""

PIECE: Final = 65536


@dataclass(frozen=True, slots=True)
class Request:
    """What a server saw of one request.

    Attributes:
        number: Position among all requests of the server, from 0.
        connection: Number of the connection it came on, from 0.
        scheme: How it came.
        id: Its ``request_id``.
        endpoint: Executor endpoint, e.g. ``/encode``.
        headers: Sent with it, names in lower case; for a websocket those of the handshake.
        texts: Each document's text, ``""`` for images.
        nbytes: Length of the message.
    """

    number: int
    connection: int
    scheme: str
    id: str
    endpoint: str
    headers: Mapping[str, str]
    texts: tuple[str, ...]
    nbytes: int

    @property
    def authorization(self) -> str | None:
        """The credential it carried."""
        return self.headers.get("authorization")


class AnsweredError(Exception):
    """A fault has seen to the whole answer."""


class Fault:
    """Something that happens to one request. Subclass it for faults of your own."""

    __slots__ = ()

    async def wait(self, exchange: Exchange) -> None:
        """Act before the request is executed; raise `AnsweredError` if that was all."""

    def change(self, reply: jina_pb2.DataRequestProto, exchange: Exchange) -> None:
        """Change the reply as a message."""

    def corrupt(self, payload: bytes, exchange: Exchange) -> bytes:
        """Change the reply as bytes."""
        return payload

    async def deliver(self, exchange: Exchange, payload: bytes) -> bool:
        """Send the reply in another way; return whether that was done."""
        return False


Plan: TypeAlias = "Fault | Sequence[Fault] | None"
"""What happens to one request."""
Rules: TypeAlias = "Plan | Sequence[Plan] | Callable[[Request], Plan]"
"""A plan for every request (a `Fault`), one per request from the first, or a function of the request."""


def planner(rules: Rules) -> Callable[[Request], Sequence[Fault]]:
    """Return the function that says what happens to a request.

    A list is used up entry by entry, whatever the requests' numbers; what comes after it is left alone.
    """
    if rules is None:
        return lambda request: ()
    if isinstance(rules, Fault):
        return lambda request: (rules,)
    if callable(rules):
        return lambda request: _listed(rules(request))
    left = iter([_listed(plan) for plan in rules])
    return lambda request: next(left, ())


def _listed(plan: Plan) -> Sequence[Fault]:
    if plan is None:
        return ()
    return (plan,) if isinstance(plan, Fault) else plan


class Mix:
    """Rules that draw each request's fault, the same one for the same seed and number.

    Args:
        seed: Of the draw.
        shares: Chance of each fault, 0 to 1, together at most 1.
    """

    def __init__(self, seed: int, shares: Mapping[Fault, float]) -> None:
        if sum(shares.values()) > 1:
            raise ValueError(f"the shares must not add up to more than 1, not {sum(shares.values())}")
        self.seed = seed
        self.shares = dict(shares)
        self.injected = 0

    def __call__(self, request: Request) -> Fault | None:
        drawn = random.Random(f"{self.seed}:{request.number}").random()
        for fault, share in self.shares.items():
            drawn -= share
            if drawn < 0:
                self.injected += 1
                return fault
        return None


class Gate:
    """Where requests wait until the test lets them pass; from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._arrived = 0

    @property
    def arrived(self) -> int:
        """Requests that ever came here."""
        return self._arrived

    def wait_for(self, count: int, timeout: float = 10.0) -> None:
        """Wait until so many requests have come.

        Raises:
            TimeoutError: They did not.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._arrived >= count, timeout):
                raise TimeoutError(f"{self._arrived} of {count} requests came within {timeout:g} s")

    def open(self) -> None:
        """Let everything pass from now on."""
        with self._changed:
            self._open = True
        self.let(len(self._waiting))

    def let(self, count: int) -> None:
        """Let so many of those that wait pass, the oldest first."""
        with self._changed:
            passing, self._waiting = self._waiting[:count], self._waiting[count:]
        for loop, waiter in passing:
            loop.call_soon_threadsafe(_settle, waiter)

    async def arrive(self) -> None:
        """Wait to be let through."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        with self._changed:
            self._arrived += 1
            self._changed.notify_all()
            if self._open:
                return
            self._waiting.append((loop, waiter))
        await waiter


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


# when the answer comes


@dataclass(frozen=True, slots=True)
class Delay(Fault):
    """Answer so many seconds late."""

    seconds: float

    async def wait(self, exchange: Exchange) -> None:
        await asyncio.sleep(self.seconds)


@dataclass(frozen=True, slots=True)
class Never(Fault):
    """Read the request and never answer."""

    async def wait(self, exchange: Exchange) -> None:
        await exchange.forever()


@dataclass(frozen=True, slots=True)
class Hold(Fault):
    """Wait at a gate."""

    gate: Gate

    async def wait(self, exchange: Exchange) -> None:
        await self.gate.arrive()


@dataclass(frozen=True, slots=True)
class Reorder(Fault):
    """Gather so many answers, over all connections, and send them last first.

    After 50 ms without company what was gathered goes out.
    """

    window: int = 4

    async def deliver(self, exchange: Exchange, payload: bytes) -> bool:
        pen = exchange.pen(self)
        turn = asyncio.get_running_loop().create_future()
        pen.append(turn)
        if len(pen) >= self.window:
            pen.pop().set_result(None)
        try:
            async with asyncio.timeout(0.05):
                await asyncio.shield(turn)
        except TimeoutError:
            if turn in pen:
                pen.remove(turn)
        await exchange.send(payload)
        if pen:
            _settle(pen.pop())
        return True


# how the connection fares


@dataclass(frozen=True, slots=True)
class Cut(Fault):
    """End the connection.

    Attributes:
        at: ``"before"`` or ``"after"`` the request was executed, or in the ``"middle"`` of the reply's bytes.
        how: FIN, RST, or FIN of this direction.
    """

    at: Literal["before", "after", "middle"] = "after"
    how: Manner = "close"

    async def wait(self, exchange: Exchange) -> None:
        if self.at == "before":
            exchange.connection.cut(self.how)
            raise AnsweredError

    async def deliver(self, exchange: Exchange, payload: bytes) -> bool:
        if self.at == "middle":
            async with exchange.turn():
                await exchange.begin(len(payload))
                await exchange.write(payload[: len(payload) // 2])
        exchange.connection.cut(self.how)
        return True


@dataclass(frozen=True, slots=True)
class Stall(Fault):
    """Send a share of the reply, 0 to 1, and then nothing more."""

    share: float = 0.5

    async def deliver(self, exchange: Exchange, payload: bytes) -> bool:
        async with exchange.turn():
            await exchange.begin(len(payload))
            await exchange.write(payload[: int(len(payload) * self.share)])
            await exchange.forever()
        return True


@dataclass(frozen=True, slots=True)
class Trickle(Fault):
    """Send the reply slowly.

    Attributes:
        size: Bytes at a time.
        seconds: Between them.
    """

    size: int = 16
    seconds: float = 0.01

    async def deliver(self, exchange: Exchange, payload: bytes) -> bool:
        async with exchange.turn():
            await exchange.begin(len(payload))
            for start in range(0, len(payload), self.size):
                await exchange.write(payload[start : start + self.size])
                await asyncio.sleep(self.seconds)
            await exchange.end()
        return True


# what the server refuses


@dataclass(frozen=True, slots=True)
class Refuse(Fault):
    """Refuse the request without executing it, in each protocol's words.

    Attributes:
        grpc: Status code, a number.
        http: Status code.
        close: Close code of the websocket.
        message: Said with it.
        retry_after: Seconds for http's Retry-After, if any.
    """

    grpc: int = 14
    http: int = 503
    close: int = 1011
    message: str = "refused by the script"
    retry_after: float | None = None

    async def wait(self, exchange: Exchange) -> None:
        await exchange.refuse(self)
        raise AnsweredError

    @classmethod
    def unavailable(cls, retry_after: float | None = None) -> Refuse:
        """UNAVAILABLE, 503, 1012."""
        return cls(14, 503, 1012, "going away", retry_after)

    @classmethod
    def overloaded(cls, retry_after: float | None = None) -> Refuse:
        """RESOURCE_EXHAUSTED, 429, 1013."""
        return cls(8, 429, 1013, "too many requests", retry_after)

    @classmethod
    def unauthenticated(cls) -> Refuse:
        """UNAUTHENTICATED, 401, 1008."""
        return cls(16, 401, 1008, "bad credential")

    @classmethod
    def gateway(cls) -> Refuse:
        """UNAVAILABLE, 502, 1011."""
        return cls(14, 502, 1011, "bad gateway")

    @classmethod
    def internal(cls) -> Refuse:
        """INTERNAL, 500, 1002: no reason to send again."""
        return cls(13, 500, 1002, "internal error")


@dataclass(frozen=True, slots=True)
class DeadExecutor(Fault):
    """What jina's gateway says when the process behind it is gone.

    gRPC: an empty reply with status SUCCESS, then UNAVAILABLE; http: 503 with the status in the body;
    websocket: close 1011.
    """

    async def wait(self, exchange: Exchange) -> None:
        said = "failed to connect to all addresses |Gateway: Communication error with deployment clip"
        empty = jina_pb2.DataRequestProto()
        empty.header.request_id = exchange.message.header.request_id
        if exchange.family == "http":
            empty.CopyFrom(exchange.message)
            fail(empty, ConnectionError(said), "<class 'jina.excepts.InternalNetworkError'>")
        await exchange.abandon(exchange.encode(empty), Refuse(14, 503, 1011, said))
        raise AnsweredError


@dataclass(frozen=True, slots=True)
class ExecutorError(Fault):
    """The executor raises: a normal reply whose status says so, the documents as they were sent."""

    name: str = "RuntimeError"
    description: str = "out of memory"

    def change(self, reply: jina_pb2.DataRequestProto, exchange: Exchange) -> None:
        reply.data.CopyFrom(exchange.message.data)
        fail(reply, RuntimeError(self.description), self.name)


# what is wrong in the reply


@dataclass(frozen=True, slots=True)
class Duplicate(Fault):
    """Send the reply twice."""

    async def deliver(self, exchange: Exchange, payload: bytes) -> bool:
        async with exchange.turn():
            for _ in range(2):
                await exchange.begin(len(payload))
                await exchange.write(payload)
            await exchange.end()
        return True


@dataclass(frozen=True, slots=True)
class WrongId(Fault):
    """Answer to a request that nobody made."""

    id: str = "0" * 32

    def change(self, reply: jina_pb2.DataRequestProto, exchange: Exchange) -> None:
        reply.header.request_id = self.id


@dataclass(frozen=True, slots=True)
class AddDocument(Fault):
    """Send documents that nobody asked for, behind the others."""

    count: int = 1

    def change(self, reply: jina_pb2.DataRequestProto, exchange: Exchange) -> None:
        width = _width_of(reply)
        for number in range(self.count):
            document = reply.data.docs.docs.add(id=f"{number:032x}", text="uninvited")
            put_embedding(document, embed("uninvited", width))


@dataclass(frozen=True, slots=True)
class DropDocument(Fault):
    """Leave out the document at a position.

    Attributes:
        position: Of the document; counted from the end if negative.
        rename: Also take away the ids of those that stay, so that nothing says which one is missing.
    """

    position: int = 0
    rename: bool = False

    def change(self, reply: jina_pb2.DataRequestProto, exchange: Exchange) -> None:
        if -len(reply.data.docs.docs) <= self.position < len(reply.data.docs.docs):
            del reply.data.docs.docs[self.position]
        if self.rename:
            for document in reply.data.docs.docs:
                document.id = ""


@dataclass(frozen=True, slots=True)
class NoEmbedding(Fault):
    """Leave the document at a position without its embedding."""

    position: int = 0

    def change(self, reply: jina_pb2.DataRequestProto, exchange: Exchange) -> None:
        for document in list(reply.data.docs.docs)[self.position : self.position + 1]:
            document.ClearField("embedding")


@dataclass(frozen=True, slots=True)
class Width(Fault):
    """Send embeddings of another width.

    Attributes:
        width: Numbers in a row.
        position: Of the one document this happens to; ``None`` for all.
    """

    width: int
    position: int | None = None

    def change(self, reply: jina_pb2.DataRequestProto, exchange: Exchange) -> None:
        for position, document in enumerate(reply.data.docs.docs):
            if self.position in (None, position):
                put_embedding(document, embed(document.text, self.width))


@dataclass(frozen=True, slots=True)
class NotFinite(Fault):
    """Put a number that is none into the embedding at a position."""

    position: int = 0
    value: float = float("nan")

    def change(self, reply: jina_pb2.DataRequestProto, exchange: Exchange) -> None:
        for document in list(reply.data.docs.docs)[self.position : self.position + 1]:
            row = embedding_of(document).astype(np.float32)
            row[len(row) // 2] = self.value
            put_embedding(document, row)


@dataclass(frozen=True, slots=True)
class DeepNesting(Fault):
    """Nest the reply's first document as many levels deep.

    The bytes are made by hand: google's protobuf refuses to write, and to read, more than 100 levels.
    """

    depth: int = 10_000

    def corrupt(self, payload: bytes, exchange: Exchange) -> bytes:
        if exchange.family == "http":
            nest = b'{"chunks":[' * self.depth + b"{}" + b"]}" * self.depth
            return b'{"header":{"requestId":"0"},"data":[' + nest + b"]}"
        nest = b""
        for _ in range(self.depth):
            nest = _field(14, nest)
        header = _field(1, _field(1, exchange.message.header.request_id.encode()))
        return header + _field(4, _field(1, _field(1, nest)))


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


@dataclass(frozen=True, slots=True)
class Truncate(Fault):
    """Cut the message's content, in correct framing, after a share of it, 0 to 1."""

    share: float = 0.5

    def corrupt(self, payload: bytes, exchange: Exchange) -> bytes:
        return payload[: int(len(payload) * self.share)]


@dataclass(frozen=True, slots=True)
class Garbage(Fault):
    """Send other bytes in the reply's place, in correct framing."""

    data: bytes = bytes(range(255, -1, -1)) * 4

    def corrupt(self, payload: bytes, exchange: Exchange) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class HugeLength(Fault):
    """Announce a reply of that many bytes, 4 GB by default, send a few of them and then nothing."""

    size: int = 2**32 - 1

    async def deliver(self, exchange: Exchange, payload: bytes) -> bool:
        async with exchange.turn():
            await exchange.begin(self.size)
            await exchange.write(payload[:1000])
            await exchange.forever()
        return True


@dataclass(frozen=True, slots=True)
class TextReply(Fault):
    """Send text where the message belongs: a text frame, or a page of ``text/html``."""

    text: str = "<html><body>hello</body></html>"

    async def deliver(self, exchange: Exchange, payload: bytes) -> bool:
        async with exchange.turn():
            await exchange.send_text(self.text)
        return True


def _width_of(reply: jina_pb2.DataRequestProto) -> int:
    for document in reply.data.docs.docs:
        if document.HasField("embedding"):
            return len(embedding_of(document))
    return 512


# connections


class ConnectionFault:
    """Something that happens to one connection. Subclass it for faults of your own."""

    __slots__ = ()

    async def accept(self, incoming: Incoming) -> bool:
        """Act on the raw socket, before TLS; return whether nothing else is to be done with it."""
        return False

    def opened(self, connection: Connection) -> None:
        """Act once the connection speaks its protocol, TLS done."""

    def received(self, connection: Connection, data: bytes) -> bool:
        """Act on bytes that came; return whether the protocol must not see them."""
        return False


@dataclass(frozen=True, slots=True)
class Silent(ConnectionFault):
    """Accept the connection and never say a word; on a secure scheme not even TLS's."""

    async def accept(self, incoming: Incoming) -> bool:
        await incoming.forever()
        return True


@dataclass(frozen=True, slots=True)
class StallHandshake(ConnectionFault):
    """Send half of the server's side of the TLS handshake; `Silent` on a plain scheme."""

    async def accept(self, incoming: Incoming) -> bool:
        await incoming.stall_handshake()
        return True


@dataclass(frozen=True, slots=True)
class Shut(ConnectionFault):
    """End the connection when so many bytes were read from it (after TLS); 0 at once, before TLS."""

    after: int = 0
    how: Manner = "close"

    async def accept(self, incoming: Incoming) -> bool:
        if self.after == 0:
            incoming.cut(self.how)
            return True
        return False

    def received(self, connection: Connection, data: bytes) -> bool:
        if connection.received >= self.after:
            connection.cut(self.how)
            return True
        return False


@dataclass(frozen=True, slots=True)
class Deaf(ConnectionFault):
    """Stop reading when so many bytes were read, so that the client's own sending has to wait."""

    after: int = 0

    def opened(self, connection: Connection) -> None:
        if self.after == 0:
            connection.transport.pause_reading()

    def received(self, connection: Connection, data: bytes) -> bool:
        if connection.received >= self.after:
            connection.transport.pause_reading()
            return True
        return False


@dataclass(frozen=True, slots=True)
class Babble(ConnectionFault):
    """Answer the first bytes with these, whatever they asked; then say nothing, or end."""

    data: bytes = field(default=b"SSH-2.0-OpenSSH_9.6\r\n")
    close: bool = False

    def received(self, connection: Connection, data: bytes) -> bool:
        if connection.received == len(data):
            connection.transport.write(self.data)
            if self.close:
                connection.cut("close")
        return True


@dataclass(frozen=True, slots=True)
class EndlessHeaders(ConnectionFault):
    """Answer the first request with headers without end, as fast as they are taken."""

    def received(self, connection: Connection, data: bytes) -> bool:
        return connection.drown(data)
