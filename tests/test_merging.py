"""Concurrent small calls are sent in one request, and each gets its own rows, errors and deadline."""

import asyncio
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from casdk import Client, Document
from casdk._calls import merging as _merging
from casdk._calls import verbs as _verbs
from casdk._calls.merging import REQUESTS_IN_FLIGHT, Coalescer, MergedCall, merging_key
from casdk._calls.options import DEFAULTS, MERGES, Options
from casdk._engine.process import engine
from casdk._engine.waiting import run_async, run_call, run_call_async
from casdk.errors import DeadlineError, FileMissingError


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


class Word(MergedCall):
    def __init__(self, coalescer, sender, items, key, timeout):
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        super().__init__(coalescer, key, items, deadline)
        self.sender = sender

    def is_light(self):
        return "heavy" not in self.items

    async def send(self, items, answer_by):
        return await self.sender(items)

    def take(self, outcome, start):
        return partial(list, outcome[start : start + len(self.items)])


class Desk:
    """A coalescer and its sender on the engine, and calls to them from here."""

    def __init__(self, most=8, window=0.0, sender=Sender):
        self.coalescer = Coalescer(most, window)
        self.kind = sender

    async def open(self):
        self.sender = await on_the_engine(self.kind)
        return self

    def submit(self, *items, key="k", timeout=None):
        word = Word(self.coalescer, self.sender, list(items), key, timeout)
        return asyncio.ensure_future(run_call_async(word))

    async def occupy(self):
        """Have as many requests in flight as there may be, and return the calls."""
        calls = []
        for number in range(REQUESTS_IN_FLIGHT):
            calls.append(self.submit(f"t{number}"))
            await self.quiet()
        assert self.sender.batches == [[f"t{number}"] for number in range(REQUESTS_IN_FLIGHT)]
        return calls

    async def quiet(self):
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


async def test_calls_gather_while_requests_are_in_flight():
    desk = await Desk().open()
    first = await desk.occupy()
    calls = [desk.submit(f"a{i}", f"b{i}") for i in range(9)]
    await desk.quiet()
    assert len(desk.sender.batches) == REQUESTS_IN_FLIGHT
    await desk.let_go()
    assert await asyncio.gather(*first, *calls) == [["T0"], ["T1"], *([f"A{i}", f"B{i}"] for i in range(9))]
    assert [len(batch) for batch in desk.sender.batches[REQUESTS_IN_FLIGHT:]] == [8, 8, 2]


async def sizes_of(sender, items, most=2):
    """Submit calls of one item each before the engine sees any, and return the sizes of their batches."""
    desk = await Desk(most, sender=sender).open()
    await desk.let_go()
    busy = threading.Event()
    engine().post(busy.wait)
    calls = [desk.submit(item) for item in items]
    await asyncio.sleep(0)
    busy.set()
    assert await asyncio.gather(*calls) == [[item.upper()] for item in items]
    return [len(batch) for batch in desk.sender.batches]


async def test_what_comes_while_the_engine_is_busy_is_sent_in_one_request():
    assert await sizes_of(Sender, [f"t{i}" for i in range(8)], most=8) == [8]


async def test_batches_grow_while_they_come_back_at_once(monkeypatch):
    monkeypatch.setattr(_merging, "QUICK_SECONDS", math.inf)
    sizes = await sizes_of(Sender, [f"t{i}" for i in range(100)])
    assert sizes[:3] == [2, 2, 4]
    assert sorted({*sizes[:-1]}) == [2, 4, 8, 16]


async def test_batches_do_not_grow_where_the_server_takes_its_time(monkeypatch):
    monkeypatch.setattr(_merging, "QUICK_SECONDS", -1.0)
    assert await sizes_of(Sender, [f"t{i}" for i in range(20)]) == [2] * 10


