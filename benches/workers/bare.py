"""The transport library alone: the same bytes, ready-made, to and fro, as many in flight as casdk has; nothing is read.

``python bare.py ADDRESS CA``
"""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from loop import Call, Case, serve
from wire import messages

ADDRESS, CA = sys.argv[1:]
SCHEME, TARGET = ADDRESS.split("://")
AUTHORITY = Path(CA).read_bytes() if CA else b""
WINDOW, CONNECTIONS = 32, 16
LOOP = asyncio.new_event_loop()


def prepare(case: Case) -> Call:
    sent = messages(case, "json" if SCHEME.startswith("http") else "proto")
    start = {"g": over_grpc, "h": over_http, "w": over_websocket}[SCHEME[0]]
    exchange = LOOP.run_until_complete(start(sent))

    def call() -> None:
        LOOP.run_until_complete(exchange())

    return call


async def over_grpc(sent: list[bytes]) -> Any:
    import grpc
    import grpc.aio

    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    if CA:
        channel = grpc.aio.secure_channel(TARGET, grpc.ssl_channel_credentials(AUTHORITY), options)
    else:
        channel = grpc.aio.insecure_channel(TARGET, options)
    stream = channel.stream_stream("/jina.JinaRPC/Call")
    unary = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")

    async def several() -> None:
        window = asyncio.Semaphore(WINDOW)

        async def requests() -> AsyncIterator[bytes]:
            for message in sent:
                await window.acquire()
                yield message

        async for _ in stream(requests()):
            window.release()

    async def one() -> None:
        await unary(sent[0])

    return one if len(sent) == 1 else several


async def over_http(sent: list[bytes]) -> Any:
    import httpx

    client = httpx.AsyncClient(verify=trusted() if CA else False, limits=httpx.Limits(max_connections=CONNECTIONS))
    url = f"{ADDRESS}/post"

    async def exchange() -> None:
        left = iter(sent)

        async def lane() -> None:
            for message in left:
                reply = await client.post(url, content=message, headers={"content-type": "application/json"})
                reply.raise_for_status()

        await asyncio.gather(*[lane() for _ in range(min(CONNECTIONS, len(sent)))])

    return exchange


async def over_websocket(sent: list[bytes]) -> Any:
    from websockets.asyncio.client import connect
    from websockets.typing import Subprotocol

    scheme = "wss" if CA else "ws"
    socket = await connect(
        f"{scheme}://{TARGET}",
        subprotocols=[Subprotocol("bytes")],
        compression=None,
        max_size=None,
        ssl=trusted() if CA else None,
        proxy=None,
    )

    async def exchange() -> None:
        ahead = 0
        for message in sent:
            if ahead == WINDOW:
                await socket.recv()
                ahead -= 1
            await socket.send(message)
            ahead += 1
        for _ in range(ahead):
            await socket.recv()

    return exchange


def trusted() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=CA)


if __name__ == "__main__":
    serve(prepare)
