"""Clients of a server without casdk's client: raw grpcio, httpx and websockets, with google protobuf."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import select
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from casdk.server import Served
from casdk.wire.docarray_pb2 import DocumentProto
from casdk.wire.jina_pb2 import DataRequestProto
from google.protobuf.json_format import MessageToDict
from PIL import Image
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosedOK

SINGLE = "/jina.JinaSingleDataRequestRPC/process_single_data"
STREAM = "/jina.JinaRPC/Call"
WAIT = 60


def document(form: dict[str, Any]) -> DocumentProto:
    """Return the message of a document given as keywords; nested ones are lists of such."""
    nested = {key: [document(inner) for inner in form[key]] for key in ("chunks", "matches") if key in form}
    return DocumentProto(**(form | nested))


def request(endpoint: str, *forms: dict[str, Any], request_id: str = "r", **parameters: Any) -> DataRequestProto:
    """Return the message of a request."""
    made = DataRequestProto()
    made.header.request_id = request_id
    made.header.exec_endpoint = endpoint
    made.parameters.update(parameters)
    made.data.docs.docs.extend(document(form) for form in forms)
    return made


def row(made: DocumentProto) -> np.ndarray:
    """Return a document's embedding."""
    assert made.embedding.dense.dtype == "<f4"
    assert made.embedding.cls_name == "numpy"
    return np.frombuffer(made.embedding.dense.buffer, "<f4").reshape(tuple(made.embedding.dense.shape))


def authority(address: str) -> str:
    """Return ``host:port`` of an address."""
    return address.split("://")[1]


def channel(served: Served, scheme: str = "grpc") -> grpc.Channel:
    """Open a grpc channel."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    target = authority(served.address(scheme))
    if scheme == "grpc":
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(served.ca.read_bytes()), options)


def single(channel: grpc.Channel, message: DataRequestProto, **options: Any) -> DataRequestProto:
    """Return the reply to one request over grpc."""
    call = channel.unary_unary(SINGLE, DataRequestProto.SerializeToString, DataRequestProto.FromString)
    return call(message, **{"timeout": WAIT} | options)


def png(width: int, height: int) -> bytes:
    """Return a black image."""
    out = io.BytesIO()
    Image.new("1", (width, height)).save(out, "PNG")
    return out.getvalue()


def ended(pid: int) -> bool:
    """Wait until a process of any parent is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], WAIT)[0])
    finally:
        os.close(descriptor)