async def test_batches_shrink_when_the_server_slows_down(monkeypatch):
    monkeypatch.setattr(_merging, "QUICK_SECONDS", math.inf)

    class Tiring(Sender):
        async def __call__(self, items):
            if len(items) == 16:
                monkeypatch.setattr(_merging, "QUICK_SECONDS", -1.0)
            return await super().__call__(items)

    sizes = await sizes_of(Tiring, [f"t{i}" for i in range(200)])
    assert max(sizes) == 16
    assert set(sizes[-10:-1]) == {2}


async def test_only_light_calls_are_sent_in_batches_that_have_grown(monkeypatch):
    monkeypatch.setattr(_merging, "QUICK_SECONDS", math.inf)
    sender = []

    class Noting(Sender):
        def __init__(self):
            super().__init__()
            sender.append(self)

    await sizes_of(Noting, ["heavy" if i % 20 == 19 else f"t{i}" for i in range(200)])
    assert max(map(len, sender[0].batches)) > 2
    assert all(len(batch) <= 2 for batch in sender[0].batches if "heavy" in batch)


@pytest.mark.parametrize("window", [0.0, 0.001])
def test_threads_lose_nothing(window):
    """Queues are made and removed all the time, and a call may be added just as the engine stops looking."""
    coalescer = Coalescer(4, window)

    class Echo(Word):
        async def send(self, items, answer_by):
            return items

    def work(name):
        for number in range(200):
            assert run_call(Echo(coalescer, None, [(name, number)], number % 2, None)) == [(name, number)]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_a_new_engine_begins_afresh():
    """A forked child has one: what waits in the parent is not for it to send."""
    coalescer = Coalescer(8, 0.0)

    class Caller:
        def __init__(self):
            self.engine, self.posts = object(), []

        def post(self, *post):
            self.posts.append(post)

    parent, child = Caller(), Caller()
    Word(coalescer, None, ["parent's"], "k", None).join(parent)
    Word(coalescer, None, ["child's"], "k", None).join(child)
    [(_, _, theirs)], [(_, _, ours)] = parent.posts, child.posts
    assert [call.items for call in theirs.waiting] == [["parent's"]]
    assert [call.items for call in ours.waiting] == [["child's"]]


async def test_calls_with_other_keys_do_not_mix():
    desk = await Desk().open()
    calls = [desk.submit(f"t{i}", key=i % 2) for i in range(12)]
    await desk.quiet()
    await desk.let_go()
    await asyncio.gather(*calls)
    assert all(len({int(item[1:]) % 2 for item in batch}) == 1 for batch in desk.sender.batches)


async def test_an_error_reaches_each_caller_as_its_own():
    desk = await Desk().open()
    calls = await desk.occupy()
    calls += [desk.submit(item) for item in ("bad", "good")]
    await desk.quiet()
    await desk.let_go()
    *first, one, two = await asyncio.gather(*calls, return_exceptions=True)
    assert first == [["T0"], ["T1"]]
    assert isinstance(one, ValueError)
    assert isinstance(two, ValueError)
    assert one is not two


