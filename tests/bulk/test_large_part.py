"""Large files: what is on disk is what was added, past the cache or through it, in chunks of any number of pieces."""

import errno
import os

import numpy as np
import pytest
from casdk.bulk import large_part
from casdk.bulk.disk import Checksum, checksum_of
from casdk.bulk.large_part import LargePart

PAGE = large_part.PAGE_BYTES


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks of two pages, so that few bytes are many."""
    monkeypatch.setattr(large_part, "CHUNK_BYTES", 2 * PAGE)
    monkeypatch.setattr(large_part, "WAITING_BYTES", 8 * PAGE)


@pytest.fixture(params=["past the cache", "not known", "refused"])
def cache(request, monkeypatch):
    """A file system that can pass by the cache, one that knows nothing of it, and one that wants larger blocks."""
    opened, written = os.open, os.pwrite
    direct = set()

    def open_(path, flags, *mode):
        if flags & os.O_DIRECT:
            if request.param == "not known":
                raise OSError(errno.EINVAL, "Invalid argument")
            direct.add(descriptor := opened(path, flags & ~os.O_DIRECT, *mode))
            return descriptor
        return opened(path, flags, *mode)

    def pwrite(descriptor, data, place):
        if descriptor in direct:
            assert len(data) % PAGE == place % PAGE == 0
            if request.param == "refused":
                raise OSError(errno.EINVAL, "Invalid argument")
        return written(descriptor, data, place)

    if request.param != "past the cache":
        monkeypatch.setattr(os, "open", open_)
        monkeypatch.setattr(os, "pwrite", pwrite)


def pieces_of(seed):
    """Return bytes in pieces of many sizes."""
    numbers = np.random.default_rng(seed)
    return [numbers.bytes(size) for size in numbers.choice([1, 7, 100, PAGE, 3 * PAGE - 1, 9 * PAGE], 12)]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_added_is_on_disk(tmp_path, cache, seed):
    path, pieces = tmp_path / "rows.part", pieces_of(seed)
    part = LargePart(path)
    part.write(b"head")
    part.checksum = Checksum()
    for piece in pieces[:6]:
        assert part.write(piece) == len(piece)
    part.sync()
    assert path.read_bytes() == b"".join([b"head", *pieces[:6]])
    for piece in pieces[6:]:
        part.write(piece)
    part.overwrite(b"HEAD")
    part.sync()
    assert path.read_bytes() == b"".join([b"HEAD", *pieces])
    assert part.size == part.tell() == path.stat().st_size
    part.close()
    part.close()
    path.write_bytes(b"".join(pieces))
    assert part.checksum.text == checksum_of(path)


@pytest.mark.parametrize("size", [0, 5, PAGE, 2 * PAGE + 17])
def test_it_goes_on_where_it_is_cut(tmp_path, size):
    path, there = tmp_path / "rows.part", np.random.default_rng(1).bytes(3 * PAGE)
    path.write_bytes(there)
    part = LargePart(path, size)
    part.write(b"x" * 3 * PAGE)
    part.cut(size + 2)
    part.write(b"y")
    part.sync()
    part.close()
    assert path.read_bytes() == there[:size] + b"xxy"


def test_the_first_bytes_may_be_those_of_a_chunk_under_way(tmp_path):
    part = LargePart(tmp_path / "rows.part")
    part.write(b"12345")
    part.overwrite(b"_")
    part.sync()
    part.close()
    assert (tmp_path / "rows.part").read_bytes() == b"_2345"


def test_what_the_thread_cannot_write_is_raised_later(tmp_path, monkeypatch):
    def refuse(descriptor, data, place):
        raise OSError(errno.ENOSPC, "No space left on device")

    part = LargePart(tmp_path / "rows.part")
    monkeypatch.setattr(os, "pwrite", refuse)
    part.write(bytes(2 * PAGE))
    for step in (part.sync, lambda: part.write(bytes(2 * PAGE))):
        with pytest.raises(OSError, match=r"No space left on device: .*rows\.part"):
            step()
    part.close()


def test_what_was_added_may_be_changed_afterwards(tmp_path):
    piece = bytearray(b"x" * 3 * PAGE)
    part = LargePart(tmp_path / "rows.part")
    part.write(piece)
    piece[:] = b"y" * len(piece)
    part.sync()
    part.close()
    assert (tmp_path / "rows.part").read_bytes() == b"x" * 3 * PAGE


def test_memory_of_chunks_that_were_written_is_filled_again(tmp_path, monkeypatch):
    made = []

    class Chunk(large_part._Chunk):
        def __init__(self):
            super().__init__()
            made.append(self)

    monkeypatch.setattr(large_part, "_Chunk", Chunk)
    part = LargePart(tmp_path / "rows.part")
    for _ in range(100):
        part.write(bytes(2 * PAGE))
    part.sync()
    part.close()
    assert part.size == 200 * PAGE
    assert len(made) <= large_part.WAITING_BYTES // (2 * PAGE) + 1


def test_what_was_not_written_may_be_dropped(tmp_path):
    part = LargePart(tmp_path / "rows.part")
    part.write(b"1234")
    part.close()
    assert (tmp_path / "rows.part").read_bytes() == b""
