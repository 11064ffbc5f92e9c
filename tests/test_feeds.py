"""Content is read in order and completely, on the engine or where the caller is, whatever kind of iterable it is."""

import asyncio
import threading

import numpy as np
import pytest
from casdk._content.feeds import Feed
from casdk._engine.waiting import run, run_async
from hypothesis import given
from hypothesis import strategies as st

HELD = [list, tuple, dict.fromkeys, set, frozenset, lambda items: dict.fromkeys(items).keys()]


async def read_all(feed, caller):
    chunks = []
    while not await feed.read(3, caller, chunks.append):
        pass
    feed.close()
    return chunks


def read_by(feed, how):
    async def job(caller):
        chunks = await read_all(feed, caller)
        await asyncio.sleep(0)
        return chunks

    return run(job) if how == "thread" else asyncio.run(run_async(job))


@given(st.lists(st.integers(), unique=True), st.integers(1, 7))
def test_containers_are_read_by_the_engine(items, size):
    for kind in HELD:
        content = kind(items)
        if isinstance(content, dict):
            content = content.keys()
        feed = Feed(content, size)
        assert feed.direct
        assert feed.total == len(items)
        chunks = []
        while got := feed.read_held(3):
            chunks += got
        assert [item for chunk in chunks for item in chunk] == list(content)
        assert all(len(chunk) == size for chunk in chunks[:-1])


@pytest.mark.parametrize("how", ["thread", "loop"])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("hurried", [False, True])
@pytest.mark.parametrize("count", [0, 1, 4, 5, 23])
def test_iterators_are_read_where_they_belong(how, apart, hurried, count):
    threads = set()

    def items():
        for number in range(count):
            threads.add(threading.current_thread())
            yield number

    feed = Feed(items(), 4, "thread" if apart else "caller", 60 if hurried else None)
    assert not feed.direct
    assert feed.total is None
    chunks = read_by(feed, how)
    assert [item for chunk in chunks for item in chunk] == list(range(count))
    assert all((thread is threading.current_thread()) is not apart for thread in threads)


def test_async_iterators_are_read_on_their_loop():
    loops = set()

    async def items():
        for number in range(9):
            loops.add(asyncio.get_running_loop())
            await asyncio.sleep(0)
            yield number

    async def main():
        chunks = await run_async(lambda caller: read_all(Feed(items(), 4), caller))
        return chunks, asyncio.get_running_loop()

    chunks, loop = asyncio.run(main())
    assert chunks == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert loops == {loop}


def test_each_chunk_is_handed_over_before_the_next_is_there():
    there, seen = threading.Event(), threading.Event()

    def items():
        yield 1
        assert seen.wait(10)
        yield 2
        there.set()

    async def job(caller):
        feed = Feed(items(), 1, "thread")
        while not await feed.read(8, caller, lambda chunk: seen.set()):
            pass  # a reader goes on filling chunks for a short time only

    run(job)
    assert there.is_set()


def test_arrays_of_text_are_lists_of_str():
    [chunk] = Feed(np.array(["a", "b"]), 8).read_held(1)
    assert chunk == ["a", "b"]
    assert all(type(item) is str for item in chunk)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_items_that_were_read_and_not_taken_are_returned(asynchronous):
    """The call ends while its iterable is read: what it had given until then is not lost."""

    def items():
        yield from range(6)
        feed.close()
        yield from range(6, 100)

    async def later():
        for item in items():
            yield item

    feed = Feed(later() if asynchronous else items(), 4)

    async def job(caller):
        taken = []

        def take(chunk):
            if not taken:
                feed.taken()
                taken.append(chunk)

        await feed.read(3, caller, take)
        await asyncio.sleep(0)
        return taken

    assert asyncio.run(run_async(job)) == [[0, 1, 2, 3]]
    assert feed.untaken() == ([[4, 5, 6]] if asynchronous else [[4, 5, 6, 7]])
    assert feed.untaken() == []
