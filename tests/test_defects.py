"""A defect of casdk in a protocol ends its requests at once, by a typed error, and closing does not wait."""

import asyncio

import pytest
from casdk import TLS, Limits, Timeouts, TransportError
from casdk._rust import Kind, Packer
from casdk._transport.address import SCHEMES, parse_address
from casdk._transport.channels import channel_of
from casdk._transport.channels.defects import defect
from casdk.testing import FaultServer, Gate, Hold

CORES = {"grpc": "_http2", "http": "_replies", "websocket": "_websocket"}
"""Where a connection has what Rust reads and writes for it."""
NAMES = ["a" * 32, "b" * 32]
"""Ids of requests."""
ENDS = {
    "an answer": lambda server, gate: gate.open(),
    "an end": lambda server, gate: server.disconnect("close"),
    "a reset": lambda server, gate: server.disconnect("reset"),
}


class Stale:
    """What an extension is that does not match its Python."""

    def __getattr__(self, name):
        raise AttributeError(f"this extension has no {name}")


@pytest.fixture(params=CORES)
def family(request):
    return request.param


def channel_to(server, family):
    endpoint = parse_address(server.address(family))
    return channel_of(endpoint, "own")(endpoint, TLS(), Timeouts(), Limits(), None)


def request_to(channel, name):
    packer = Packer(SCHEMES[channel.endpoint.scheme].codec, "/encode", {})
    return channel.exchange(name, packer.pack(name, ["a text"], bytes([Kind.TEXT])).message, ())


def break_connections(channel, family):
    connections = channel._open if family == "http" else [channel.connection]
    for connection in connections:
        setattr(connection, CORES[family], Stale())
    return len(connections)


@pytest.mark.parametrize("end", ENDS)
async def test_what_is_in_flight_ends_at_once_and_says_why(family, end, caplog):
    gate = Gate()
    with FaultServer(Hold(gate), width=4) as server:
        channel = channel_to(server, family)
        asked = [asyncio.create_task(request_to(channel, name)) for name in NAMES]
        await asyncio.to_thread(gate.wait_for, 2)
        broken = break_connections(channel, family)
        await asyncio.to_thread(ENDS[end], server, gate)
        for task in asked:
            with pytest.raises(TransportError, match=r"casdk failed at what came.*this extension has no") as caught:
                await task
            assert isinstance(caught.value.__cause__, AttributeError)
            assert (caught.value.retryable, caught.value.sent) == (False, True)
        await channel.aclose()
        gate.open()
    logged = [record for record in caplog.records if record.name == "casdk.connections" and record.levelname == "ERROR"]
    assert len(logged) == broken
    assert all(record.exc_info[0] is AttributeError for record in logged)


async def test_an_idle_connection_is_closed(family):
    with FaultServer(width=4) as server:
        channel = channel_to(server, family)
        await request_to(channel, NAMES[0])
        assert break_connections(channel, family) == 1
        await channel.aclose()
        await asyncio.to_thread(server.wait_for, lambda seen: seen.open == 0)


def test_what_is_said():
    cause = KeyError("a")
    error = defect(parse_address("grpc://clip:1"), cause)
    assert str(error) == (
        "grpc://clip:1: casdk failed at what came on the connection (KeyError: 'a'): please report it"
    )
    assert error.__cause__ is cause
