"""The http door: an ASGI application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

import msgspec

from casdk.server.access import Access
from casdk.server.dispatch import SMALL, Dispatcher
from casdk.server.json_form import FormError, read_request, status_form, write_reply
from casdk.server.status import info

__all__ = ["Message", "Receive", "Scope", "Send", "WebApp", "respond"]

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


class _RefusalError(Exception):
    """Answered instead of a reply."""

    def __init__(self, status: int, detail: object) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


class WebApp:
    """Serves jina's http gateway.

    Args:
        dispatcher: What answers.
        access: Who may ask; ``GET /`` is open.
        max_message: Largest body taken, in bytes.
    """

    def __init__(self, dispatcher: Dispatcher, access: Access, max_message: int) -> None:
        self._dispatcher = dispatcher
        self._access = access
        self._max_message = max_message

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one exchange."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        try:
            body = await self._answer(scope, receive)
        except _RefusalError as refusal:
            await respond(send, refusal.status, msgspec.json.encode({"detail": refusal.detail}))
        else:
            await respond(send, 200, body)

    async def _answer(self, scope: Scope, receive: Receive) -> bytes:
        method, path = scope["method"], scope["path"]
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if path != "/" and not self._access.allows(headers.get(b"authorization")):
            raise _RefusalError(401, "the authorization is missing or wrong")
        if self._access.from_elsewhere(headers):
            raise _RefusalError(403, "pages of other sites may not ask a server without a token")
        if method == "GET" and path in LOOKS:
            return await self._look(path)
        if (method, path) not in ENDPOINTS:
            known = path in LOOKS or any(path == of for _, of in ENDPOINTS)
            raise _RefusalError(405, "Method Not Allowed") if known else _RefusalError(404, "Not Found")
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise _RefusalError(400, "a compressed body is not taken")
        body = await self._read(headers, receive)
        return await self._post(body, ENDPOINTS[method, path])

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
        too_large = _RefusalError(413, f"the body exceeds the limit of {self._max_message} bytes")
        if int(headers.get(b"content-length", b"0")) > self._max_message:
            raise too_large
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _RefusalError(400, "the body ended early")
            body += message.get("body", b"")
            if len(body) > self._max_message:
                raise too_large
            if not message.get("more_body"):
                return bytes(body)

    async def _post(self, body: bytes, endpoint: str | None) -> bytes:
        large = len(body) >= SMALL
        try:
            request = await self._dispatcher.off_loop(lambda: read_request(body, endpoint), large)
        except FormError as error:
            raise _RefusalError(422, [error.detail]) from None
        reply = await self._dispatcher.answer(request)
        large = large or reply.ByteSize() >= SMALL
        return await self._dispatcher.off_loop(lambda: write_reply(reply, camel=True), large)


async def respond(send: Send, status: int, body: bytes, kind: str = "http.response") -> None:
    """Send one JSON response; ``kind`` is that of a websocket handshake where one is refused."""
    headers = [(b"content-type", JSON), (b"content-length", b"%d" % len(body))]
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


def _openapi() -> dict[str, object]:
    """Return the little that clients of jina look up here: which paths take a POST."""
    answers = {"responses": {"200": {"description": "Successful Response"}}}
    paths: dict[str, dict[str, object]] = {path: {"get": answers} for path in LOOKS[:3]}
    paths |= {path: {method.lower(): answers} for method, path in ENDPOINTS}
    version = info()["jina"]["casdk"]
    return {"openapi": "3.1.0", "info": {"title": "casdk.server", "version": version}, "paths": paths}
