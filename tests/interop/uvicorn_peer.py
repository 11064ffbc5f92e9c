"""uvicorn with an application that answers as jina's gateway does: JSON over http, protobuf over websocket."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from typing import Any, Self

import uvicorn
from casdk.wire.jina_pb2 import DataRequestProto
from deterministic import SLEEPS, WIDTH, rows

PIECE_BYTES = 5000
"""Of a reply over http, so that it is sent in many pieces."""


class App:
    """Answers texts with the rows of `deterministic`.

    Attributes:
        closes: Whether the reply over http says that the connection ends with it.
        connections: Client's address of each request.
    """

    def __init__(self) -> None:
        self.closes = False
        self.connections: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.connections.append(scope["client"])
        if scope["type"] == "websocket":
            await _speak(receive, send)
        elif (scope["method"], scope["path"]) == ("POST", "/post"):
            await self._post(receive, send)
        else:
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body"})

    async def _post(self, receive: Any, send: Any) -> None:
        pieces, more = [], True
        while more:
            message = await receive()
            pieces.append(message["body"])
            more = message["more_body"]
        request = json.loads(b"".join(pieces))
        for document in request["data"]:
            document["embedding"] = (await _row(document["text"])).tolist()
        header = {"requestId": "none", "status": None, "execEndpoint": request["exec_endpoint"], "targetExecutor": ""}
        reply = json.dumps({"header": header, "parameters": {}, "routes": [], "data": request["data"]}).encode()
        headers = [(b"content-type", b"application/json"), *([(b"connection", b"close")] if self.closes else [])]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, len(reply), PIECE_BYTES):
            piece = reply[start : start + PIECE_BYTES]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _speak(receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept", "subprotocol": "bytes"})
    while (message := await receive())["type"] == "websocket.receive":
        if len(message["bytes"]) == 1:  # the end of the client's input
            continue
        reply = DataRequestProto.FromString(message["bytes"])
        for document in reply.data.docs.docs:
            dense = document.embedding.dense
            dense.buffer, dense.dtype = (await _row(document.text)).tobytes(), "<f4"
            dense.shape.append(WIDTH)
        reply.header.status.SetInParent()
        await send({"type": "websocket.send", "bytes": reply.SerializeToString()})


async def _row(text: str) -> Any:
    if text.startswith(SLEEPS):
        await asyncio.sleep(float(text.removeprefix(SLEEPS).split()[0]))
    return rows([text.encode()])[0]


class Uvicorn:
    """uvicorn, in a thread of its own.

    Args:
        options: Those of `uvicorn.Config`.

    Attributes:
        app: What it serves.
    """

    def __init__(self, **options: Any) -> None:
        self.app = App()
        self._listener = socket.create_server(("127.0.0.1", 0))  # who connects before it serves has to wait, no more
        self._server = uvicorn.Server(
            uvicorn.Config(self.app, lifespan="off", log_level="error", timeout_graceful_shutdown=1, **options)
        )
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.run(self._server.serve([self._listener]))

    def address(self, scheme: str) -> str:
        """Return the address of a scheme."""
        return f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()
