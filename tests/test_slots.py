"""Slots for requests: a returned slot goes to the request that has waited longest, and none is lost."""

import asyncio

import pytest
from casdk._transport.slots import Slots


@pytest.fixture
def slots():
    """No room, until somebody gives some back."""
    return Slots(0)


async def begun(*waits):
    """Start to wait, in this order."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    await asyncio.sleep(0)
    return tasks


async def test_a_slot_goes_to_the_request_that_has_waited_longest(slots):
    first, second = await begun(slots.wait(), slots.wait())
    slots.give_back()
    await asyncio.wait_for(first, 10)
    assert not second.done()
    assert slots.free == 0
    slots.give_back()
    await asyncio.wait_for(second, 10)
    slots.give_back()
    assert slots.free == 1


async def test_a_cancelled_request_leaves_the_line(slots):
    first, second = await begun(slots.wait(), slots.wait())
    first.cancel()
    await asyncio.wait([first])
    slots.give_back()
    await asyncio.wait_for(second, 10)
    assert slots.free == 0
    assert not slots.line


async def test_a_slot_for_a_cancelled_request_goes_to_the_next_one(slots):
    first, second = await begun(slots.wait(), slots.wait())
    slots.give_back()
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    await asyncio.wait_for(second, 10)
    slots.give_back()
    assert slots.free == 1
