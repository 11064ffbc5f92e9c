import asyncio

import pytest
from casdk._coalesce import LANES, Coalescer


class Sender:
    """Sends batches that wait until they are let go."""

    def __init__(self):
        self.batches = []
        self.gate = asyncio.Event()

    async def __call__(self, items):
        self.batches.append(items)
        await self.gate.wait()
        if "bad" in items:
            raise ValueError("bad")
        return [item.upper() for item in items]


async def submit(coalescer, sender, *items, key="k"):
    return await coalescer.submit(key, list(items), sender, lambda outcome, start: outcome[start : start + len(items)])


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_idle_client_sends_at_once():
    sender = Sender()
    sender.gate.set()
    assert await submit(Coalescer(32, 0), sender, "a") == ["A"]
    assert sender.batches == [["a"]]


async def test_calls_gather_while_the_lanes_are_busy():
    sender, coalescer = Sender(), Coalescer(8, 0)
    calls = [asyncio.create_task(submit(coalescer, sender, f"t{i}", f"u{i}")) for i in range(LANES + 9)]
    await settle()
    assert len(sender.batches) == LANES
    sender.gate.set()
    results = await asyncio.gather(*calls)
    assert results == [[f"T{i}", f"U{i}"] for i in range(LANES + 9)]
    assert [len(batch) for batch in sender.batches[LANES:]] == [8, 8, 2]


async def test_kinds_do_not_mix():
    sender, coalescer = Sender(), Coalescer(8, 0)
    calls = [asyncio.create_task(submit(coalescer, sender, f"t{i}", key=i % 2)) for i in range(12)]
    await settle()
    sender.gate.set()
    await asyncio.gather(*calls)
    assert all(len({int(item[1:]) % 2 for item in batch}) == 1 for batch in sender.batches)


async def test_an_error_reaches_each_caller_as_its_own():
    sender, coalescer = Sender(), Coalescer(8, 0)
    calls = [asyncio.create_task(submit(coalescer, sender, "good")) for _ in range(LANES)]
    calls += [asyncio.create_task(submit(coalescer, sender, item)) for item in ("bad", "good")]
    await settle()
    sender.gate.set()
    *first, one, two = await asyncio.gather(*calls, return_exceptions=True)
    assert first == [["GOOD"]] * LANES
    assert isinstance(one, ValueError)
    assert isinstance(two, ValueError)
    assert one is not two


async def test_a_caller_that_left_costs_nothing():
    sender, coalescer = Sender(), Coalescer(8, 0)
    calls = [asyncio.create_task(submit(coalescer, sender, f"t{i}")) for i in range(LANES + 3)]
    await settle()
    calls[-1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[-1]
    sender.gate.set()
    assert await asyncio.gather(*calls[:-1]) == [[f"T{i}"] for i in range(LANES + 2)]
    assert sum(map(len, sender.batches)) == LANES + 2


async def test_a_window_waits_for_company():
    sender, coalescer = Sender(), Coalescer(8, 0.001)
    sender.gate.set()
    results = await asyncio.gather(*[submit(coalescer, sender, f"t{i}") for i in range(4)])
    assert results == [[f"T{i}"] for i in range(4)]
    assert len(sender.batches) == 1
