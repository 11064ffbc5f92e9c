"""Faults of a request, as values for the ``script`` of a `FaultServer`.

A `Fault` happens to one request, a `ConnectionFault` to one connection::

    FaultServer(script=[Refuse.unavailable(), None, Delay(0.2)])         # first, second, third request; then none
    FaultServer(script=lambda request: Cut() if request.number % 7 == 0 else None)
    FaultServer(connections=[Silent()])                                  # the first connection only

A tuple has several faults of one request; each acts at its step of the request.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from casdk.testing.connections import Manner
from casdk.testing.executor import embed, fail
from casdk.testing.scripts import AnsweredError, Fault, Gate
from casdk.wire import jina_pb2
from casdk.wire.docarray_pb2 import DocumentArrayProto, DocumentProto
from casdk.wire.layers import wrap
from casdk.wire.values import array_of, put_array

if TYPE_CHECKING:
    from casdk.testing._connection import Exchange

__all__ = [
    "AddDocument",
    "Cut",
    "DeadExecutor",
    "DeepNesting",
    "Delay",
    "DropDocument",
    "Duplicate",
    "EntityTooLarge",
    "ExecutorError",
    "Garbage",
    "Hold",
    "HugeLength",
    "Never",
    "NoEmbedding",
    "NotFinite",
    "Page",
    "Refuse",
    "Reorder",
    "Stale",
    "Stall",
    "TextReply",
    "Trickle",
    "Truncate",
    "Width",
    "WrongId",
]


# faults of when a reply is sent


@dataclass(frozen=True, slots=True)
class Delay(Fault):
    """Answer a number of seconds late."""

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
    """Wait at a `Gate` until the test opens it."""

    gate: Gate

    async def wait(self, exchange: Exchange) -> None:
        await self.gate.arrive()


@dataclass(frozen=True, slots=True)
class Reorder(Fault):
    """Gather so many replies, over all connections, and send them in reverse order.

    If no other one comes within 50 ms, the gathered ones are sent.
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
        if pen and not (following := pen.pop()).done():
            following.set_result(None)
        return True


# faults of the connection


