"""The websocket port: jina's websocket gateway as an ASGI application, which uvicorn calls for each connection.

It checks access, reads frames, lets the `Dispatcher` answer them in parallel and writes the replies as they are done.
"""

from __future__ import annotations

import asyncio
import uuid

from google.protobuf.message import DecodeError

from casdk._rust import request_id_of
from casdk.errors import ReplyError
from casdk.server.access import Access
from casdk.server.answers import failure
from casdk.server.dispatch import Dispatcher
from casdk.server.forms import BINARY, SNAKE
from casdk.server.memory import BusyError, TooLargeError
from casdk.server.web import Message, Receive, Scope, Send, respond
from casdk.wire.jina_pb2 import DataRequestProto
from casdk.wire.json_form import FormError, TooDeepError

__all__ = ["SocketApp"]

MOST_IN_FLIGHT = 128
"""Requests of one connection that are worked on at once; the next one is read when one is answered."""
END = b"\x00"
"""The message with which a client says that it sends no more."""
DONE, GOING_AWAY, INVALID, FAILED = 1000, 1001, 1007, 1011
"""Close codes."""
REASON_BYTES = 123
"""Length of the reason in a close frame."""


class SocketApp:
    """Serves jina's websocket gateway: binary frames are protobuf, text frames JSON.

    Args:
        dispatcher: Answers the messages.
        access: Decides who may connect.
        closing: Set when the server drains: connections finish what they have read and are closed.
    """

    def __init__(self, dispatcher: Dispatcher, access: Access, closing: asyncio.Event) -> None:
        self._dispatcher = dispatcher
        self._access = access
        self._closing = closing
        self._open: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            healthy = scope["path"] == "/" and scope["method"] == "GET"
            await respond(send, 200 if healthy else 404, b"{}" if healthy else b'{"detail":"Not Found"}')
            return
        await receive()
        if refusal := self._refusal(scope):
            status, words = refusal
            await respond(send, status, words.encode(), "websocket.http.response")
            return
        await send({"type": "websocket.accept"})
        serving = asyncio.ensure_future(self._serve(scope, receive, send))
        self._open.add(serving)
        serving.add_done_callback(self._open.discard)
        await serving

    async def drained(self) -> None:
        """Return when every connection is closed."""
        while self._open:
            await asyncio.wait(self._open)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        if refusal := self._access.refusal(scope["headers"]):
            return refusal
        if scope["path"] not in ("/", "/dry_run"):
            return 404, "Not Found"
        return (503, "the server is shutting down") if self._closing.is_set() else None

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/dry_run":
            ready = await self._dispatcher.dry_run()
            await send({"type": "websocket.send", "bytes": ready.SerializeToString()})
            await send({"type": "websocket.close", "code": DONE})
        else:
            await _Connection(self._dispatcher, receive, send).run(self._closing)


class _InvalidError(Exception):
    """The client sent a message that is no request."""


class _Connection:
    """One connection, whose requests are answered in parallel."""

    def __init__(self, dispatcher: Dispatcher, receive: Receive, send: Send) -> None:
        self._dispatcher = dispatcher
        self._receive = receive
        self._send = send
        self._window = asyncio.Semaphore(MOST_IN_FLIGHT)
        self._writing = asyncio.Lock()

    async def run(self, closing: asyncio.Event) -> None:
        """Answer until the client ends or leaves, or the server closes; then close."""
        code, reason, gone = FAILED, "", False
        try:
            code, reason = await self._answer_all(closing)
        except* _InvalidError as group:
            code, reason = INVALID, str(group.exceptions[0])
        except* _GoneError:
            gone = True
        if not gone:
            await self._send({"type": "websocket.close", "code": code, "reason": _cut(reason)})

    async def _answer_all(self, closing: asyncio.Event) -> tuple[int, str]:
        stop = asyncio.ensure_future(closing.wait())
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._window.acquire()
                    reading = asyncio.ensure_future(self._receive())
                    await asyncio.wait((reading, stop), return_when=asyncio.FIRST_COMPLETED)
                    if not reading.done():
                        reading.cancel()
                        return GOING_AWAY, "the server is shutting down"
                    message = reading.result()
                    if message["type"] == "websocket.disconnect":
                        raise _GoneError
                    if _ends(message):
                        return DONE, ""
                    group.create_task(self._reply(message))
        finally:
            stop.cancel()

    async def _reply(self, message: Message) -> None:
        """Answer one request; an error of the request is a reply with the request's id, if it has one."""
        text = message.get("text")
        content, form = (message["bytes"], BINARY) if text is None else (text.encode(), SNAKE)
        try:
            async with self._dispatcher.replying(content, form) as reply:
                await self._write(b"".join(reply), text=text is not None)
        except (DecodeError, FormError, TooLargeError, BusyError) as error:
            refusal = DataRequestProto()
            refusal.header.request_id = _request_id(content, error, binary=text is None)
            refusal.header.status.CopyFrom(failure(error, "gateway"))
            await self._write(b"".join(form.write(refusal)), text=text is not None)
        except OSError as error:
            raise _GoneError from error
        finally:
            self._window.release()

    async def _write(self, reply: bytes, *, text: bool) -> None:
        message: Message = {"type": "websocket.send"}
        if text:
            message["text"] = reply.decode()
        else:
            message["bytes"] = reply
        async with self._writing:
            await self._send(message)


def _request_id(message: bytes, error: Exception, *, binary: bool) -> str:
    """Return the id for a refusal of a message.

    Raises:
        _InvalidError: The message is no request.
    """
    if binary:
        try:
            return request_id_of(message)
        except ReplyError:
            if not isinstance(error, DecodeError):
                return ""
            raise _InvalidError(f"the frame is no DataRequestProto: {error}") from None
    if isinstance(error, FormError) and not isinstance(error, TooDeepError):
        raise _InvalidError(f"{'.'.join(map(str, error.place))}: {error}")
    return uuid.uuid4().hex


class _GoneError(Exception):
    """The client left, so the open requests are cancelled."""


def _ends(message: Message) -> bool:
    text = message.get("text")
    return message.get("bytes") == END if text is None else text.strip() == "{}"


def _cut(reason: str) -> str:
    return reason.encode()[:REASON_BYTES].decode(errors="ignore")
