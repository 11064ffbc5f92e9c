"""What the tests of `casdk.testing` share: other people's clients, which read what the servers write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import pytest
from casdk.testing import FaultServer
from casdk.wire.jina_pb2 import DataRequestProto
from google.protobuf.json_format import MessageToDict, ParseDict
from websockets.asyncio.client import connect

SECONDS = 20
SINGLE = "/jina.JinaSingleDataRequestRPC/process_single_data"


def request_of(*texts: str, endpoint: str = "/encode") -> DataRequestProto:
    """Return a request for some texts."""
    made = DataRequestProto()
    made.header.request_id, made.header.exec_endpoint = "r", endpoint
    for text in texts:
        made.data.docs.docs.add(id=f"id of {text}", text=text)
    return made


def ask_grpc(server: FaultServer, message: DataRequestProto, **metadata: str) -> DataRequestProto:
    """Ask as grpcio does."""
    # Otherwise grpcio uses one connection for all channels to a server.
    alone = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(server.address("grpc").partition("://")[2], alone) as channel:
        call = channel.unary_unary(SINGLE, DataRequestProto.SerializeToString, DataRequestProto.FromString)
        return call(message, timeout=SECONDS, metadata=list(metadata.items()))


def ask_http(server: FaultServer, message: DataRequestProto, **headers: str) -> DataRequestProto:
    """Ask as httpx does."""
    form = MessageToDict(message)
    form["data"] = form.get("data", {}).get("docs", {}).get("docs", [])
    form |= form.pop("header")
    answer = httpx.post(f"{server.address('http')}/post", json=form, headers=headers, timeout=SECONDS)
    answer.raise_for_status()
    reply = json.loads(answer.content)
    return ParseDict(
        {"header": reply["header"], "data": {"docs": {"docs": [_without_nulls(each) for each in reply["data"]]}}},
        DataRequestProto(),
        ignore_unknown_fields=True,
    )


def _without_nulls(document: dict[str, Any]) -> dict[str, Any]:
    return {key: document[key] for key in ("id", "text") if document.get(key) is not None}


def ask_websocket(server: FaultServer, message: DataRequestProto, **headers: str) -> DataRequestProto:
    """Ask as websockets does."""

    async def ask() -> DataRequestProto:
        address = server.address("websocket").replace("websocket://", "ws://")
        async with (
            asyncio.timeout(SECONDS),
            connect(address, subprotocols=["bytes"], additional_headers=headers) as opened,
        ):
            await opened.send(message.SerializeToString())
            answer = await opened.recv()
            assert isinstance(answer, bytes)
            return DataRequestProto.FromString(answer)

    return asyncio.run(ask())


@pytest.fixture
def request_for() -> Callable[..., DataRequestProto]:
    """A function from texts to a request for them."""
    return request_of


@pytest.fixture(params=[ask_grpc, ask_http, ask_websocket], ids=["grpc", "http", "websocket"])
def ask(request: pytest.FixtureRequest) -> Callable[..., DataRequestProto]:
    """A function from a fault server, a request and headers to its reply, by each library in turn."""
    return request.param  # type: ignore[no-any-return]
