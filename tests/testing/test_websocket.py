"""Websockets as the library reads them: messages of any size, a dry run, the credential of the handshake."""

import asyncio

import pytest
from casdk.testing import FaultServer
from casdk.wire.jina_pb2 import DataRequestProto, StatusProto
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus


def opened(server, path="/", **options):
    address = server.address("websocket").replace("websocket://", "ws://")
    return connect(address + path, subprotocols=["bytes"], max_size=None, **options)


@pytest.mark.parametrize("size", [1, 125, 126, 65_535, 65_536, 1_000_000])
async def test_a_message_of_any_size(request_for, size):
    with FaultServer(width=8) as server:
        async with asyncio.timeout(20), opened(server) as connection:
            await connection.send(request_for("x" * size).SerializeToString())
            reply = DataRequestProto.FromString(await connection.recv())
    assert reply.data.docs.docs[0].text == "x" * size


async def test_many_requests_at_once_on_one_connection(request_for):
    with FaultServer(width=8) as server:
        async with asyncio.timeout(20), opened(server) as connection:
            for number in range(20):
                await connection.send(request_for(str(number)).SerializeToString())
            replies = [DataRequestProto.FromString(await connection.recv()) for _ in range(20)]
        assert server.wait_for(lambda counters: counters.replies == 20).accepted == 1
    assert sorted(int(reply.data.docs.docs[0].text) for reply in replies) == list(range(20))


async def test_a_message_in_fragments(request_for):
    with FaultServer(width=8) as server:
        message = request_for("a text").SerializeToString()
        async with asyncio.timeout(20), opened(server) as connection:
            await connection.send(iter([message[:3], message[3:9], message[9:]]))
            reply = DataRequestProto.FromString(await connection.recv())
    assert reply.data.docs.docs[0].text == "a text"


async def test_a_ping_is_answered():
    with FaultServer() as server:
        async with asyncio.timeout(20), opened(server) as connection:
            await (await connection.ping(b"a ping"))


@pytest.mark.parametrize("unready", ["", "no executor"])
async def test_a_dry_run_says_whether_the_flow_is_ready(unready):
    with FaultServer(unready=unready) as server:
        async with asyncio.timeout(20), opened(server, "/dry_run") as connection:
            await connection.send(b"")
            status = StatusProto.FromString(await connection.recv())
    assert (bool(status.code), status.description) == (bool(unready), unready)


async def test_the_credential_is_that_of_the_handshake():
    with FaultServer(token="right") as server:
        async with asyncio.timeout(20), opened(server, additional_headers={"authorization": "right"}):
            pass
        with pytest.raises(InvalidStatus) as refusal:
            await asyncio.wait_for(opened(server), 20)
    assert refusal.value.response.status_code == 401