@dataclass(frozen=True, slots=True)
class Cut(Fault):
    """End the connection.

    Attributes:
        at: ``"before"`` or ``"after"`` the request is executed, or in the ``"middle"`` of the reply's bytes.
        how: By FIN, by RST, or by FIN in the server's direction only.
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
    """Send a part of the reply, from 0 to 1, and then nothing more."""

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
        seconds: Seconds between two pieces.
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


# refusals


@dataclass(frozen=True, slots=True)
class Refuse(Fault):
    """Refuse the request without executing it, with a status of its protocol.

    Attributes:
        grpc: gRPC's status code, a number.
        http: HTTP's status code.
        close: Close code of the websocket.
        message: The message of the refusal.
        retry_after: Seconds for HTTP's ``Retry-After`` and gRPC's ``grpc-retry-pushback-ms``; a str is sent as it is,
            for gRPC as milliseconds.
    """

    grpc: int = 14
    http: int = 503
    close: int = 1011
    message: str = "refused by the script"
    retry_after: float | str | None = None

    async def wait(self, exchange: Exchange) -> None:
        await exchange.refuse(self)
        raise AnsweredError

    @classmethod
    def unavailable(cls, retry_after: float | str | None = None) -> Refuse:
        """UNAVAILABLE, 503, 1012."""
        return cls(14, 503, 1012, "going away", retry_after)

    @classmethod
    def overloaded(cls, retry_after: float | str | None = None) -> Refuse:
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
        """INTERNAL, 500, 1002: errors after which sending again is useless."""
        return cls(13, 500, 1002, "internal error")


@dataclass(frozen=True, slots=True)
class DeadExecutor(Fault):
    """Answer as jina's gateway does when the process of its executor is gone.

    gRPC: an empty reply with status SUCCESS, then UNAVAILABLE; http: 503 with the status in the body;
    websocket: close 1011.
    """

    async def wait(self, exchange: Exchange) -> None:
        message = "failed to connect to all addresses |Gateway: Communication error with deployment clip"
        empty = jina_pb2.DataRequestProto()
        empty.header.request_id = exchange.message.header.request_id
        if exchange.family == "http":
            empty.CopyFrom(exchange.message)
            fail(empty, ConnectionError(message), "<class 'jina.excepts.InternalNetworkError'>")
        await exchange.abandon(exchange.encode(empty), Refuse(14, 503, 1011, message))
        raise AnsweredError


@dataclass(frozen=True, slots=True)
class ExecutorError(Fault):
    """Let the executor raise: the reply has the documents as they were sent, and the exception as its status."""

    name: str = "RuntimeError"
    description: str = "out of memory"

    def change(self, reply: jina_pb2.DataRequestProto, exchange: Exchange) -> None:
        reply.data.CopyFrom(exchange.message.data)
        fail(reply, RuntimeError(self.description), self.name)


@dataclass(frozen=True, slots=True)
class EntityTooLarge(Fault):
    """Refuse requests of more bytes than a limit, without executing them.

    Attributes:
        limit: The most bytes of a message; by default that of nginx.
        by: ``"proxy"`` answers as nginx does, with HTTP 413 and a page; ``"server"`` with gRPC's RESOURCE_EXHAUSTED.
            A websocket is closed with 1009 in both cases, and with all other requests that are in flight on it.
    """

    limit: int = 2**20
    by: Literal["proxy", "server"] = "proxy"

    async def wait(self, exchange: Exchange) -> None:
        size = exchange.request.nbytes
        if size <= self.limit:
            return
        if self.by == "proxy" or exchange.family != "grpc":
            await Page(413, "Request Entity Too Large", close=1009).wait(exchange)
        message = f"SERVER: Received message larger than max ({size} vs. {self.limit})"
        await exchange.refuse(Refuse(8, message=message))
        raise AnsweredError


@dataclass(frozen=True, slots=True)
class Page(Fault):
    """Answer with a page of HTML, as nginx and captive portals do.

    Attributes:
        status: HTTP status, on http and gRPC.
        title: The title of the page.
        close: Close code of the websocket, with the beginning of the page as its reason.
    """

    status: int = 502
    title: str = "Bad Gateway"
    close: int = 1011

    @property
    def html(self) -> str:
        """The page."""
        shown = f"{self.status} {self.title}"
        return (
            f"<html>\r\n<head><title>{shown}</title></head>\r\n<body>\r\n<center><h1>{shown}</h1></center>\r\n"
            "<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n"
        )

    async def wait(self, exchange: Exchange) -> None:
        await exchange.send_page(self)
        raise AnsweredError


# faults in the reply


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
class Stale(Fault):
    """Answer with the reply to the previous request of the connection; its first request gets its own reply."""

    def change(self, reply: jina_pb2.DataRequestProto, exchange: Exchange) -> None:
        own = jina_pb2.DataRequestProto()
        own.CopyFrom(reply)
        if exchange.connection.last_reply is not None:
            reply.CopyFrom(exchange.connection.last_reply)
        exchange.connection.last_reply = own


@dataclass(frozen=True, slots=True)
class WrongId(Fault):
    """Answer with an id that no request has."""

    id: str = "0" * 32

    def change(self, reply: jina_pb2.DataRequestProto, exchange: Exchange) -> None:
        reply.header.request_id = self.id


@dataclass(frozen=True, slots=True)
class AddDocument(Fault):
    """Send documents that were not requested, behind the others."""

    count: int = 1

    def change(self, reply: jina_pb2.DataRequestProto, exchange: Exchange) -> None:
        widths = (len(array_of(one.embedding)) for one in reply.data.docs.docs if one.HasField("embedding"))
        width = next(widths, 512)
        for number in range(self.count):
            document = reply.data.docs.docs.add(id=f"{number:032x}", text="uninvited")
            put_array(document.embedding, embed("uninvited", width))


@dataclass(frozen=True, slots=True)
class DropDocument(Fault):
    """Leave out the document at a position.

    Attributes:
        position: Position of the document; counted from the end if negative.
        rename: Also remove the ids of the other documents, so that nothing shows which one is missing.
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
    """Leave out the embedding of the document at a position."""

    position: int = 0

    def change(self, reply: jina_pb2.DataRequestProto, exchange: Exchange) -> None:
        for document in list(reply.data.docs.docs)[self.position : self.position + 1]:
            document.ClearField("embedding")


