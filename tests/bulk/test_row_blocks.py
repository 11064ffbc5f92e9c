"""Rows that the engine receives in blocks, or elsewhere: the file has them one after the other, each once."""

import numpy as np
import pytest
from casdk.bulk import row_blocks
from casdk.bulk.disk import PAGE_BYTES, Checksum, checksum_of
from casdk.bulk.large_part import LargePart
from casdk.bulk.row_blocks import RowBlocks, ShardMemory
from hypothesis import given, settings
from hypothesis import strategies as st

SINGLE = np.dtype(np.float32)


def blocks_of(width=4, block_rows=10, dtype=SINGLE, first=0, offset=None):
    blocks = RowBlocks(width, dtype, block_rows)
    blocks.begin(first, offset)
    return blocks


def add(blocks, part, rows):
    """Add rows as a target does."""
    while len(rows):
        room = blocks.room(blocks.next_row)
        blocks.add(rows[:room])
        rows = rows[room:]
        if blocks.is_full:
            part.write_rows(blocks.take())


@st.composite
def pieces(draw):
    """Return the sizes of pieces, which of them have their place reserved, and an order of reserving."""
    sizes = draw(st.lists(st.integers(1, 30), max_size=12))
    reserved = draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)))
    return sizes, reserved, draw(st.permutations(range(len(sizes))))


@settings(max_examples=60)
@given(
    pieces=pieces(),
    width=st.sampled_from([1, 3, 64, 200]),
    block_rows=st.integers(1, 40),
    dtype=st.sampled_from(["float32", "float16"]),
    head=st.binary(max_size=2 * PAGE_BYTES),
    first=st.integers(0, 3),
    after=st.binary(max_size=9),
)
def test_a_file_has_what_was_added(tmp_path_factory, pieces, width, block_rows, dtype, head, first, after):
    sizes, reserved, order = pieces
    path, dtype = tmp_path_factory.mktemp("rows") / "rows.part", np.dtype(dtype)
    rows = np.random.default_rng(len(head)).standard_normal((sum(sizes), width)).astype(dtype)
    starts = np.cumsum([0, *sizes])
    part = LargePart(path)
    if head:
        part.write(head)
    part.checksum = Checksum()
    blocks = blocks_of(width, block_rows, dtype, first, part.size)
    received = {}
    for place in order:
        there = blocks.reserve(first + int(starts[place]), sizes[place]) if reserved[place] else None
        if there is not None:
            there[:] = rows[starts[place] : starts[place + 1]]
            received[place] = there
    for place in range(len(sizes)):
        add(blocks, part, received.get(place, rows[starts[place] : starts[place + 1]]))
    if (last := blocks.take()) is not None:
        part.write_rows(last)
    if after:
        part.write(after)
    part.sync()
    part.close()
    assert path.read_bytes() == head + rows.tobytes() + after
    path.write_bytes(rows.tobytes() + after)
    assert part.checksum.text == checksum_of(path)


def test_rows_have_a_place_if_one_block_has_all_of_them():
    blocks = blocks_of(first=5)
    assert blocks.room(5) == blocks.room(15) == 10
    assert blocks.room(12) == 3
    assert blocks.reserve(12, 3).shape == (3, 4)
    assert blocks.reserve(12, 4) is None


def test_rows_that_were_added_have_no_other_place():
    blocks = blocks_of()
    blocks.add(np.zeros((3, 4), np.float32))
    assert blocks.reserve(2, 1) is None
    assert blocks.reserve(3, 1) is not None


def test_nothing_is_reserved_between_two_files():
    blocks = blocks_of()
    blocks.end()
    assert blocks.reserve(0, 1) is None
    blocks.begin(0)
    assert blocks.reserve(0, 1) is not None


def test_a_call_that_was_stopped_writes_into_no_later_file(tmp_path):
    blocks, part = blocks_of(), LargePart(tmp_path / "rows.part")
    late = blocks.reserve(0, 10)
    blocks.end()
    blocks.begin(0)
    add(blocks, part, np.ones((10, 4), np.float32))
    late[:] = 7
    part.sync()
    part.close()
    assert (tmp_path / "rows.part").read_bytes() == np.ones((10, 4), np.float32).tobytes()


def test_so_much_memory_is_reserved_and_no_more(monkeypatch):
    monkeypatch.setattr(row_blocks, "AHEAD_BYTES", 3 * 10 * 4 * 4)
    blocks = blocks_of()
    assert all(blocks.reserve(row, 10) is not None for row in (0, 10, 20))
    assert blocks.reserve(30, 10) is None
    blocks.add(blocks.reserve(0, 10))
    blocks.take().release()
    assert blocks.reserve(30, 10) is not None


def test_memory_is_used_again(tmp_path):
    blocks, part, addresses = blocks_of(offset=0), LargePart(tmp_path / "rows.part"), set()
    for number in range(50):
        there = blocks.reserve(number * 10, 10)
        addresses.add(there.ctypes.data // PAGE_BYTES)
        add(blocks, part, there)
        part._wait()
    part.close()
    assert len(addresses) == 1


@pytest.mark.parametrize(
    ("rows", "expected"), [(32, 1024), (600, 600), (1000, 1000), (3000, 3000), (1024 * 4 + 1, 1024)]
)
def test_blocks_have_whole_pieces(rows, expected):
    """Of about 4 MiB, which are 1024 rows; of as much as a piece has, if that is not much more."""
    assert RowBlocks.of_pieces(1024, SINGLE, rows)._block_rows == expected


class Made:
    """A target whose shard was begun, or not."""

    blocks = None


def test_pieces_have_their_rows_in_the_blocks_of_the_shard():
    target = Made()
    memory = ShardMemory(512, target, 20)
    assert memory.most_items == memory.room(3) == 512
    own = memory.reserve(0, 4, 4, SINGLE)
    target.blocks = blocks_of(block_rows=50)
    assert memory.room(3) == 27
    reserved = memory.reserve(3, 4, 4, SINGLE)
    assert np.shares_memory(reserved, target.blocks.reserve(23, 1))
    assert not np.shares_memory(own, target.blocks.reserve(20, 1))


@pytest.mark.parametrize(("width", "dtype"), [(5, SINGLE), (4, np.dtype(np.float16))])
def test_rows_that_are_others_than_the_targets_are_converted_later(width, dtype):
    target = Made()
    target.blocks = blocks_of()
    rows = ShardMemory(512, target, 0).reserve(0, 4, width, dtype)
    assert (rows.shape, rows.dtype) == ((4, width), dtype)
    assert not np.shares_memory(rows, target.blocks.reserve(0, 10))


def test_rows_of_a_stream_that_are_none_of_the_shards_have_their_own_memory():
    rows = ShardMemory(64, None, 0)
    assert rows.room(63) == 64
    assert rows.reserve(0, 4, 4, SINGLE).shape == (4, 4)