def trust(served: Served) -> ssl.SSLContext:
    """Return a context that trusts the server's certificate and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(served.ca)
    return context


class Socket:
    """A websocket for tests that have no loop.

    The library's own one for threads reads and writes one TLS object from two threads. CPython 3.11 does not guard that
    object, so a message that is sent may never arrive.
    """

    def __init__(self, uri: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        try:
            self._connection = self._runner.run(_opened(uri, options))
        except BaseException:
            self._runner.close()
            raise

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *error: object) -> None:
        with self._runner:
            self._runner.run(self._connection.close())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def __iter__(self) -> Iterator[str | bytes]:
        while True:
            try:
                frame = self.recv(WAIT)
            except ConnectionClosedOK:
                return
            yield frame

    def send(self, frame: str | bytes) -> None:
        """Send a frame."""
        self._runner.run(self._connection.send(frame))

    def recv(self, timeout: float) -> str | bytes:
        """Return the next frame, within seconds."""
        return self._runner.run(asyncio.wait_for(self._connection.recv(), timeout))


async def _opened(uri: str, options: dict[str, Any]) -> ClientConnection:
    return await open_socket(uri, **options)


def socket(served: Served, scheme: str = "websocket", path: str = "/", **options: Any) -> Socket:
    """Open a websocket."""
    secure = scheme == "websockets"
    uri = f"{'wss' if secure else 'ws'}://{authority(served.address(scheme))}{path}"
    return Socket(uri, ssl=trust(served) if secure else None, max_size=None, compression=None, proxy=None, **options)


def as_json(message: DataRequestProto) -> dict[str, Any]:
    """Return the http body that says what the message says."""

    def form(made: DocumentProto) -> dict[str, Any]:
        given = {field.name: value for field, value in made.ListFields()}
        for key in ("chunks", "matches"):
            given[key] = [form(inner) for inner in given.get(key, [])]
        if made.WhichOneof("content") == "blob":
            given["blob"] = base64.b64encode(made.blob).decode()
        if made.WhichOneof("content") == "tensor":
            dense = made.tensor.dense
            given["tensor"] = np.frombuffer(dense.buffer, dense.dtype).reshape(tuple(dense.shape)).tolist()
        if "tags" in given:
            given["tags"] = MessageToDict(made.tags)
        return given

    return {
        "data": [form(made) for made in message.data.docs.docs],
        "parameters": MessageToDict(message.parameters),
        "execEndpoint": message.header.exec_endpoint,
        "targetExecutor": message.header.target_executor,
    }


def from_json(reply: dict[str, Any]) -> DataRequestProto:
    """Return the message of an http reply."""
    made = DataRequestProto()
    made.header.request_id = reply["header"]["requestId"]
    made.header.exec_endpoint = reply["header"]["execEndpoint"]
    made.header.target_executor = reply["header"]["targetExecutor"]
    made.parameters.update(reply["parameters"])
    if (status := reply["header"]["status"]) is not None:
        made.header.status.code = status["code"]
        made.header.status.description = status["description"]
        made.header.status.exception.name = status["exception"]["name"]
        made.header.status.exception.args.extend(status["exception"]["args"])
        made.header.status.exception.stacks.extend(status["exception"]["stacks"])
        made.header.status.exception.executor = status["exception"]["executor"]
    for route in reply["routes"]:
        target = made.routes.add(executor=route["executor"])
        target.start_time.FromJsonString(route["startTime"])
        if route["endTime"]:
            target.end_time.FromJsonString(route["endTime"])
    made.data.docs.docs.extend(_from_json(form) for form in reply["data"])
    return made


def _from_json(form: dict[str, Any]) -> DocumentProto:
    plain = {key: value for key, value in form.items() if value is not None}
    embedding, scores = plain.pop("embedding", None), plain.pop("scores", {})
    plain.pop("tensor", None)
    for key in ("chunks", "matches"):
        plain[key] = [_from_json(inner) for inner in plain.get(key, [])]
    if "blob" in plain:
        plain["blob"] = base64.b64decode(plain["blob"])
    made = DocumentProto(**plain)
    for name, score in scores.items():
        made.scores[name].value = score["value"] or 0.0
        made.scores[name].op_name = score["op_name"] or ""
    if embedding is not None:
        made.embedding.cls_name = "numpy"
        made.embedding.dense.CopyFrom(
            type(made.embedding.dense)(buffer=np.array(embedding, "<f4").tobytes(), shape=[len(embedding)], dtype="<f4")
        )
    return made


Ask = Callable[[DataRequestProto], DataRequestProto]


@pytest.fixture
def ask(server: Served, scheme: str) -> Iterator[Ask]:
    """A function from a request to its reply, over each scheme in turn."""
    if scheme.startswith("grpc"):
        with channel(server, scheme) as opened:
            call = opened.unary_unary(SINGLE, DataRequestProto.SerializeToString, DataRequestProto.FromString)
            yield lambda message: call(message, timeout=WAIT)
    elif scheme.startswith("http"):
        with httpx.Client(verify=trust(server), base_url=server.address(scheme), timeout=WAIT) as http:

            def post(message: DataRequestProto) -> DataRequestProto:
                answer = http.post("/post", json=as_json(message))
                assert answer.status_code == 200, answer.text
                return from_json(json.loads(answer.content))

            yield post
    else:
        with socket(server, scheme, subprotocols=["bytes"]) as opened:

            def send(message: DataRequestProto) -> DataRequestProto:
                opened.send(message.SerializeToString())
                return DataRequestProto.FromString(opened.recv(WAIT))

            yield send


@pytest.fixture
def raw() -> Any:
    """The functions of this file, for tests that need more than one question."""
    import sys

    return sys.modules[__name__]
