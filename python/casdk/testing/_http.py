"""The HTTP/1.1 connections of the fault server, on the sans-I/O library h11."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Final

import h11

from casdk.testing._connection import Connection, Exchange, Family
from casdk.testing.faults import Page, Refuse
from casdk.testing.scripts import Request
from casdk.wire import jina_pb2
from casdk.wire.json_form import read_request, write_reply

__all__ = ["HttpConnection"]

PATHS: Final = {"/post": None, "/index": "/index", "/search": "/search"}
"""The executor endpoint of each path; ``None`` if the body names it. jina's gateway has the same paths."""
DRY_RUN: Final = "/dry_run"


class HttpConnection(Connection):
    """One HTTP/1.1 connection, which answers one request after the other."""

    family: ClassVar[Family] = "http"
    alpn: ClassVar[list[str]] = ["http/1.1"]

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.h11 = h11.Connection(h11.SERVER)
        self._head: h11.Request | None = None
        self._body = bytearray()
        self._busy = False

    def take(self, data: bytes) -> None:
        self.h11.receive_data(data)
        self._go_on()

    def eof_received(self) -> None:
        self.h11.receive_data(b"")

    def _go_on(self) -> None:
        while not self._busy:
            try:
                event = self.h11.next_event()
            except h11.RemoteProtocolError as error:
                body = str(error).encode()
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                self.cut("close")
                return
            if isinstance(event, h11.Request):
                self._head, self._body = event, bytearray()
                if self.h11.they_are_waiting_for_100_continue:
                    go = h11.InformationalResponse(status_code=100, headers=[])
                    self.transport.write(self.h11.send(go) or b"")
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._busy = True
                self.spawn(self._answer())
            else:
                return

    async def _answer(self) -> None:
        assert self._head is not None
        head = {bytes(name).decode(): bytes(value).decode("latin-1") for name, value in self._head.headers}
        target = bytes(self._head.target).decode()
        path = "/" + target.split("://", 1)[1].partition("/")[2] if "://" in target else target
        if (self._head.method, path) == (b"GET", DRY_RUN) and self.server.unready is not None:
            status = self.server.dry_run()
            await self.send(200, json.dumps({"code": status.code, "description": status.description}).encode())
        elif path not in PATHS or self._head.method != b"POST":
            await self.send(404, b'{"detail":"Not Found"}')
        else:
            try:
                message = read_request(bytes(self._body), keep_id=True)
            except Exception as error:  # the client gets an answer, whatever was wrong with the body
                await self.send(
                    422, json.dumps({"detail": [{"type": type(error).__name__, "msg": str(error)}]}).encode()
                )
            else:
                message.header.exec_endpoint = PATHS[path] or message.header.exec_endpoint
                request, plan = self.server.arrived(self, message, head, len(self._body))
                await HttpExchange(self, message, request).respond(plan)
        self._next()

    def _next(self) -> None:
        self._busy = False
        if self.h11.our_state is h11.DONE and self.h11.their_state is h11.DONE:
            self.h11.start_next_cycle()
            self._go_on()
        elif self.h11.our_state in (h11.MUST_CLOSE, h11.CLOSED):
            self.cut("close")

    async def send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, kind: str = "application/json"
    ) -> None:
        """Send a whole response."""
        await self.send_head(status, len(body), {"content-type": kind, **(headers or {})})
        await self.flush(self.h11.send(h11.Data(data=body)) or b"")
        await self.flush(self.h11.send(h11.EndOfMessage()) or b"")

    async def send_head(self, status: int, size: int, headers: dict[str, str]) -> None:
        """Send the head of a response."""
        named = {**headers, "content-length": str(size)}
        lines = [(name.encode(), value.encode("latin-1")) for name, value in named.items()]
        await self.flush(self.h11.send(h11.Response(status_code=status, headers=lines)) or b"")

    def send_endless_headers(self, data: bytes) -> bool:
        if self.received == len(data):
            self.spawn(self.write_endlessly(b"HTTP/1.1 200 OK\r\n", b"x-pad: " + b"y" * 1000 + b"\r\n"))
        return True


class HttpExchange(Exchange):
    """One request and its response."""

    def __init__(self, connection: HttpConnection, message: jina_pb2.DataRequestProto, request: Request) -> None:
        super().__init__(connection, message, request)
        self._http = connection
        self._begun = False

    def encode(self, reply: jina_pb2.DataRequestProto) -> bytes:
        # Python writes NaN, which is not valid JSON; a careless server sends it all the same.
        return b"".join(write_reply(reply, camel=True, encode=lambda form: json.dumps(form).encode()))

    async def begin(self, size: int) -> None:
        if self._begun:
            # h11 refuses to write a second response to one request, so it is written without h11.
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % size
            await self._http.flush(head)
            return
        self._begun = True
        self._size = size
        await self._http.send_head(200, size, {"content-type": "application/json"})

    async def write(self, data: bytes) -> None:
        if self._size < 0:
            await self._http.flush(data)
            return
        self._size -= len(data)
        await self._http.flush(self._http.h11.send(h11.Data(data=data)) or b"")
        if self._size == 0:
            self._size = -1

    async def end(self) -> None:
        await self._http.flush(self._http.h11.send(h11.EndOfMessage()) or b"")

    async def refuse(self, refusal: Refuse) -> None:
        headers = {}
        if (asked := refusal.retry_after) is not None:
            headers["retry-after"] = asked if isinstance(asked, str) else f"{asked:g}"
        await self._http.send(refusal.http, json.dumps({"detail": refusal.message}).encode(), headers)

    async def abandon(self, payload: bytes, refusal: Refuse) -> None:
        await self._http.send(refusal.http, payload)

    async def send_page(self, page: Page) -> None:
        await self._http.send(page.status, page.html.encode(), kind="text/html")

    async def send_text(self, text: str) -> None:
        await self._http.send(200, text.encode(), kind="text/html")
