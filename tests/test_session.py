"""The bytes in flight: no call takes more than its share, and calls wait for room."""

import asyncio
import threading

import pytest
from casdk import Client, Limits
from casdk._calls.session import BYTE_SHARES, ByteBudget, ByteShare
from casdk.testing import FaultServer, Gate, Hold

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_call_is_full_at_its_share_and_all_are_at_the_whole():
    budget = ByteBudget(100 * BYTE_SHARES)
    one, other, third = ByteShare(budget), ByteShare(budget), ByteShare(budget)
    one.hold(99)
    assert not one.is_full()
    one.hold(1)
    assert one.is_full()
    assert not other.is_full()
    third.hold(100 * BYTE_SHARES - 100)
    assert other.is_full()
    one.hold(-1)
    assert not other.is_full()


async def test_a_call_that_waits_for_room_goes_on_when_bytes_are_released():
    budget = ByteBudget(BYTE_SHARES)
    share = ByteShare(budget)
    share.hold(3)
    waiting = asyncio.create_task(share.room())
    for _ in range(2):
        await asyncio.sleep(0)
        assert not waiting.done()
        share.hold(-1)
    share.hold(-1)
    await asyncio.wait_for(waiting, 10)


@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_large_images_of_one_call_leave_room_for_another(scheme):
    gate = Gate()
    size = 50_000
    limits = Limits(max_inflight_bytes=2 * size * BYTE_SHARES, prefetch=16)
    images = [PNG + bytes([number]) * size for number in range(24)]
    with (
        FaultServer(lambda request: None if "quick" in request.texts else Hold(gate), width=8) as server,
        Client(server.address(scheme), limits=limits) as client,
    ):
        call = threading.Thread(target=client.encode, args=(images,), kwargs={"batch_size": 1})
        call.start()
        gate.wait_for(2)
        assert client.encode(["quick"]).shape == (1, 8)
        # Two fit, and as many again may be packed while they are counted.
        assert gate.arrived <= 4
        gate.open()
        call.join()
        assert server.counters.documents == len(images) + 1
        assert server.counters.most_running <= 5
