"""Pieces of a long input: in order, few at once, nothing lost, nothing left running."""

import asyncio
import itertools

import pytest
from casdk.cli.content import Entry
from casdk.cli.pipeline import PIECES, Bar, run_pieces
from casdk.errors import NotAnImageError
from hypothesis import given
from hypothesis import strategies as st


def entries(count):
    return (Entry(f"item {number}", number) for number in range(count))


async def gather(call, count, size):
    return [piece async for piece in run_pieces(call, entries(count), size)]


@given(count=st.integers(0, 40), size=st.integers(1, 9), order=st.randoms(use_true_random=False))
def test_results_come_in_order_however_calls_end(count, size, order):
    async def call(items):
        for _ in range(order.randrange(4)):
            await asyncio.sleep(0)
        return items

    pieces = asyncio.run(gather(call, count, size))
    assert [item for piece in pieces for item in piece.result] == list(range(count))
    assert [piece.first for piece in pieces] == list(range(0, count, size))
    assert all([entry.item for entry in piece.entries] == piece.result for piece in pieces)


def test_an_endless_input_is_read_as_far_as_needed():
    read = 0

    def endless():
        nonlocal read
        for number in itertools.count():
            read += 1
            yield Entry("x", number)

    async def call(items):
        return items

    async def take():
        pieces = run_pieces(call, endless(), 10)
        first = await anext(pieces)
        await pieces.aclose()
        return first

    assert asyncio.run(take()).result == list(range(10))
    assert read == PIECES * 10


def test_an_item_is_named_by_its_place_in_the_whole():
    async def call(items):
        if 23 in items:
            raise NotAnImageError(items.index(23), 23, "no image")
        return items

    with pytest.raises(NotAnImageError, match="item 23: no image"):
        asyncio.run(gather(call, 50, 10))


def test_what_is_under_way_ends_when_one_fails():
    cancelled = []

    async def call(items):
        if items[0] == 0:
            await asyncio.sleep(0)
            raise LookupError
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(items[0])
            raise

    with pytest.raises(LookupError):
        asyncio.run(gather(call, 50, 10))
    assert cancelled == [10, 20]


def test_no_bar_where_there_is_no_terminal(capfd):
    with Bar("encode", 10) as bar:
        bar.advance(4)
    assert capfd.readouterr() == ("", "")
