import asyncio

import pytest
from casdk._coalesce import LANES, Coalescer, Share
from casdk._engine import run_async
from casdk.errors import DeadlineError


class Sender:
    """Sends batches that wait until they are let go."""

    def __init__(self):
        self.batches = []
        self.cancelled = []
        self.gate = asyncio.Event()

    async def __call__(self, items):
        self.batches.append(items)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(items)
            raise
        if "bad" in items:
            raise ValueError("bad")
        return [item.upper() for item in items]


class Word(Share):
    def __init__(self, coalescer, sender, items, key, timeout):
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        super().__init__(items, deadline)
        self.coalescer = coalescer
        self.sender = sender
        self.key = key

    def __call__(self, caller):
        self.begin(caller)
        self.coalescer.add(self.key, self)

    async def send(self, items):
        return await self.sender(items)

    def result(self, outcome, start):
        return outcome[start : start + len(self.items)]


class Desk:
    """A coalescer and its sender on the engine, and calls to them from here."""

    def __init__(self, most=8, window=0.0):
        self.coalescer = Coalescer(most, window)

    async def open(self):
        self.sender = await on_the_engine(Sender)
        return self

    def submit(self, *items, key="k", timeout=None):
        word = Word(self.coalescer, self.sender, list(items), key, timeout)
        return asyncio.ensure_future(run_async(word))

    async def settle(self):
        """Return when the engine has done what it was asked for so far."""
        for _ in range(5):
            await on_the_engine(lambda: None)

    async def let_go(self):
        await on_the_engine(self.sender.gate.set)


async def on_the_engine(function):
    await asyncio.sleep(0)

    async def job(caller):
        return function()

    return await run_async(job)


async def test_an_idle_client_sends_at_once():
    desk = await Desk(32).open()
    await desk.let_go()
    assert await desk.submit("a") == ["A"]
    assert desk.sender.batches == [["a"]]


async def test_calls_gather_while_the_lanes_are_busy():
    desk = await Desk().open()
    calls = [desk.submit(f"t{i}", f"u{i}") for i in range(LANES + 9)]
    await desk.settle()
    assert len(desk.sender.batches) == LANES
    await desk.let_go()
    assert await asyncio.gather(*calls) == [[f"T{i}", f"U{i}"] for i in range(LANES + 9)]
    assert [len(batch) for batch in desk.sender.batches[LANES:]] == [8, 8, 2]


async def test_kinds_do_not_mix():
    desk = await Desk().open()
    calls = [desk.submit(f"t{i}", key=i % 2) for i in range(12)]
    await desk.settle()
    await desk.let_go()
    await asyncio.gather(*calls)
    assert all(len({int(item[1:]) % 2 for item in batch}) == 1 for batch in desk.sender.batches)


async def test_an_error_reaches_each_caller_as_its_own():
    desk = await Desk().open()
    calls = [desk.submit("good") for _ in range(LANES)]
    calls += [desk.submit(item) for item in ("bad", "good")]
    await desk.settle()
    await desk.let_go()
    *first, one, two = await asyncio.gather(*calls, return_exceptions=True)
    assert first == [["GOOD"]] * LANES
    assert isinstance(one, ValueError)
    assert isinstance(two, ValueError)
    assert one is not two


async def test_a_caller_that_left_costs_nothing():
    desk = await Desk().open()
    calls = [desk.submit(f"t{i}") for i in range(LANES + 3)]
    await desk.settle()
    calls[-1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[-1]
    await desk.let_go()
    assert await asyncio.gather(*calls[:-1]) == [[f"T{i}"] for i in range(LANES + 2)]
    assert sum(map(len, desk.sender.batches)) == LANES + 2


async def test_who_leaves_a_batch_on_its_way_takes_nobody_along():
    desk = await Desk().open()
    first = [desk.submit(f"t{i}") for i in range(LANES)]
    await desk.settle()
    together = [desk.submit("a"), desk.submit("b")]
    await desk.settle()
    gate, desk.sender.gate = desk.sender.gate, await on_the_engine(asyncio.Event)
    await on_the_engine(gate.set)
    await asyncio.gather(*first)
    await desk.settle()
    assert desk.sender.batches[LANES:] == [["a", "b"]]
    together[0].cancel()
    await desk.settle()
    assert desk.sender.cancelled == []
    await desk.let_go()
    assert await together[1] == ["B"]


async def test_the_last_to_leave_takes_the_request_back():
    desk = await Desk().open()
    calls = [desk.submit("a"), desk.submit("b", timeout=0.01)]
    await desk.settle()
    calls[0].cancel()
    with pytest.raises(DeadlineError):
        await calls[1]
    await desk.settle()
    assert desk.sender.cancelled == [["a"], ["b"]]


async def test_a_deadline_ends_its_own_call():
    desk = await Desk().open()
    calls = [desk.submit(f"t{i}") for i in range(LANES + 1)]
    late = desk.submit("late", timeout=0.01)
    with pytest.raises(DeadlineError) as raised:
        await late
    assert raised.value.total == 1
    await desk.let_go()
    assert await asyncio.gather(*calls) == [[f"T{i}"] for i in range(LANES + 1)]
    assert ["late"] not in desk.sender.batches


async def test_a_window_waits_for_company():
    desk = await Desk(window=0.02).open()
    await desk.let_go()
    assert await asyncio.gather(*[desk.submit(f"t{i}") for i in range(4)]) == [[f"T{i}"] for i in range(4)]
    assert len(desk.sender.batches) == 1
