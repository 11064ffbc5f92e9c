"""The http port: jina's http gateway as an ASGI application, which uvicorn calls for each request.

It checks access, reads the body within its limits, lets the `Dispatcher` answer it and writes JSON.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, TypeAlias

import msgspec

from casdk.server.access import Access
from casdk.server.dispatch import Dispatcher
from casdk.server.forms import json_form
from casdk.server.listeners import send_seconds
from casdk.server.memory import BusyError, Pressure, TooLargeError
from casdk.server.status import info
from casdk.wire.json_form import FormError, status_form

__all__ = ["Message", "Receive", "Scope", "Send", "WebApp", "respond"]

logger: logging.Logger = logging.getLogger(__name__)

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

ENDPOINTS: Mapping[tuple[str, str], str | None] = {
    ("POST", "/post"): None,
    ("POST", "/index"): "/index",
    ("POST", "/search"): "/search",
    ("DELETE", "/delete"): "/delete",
    ("PUT", "/update"): "/update",
}
"""Executor endpoint of each path; ``None`` lets the body say it."""
LOOKS = ("/", "/dry_run", "/status", "/openapi.json")
JSON = b"application/json"
FORMS = {path: json_form(endpoint, camel=True) for (_, path), endpoint in ENDPOINTS.items()}
READ_SECONDS = 30.0
"""Time limit for the next piece of a body."""
PIECE_BYTES = 1 << 18
"""Bytes of a reply that are sent at a time; the next piece waits until the client has read nearly all of this one."""
BUSY = 429
"""Status for a server without memory; unlike 503 it says that the request was not begun."""
LATER_SECONDS = 1
"""The Retry-After of a refusal."""


class _RefusalError(Exception):
    """Raised to answer with a status and a detail instead of a reply."""

    def __init__(self, status: int, detail: object) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


class WebApp:
    """Serves jina's http gateway.

    Args:
        dispatcher: Answers the messages.
        access: Decides who may send requests; ``GET /`` needs no token.
        max_message: Largest body taken, in bytes.
        pressure: While it is high, no body is read.
    """

    def __init__(self, dispatcher: Dispatcher, access: Access, max_message: int, pressure: Pressure) -> None:
        self._dispatcher = dispatcher
        self._access = access
        self._max_message = max_message
        self._pressure = pressure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one exchange."""
        try:
            await self._answer(scope, receive, send)
        except _RefusalError as refusal:
            headers = [(b"retry-after", b"%d" % LATER_SECONDS)] if refusal.status == BUSY else []
            await respond(send, refusal.status, msgspec.json.encode({"detail": refusal.detail}), headers=headers)
        except TimeoutError:  # the client does not read the reply; uvicorn closes the connection
            pass
        except Exception:
            logger.exception("a request failed that should have been answered")
            raise

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path, headers = scope["method"], scope["path"], scope["headers"]
        if refusal := self._access.refusal(headers, open_to_all=path == "/"):
            raise _RefusalError(*refusal)
        if method == "GET" and path in LOOKS:
            await respond(send, 200, await self._look(path))
            return
        if (method, path) not in ENDPOINTS:
            known = path in LOOKS or path in FORMS
            raise _RefusalError(405, "Method Not Allowed") if known else _RefusalError(404, "Not Found")
        body = await self._read(dict(headers), receive)
        try:
            async with self._dispatcher.replying(body, FORMS[path]) as reply:
                size = sum(map(len, reply))
                async with asyncio.timeout(send_seconds(size)):
                    await _send(send, reply, size)
        except FormError as error:
            raise _RefusalError(422, [error.detail]) from None
        except TooLargeError as error:
            raise _RefusalError(413, str(error)) from None
        except BusyError as error:
            raise _RefusalError(BUSY, str(error)) from None

    async def _look(self, path: str) -> bytes:
        match path:
            case "/dry_run":
                return msgspec.json.encode(status_form(await self._dispatcher.dry_run()))
            case "/status":
                return msgspec.json.encode(info())
            case "/openapi.json":
                return msgspec.json.encode(_openapi())
        return b"{}"

    async def _read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            raise _RefusalError(400, "a compressed body is not taken")
        if int(headers.get(b"content-length", b"0")) > self._max_message:
            raise self._too_large()
        body = bytearray()
        while True:
            try:
                async with asyncio.timeout(READ_SECONDS):
                    message = await receive()
            except TimeoutError:
                raise _RefusalError(408, f"nothing more of the body came in {READ_SECONDS:g} s") from None
            if message["type"] == "http.disconnect":
                raise _RefusalError(400, "the body ended early")
            body += message.get("body", b"")
            if len(body) > self._max_message:
                raise self._too_large()
            if self._pressure.high.is_set():
                raise _RefusalError(BUSY, "the server has no memory for this now")
            if not message.get("more_body"):
                return bytes(body)

    def _too_large(self) -> _RefusalError:
        return _RefusalError(413, f"the body exceeds the limit of {self._max_message} bytes")


async def _send(send: Send, reply: Sequence[bytes], size: int) -> None:
    """Send a reply piece by piece; each piece waits until the client has read nearly all of the one before."""
    headers = [(b"content-type", JSON), (b"content-length", b"%d" % size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for piece in reply:
        for start in range(0, len(piece), PIECE_BYTES):
            await send({"type": "http.response.body", "body": piece[start : start + PIECE_BYTES], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def respond(
    send: Send, status: int, body: bytes, kind: str = "http.response", headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Send one JSON response; ``kind`` is that of a websocket handshake where one is refused."""
    whole = [(b"content-type", JSON), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": f"{kind}.start", "status": status, "headers": whole})
    await send({"type": f"{kind}.body", "body": body})


def _openapi() -> dict[str, object]:
    """Return the part of the OpenAPI document that jina's clients read: which paths accept a POST."""
    answers = {"responses": {"200": {"description": "Successful Response"}}}
    paths: dict[str, dict[str, object]] = {path: {"get": answers} for path in LOOKS[:3]}
    paths |= {path: {method.lower(): answers} for method, path in ENDPOINTS}
    version = info()["jina"]["casdk"]
    return {"openapi": "3.1.0", "info": {"title": "casdk.server", "version": version}, "paths": paths}