@dataclass(frozen=True, slots=True)
class Width(Fault):
    """Send embeddings of another width.

    Attributes:
        width: Numbers in a row.
        position: Position of the only document that is changed; ``None`` for all.
    """

    width: int
    position: int | None = None

    def change(self, reply: jina_pb2.DataRequestProto, exchange: Exchange) -> None:
        for position, document in enumerate(reply.data.docs.docs):
            if self.position in (None, position):
                put_array(document.embedding, embed(document.text, self.width))


@dataclass(frozen=True, slots=True)
class NotFinite(Fault):
    """Put NaN or infinity into the embedding at a position."""

    position: int = 0
    value: float = float("nan")

    def change(self, reply: jina_pb2.DataRequestProto, exchange: Exchange) -> None:
        for document in list(reply.data.docs.docs)[self.position : self.position + 1]:
            row = array_of(document.embedding).astype(np.float32)
            row[len(row) // 2] = self.value
            put_array(document.embedding, row)


@dataclass(frozen=True, slots=True)
class DeepNesting(Fault):
    """Nest the reply's first document so many levels deep.

    The levels are written one by one, since google's protobuf refuses to write or read more than 100 at a time.
    """

    depth: int = 10_000

    def corrupt(self, payload: bytes, exchange: Exchange) -> bytes:
        if exchange.family == "http":
            nest = b'{"chunks":[' * self.depth + b"{}" + b"]}" * self.depth
            return b'{"header":{"requestId":"0"},"data":[' + nest + b"]}"
        document = b""
        for _ in range(self.depth):
            document = wrap(DocumentProto, "chunks", document)
        header = jina_pb2.DataRequestProto()
        header.header.request_id = exchange.message.header.request_id
        documents = wrap(DocumentArrayProto, "docs", document)
        data = wrap(jina_pb2.DataRequestProto.DataContentProto, "docs", documents)
        return header.SerializeToString() + wrap(jina_pb2.DataRequestProto, "data", data)


@dataclass(frozen=True, slots=True)
class Truncate(Fault):
    """Send only a part of the message, from 0 to 1, in correct framing."""

    share: float = 0.5

    def corrupt(self, payload: bytes, exchange: Exchange) -> bytes:
        return payload[: int(len(payload) * self.share)]


@dataclass(frozen=True, slots=True)
class Garbage(Fault):
    """Send other bytes instead of the reply, in correct framing."""

    data: bytes = bytes(range(255, -1, -1)) * 4

    def corrupt(self, payload: bytes, exchange: Exchange) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class HugeLength(Fault):
    """Announce a reply of so many bytes, 4 GB by default, send a few of them and then nothing."""

    size: int = 2**32 - 1

    async def deliver(self, exchange: Exchange, payload: bytes) -> bool:
        async with exchange.turn():
            await exchange.begin(self.size)
            await exchange.write(payload[:1000])
            await exchange.forever()
        return True


@dataclass(frozen=True, slots=True)
class TextReply(Fault):
    """Send text instead of the message: a text frame, or a page of ``text/html``."""

    text: str = "<html><body>hello</body></html>"

    async def deliver(self, exchange: Exchange, payload: bytes) -> bool:
        async with exchange.turn():
            await exchange.send_text(self.text)
        return True