async def test_a_call_that_was_cancelled_in_the_queue_is_not_sent():
    desk = await Desk().open()
    calls = await desk.occupy()
    calls += [desk.submit(f"t{i}") for i in range(REQUESTS_IN_FLIGHT, REQUESTS_IN_FLIGHT + 3)]
    await desk.quiet()
    calls[-1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[-1]
    await desk.let_go()
    assert await asyncio.gather(*calls[:-1]) == [[f"T{i}"] for i in range(REQUESTS_IN_FLIGHT + 2)]
    assert sum(map(len, desk.sender.batches)) == REQUESTS_IN_FLIGHT + 2


async def test_cancelling_one_call_of_a_batch_leaves_the_others():
    desk = await Desk().open()
    first = await desk.occupy()
    merged = [desk.submit("a"), desk.submit("b")]
    await desk.quiet()
    gate, desk.sender.gate = desk.sender.gate, await on_the_engine(asyncio.Event)
    await on_the_engine(gate.set)
    await asyncio.gather(*first)
    await desk.quiet()
    assert desk.sender.batches[REQUESTS_IN_FLIGHT:] == [["a", "b"]]
    merged[0].cancel()
    await desk.quiet()
    assert desk.sender.cancelled == []
    await desk.let_go()
    assert await merged[1] == ["B"]


async def test_cancelling_the_last_call_of_a_batch_cancels_its_request():
    desk = await Desk().open()
    calls = [desk.submit("a"), desk.submit("b", timeout=0.01)]
    await desk.quiet()
    calls[0].cancel()
    with pytest.raises(DeadlineError):
        await calls[1]
    await desk.quiet()
    assert sorted(item for batch in desk.sender.cancelled for item in batch) == ["a", "b"]


async def test_a_deadline_ends_its_own_call():
    desk = await Desk().open()
    calls = await desk.occupy()
    late = desk.submit("late", timeout=0.01)
    with pytest.raises(DeadlineError) as raised:
        await late
    assert raised.value.total == 1
    await desk.let_go()
    assert await asyncio.gather(*calls) == [["T0"], ["T1"]]
    assert await desk.submit("next") == ["NEXT"]
    assert ["late"] not in desk.sender.batches


async def test_a_window_waits_for_other_calls():
    desk = await Desk(window=0.02).open()
    await desk.let_go()
    assert await asyncio.gather(*[desk.submit(f"t{i}") for i in range(4)]) == [[f"T{i}"] for i in range(4)]
    assert len(desk.sender.batches) == 1


def test_every_option_says_how_it_is_merged():
    assert MERGES.keys() == set(Options.__struct_fields__)
    assert set(MERGES.values()) == {"same", "own", "alone"}


OTHERS = {
    "batch_size": 8,
    "prefetch": 2,
    "parameters": {"model_name": "other"},
    "show_progress": True,
    "timeout": 5.0,
    "reader": "thread",
    "check_images": False,
    "images": "exact",
    "image_size": 336,
    "min_fidelity": 0.5,
    "on_done": print,
    "on_error": print,
    "on_always": print,
    "return_responses": True,
    "errors": "skip",
    "dtype": "float16",
    "out": np.empty((1, 4), np.float32),
    "dedupe": True,
    "patience": 5.0,
    "result": "arrow",
}


@pytest.mark.parametrize(("name", "how"), MERGES.items())
def test_an_option_is_merged_as_it_says(name, how):
    coalescer = Coalescer(8, 0.0)
    given = {"images": "jpeg95"} if name in ("image_size", "min_fidelity") else {}  # they go with nothing else
    plain = merging_key(coalescer, ["a"], Options(**given))
    assert given or merging_key(coalescer, ["a"], DEFAULTS) == plain
    key = merging_key(coalescer, ["a"], Options(**given, **{name: OTHERS[name]}))
    if how == "alone":
        assert key is None
    else:
        assert (key == plain) is (how == "own")


@pytest.mark.parametrize(
    ("content", "options", "light"),
    [
        (["a text", "another"], {}, True),
        (["a text"], {"batch_size": "auto"}, True),
        (["a text"], {"batch_size": 32}, False),  # the caller said how many may travel together
        (["a text", "cat.png"], {}, False),
        ([b"an image"], {}, False),
        ([Document(text="a text")], {}, False),
    ],
)
def test_which_calls_travel_in_a_batch_that_grew(content, options, light):
    client = Client("grpc://127.0.0.1:1", coalesce=True)
    assert _verbs.encode(client._session, content, Options(**options)).is_light() is light


async def test_merged_calls_get_their_own_out_of_a_batch_that_grew(connect, expected, monkeypatch):
    monkeypatch.setattr(_merging, "QUICK_SECONDS", math.inf)
    client = connect("grpc", coalesce=True)
    sent = [[f"text {number}", f"other {number}"] if number % 7 == 0 else [f"text {number}"] for number in range(600)]
    sent[500] = ["missing.png"]
    found = await asyncio.gather(*map(client.aencode, sent), return_exceptions=True)
    error = found.pop(500)
    assert isinstance(error, FileMissingError)
    assert error.index == 0
    del sent[500]
    np.testing.assert_array_equal(np.concatenate(found), expected([text for texts in sent for text in texts]))
