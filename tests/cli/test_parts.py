"""A file that is being written has the suffix `.part`, and gets its name when it is complete."""

import errno
import os
import resource

import numpy as np
import pytest
from casdk.cli.parts import PartFile


@pytest.fixture
def part(tmp_path):
    made = PartFile(tmp_path / "rows", tmp_path / "rows.part")
    yield made
    made.close()


@pytest.fixture
def room():
    """A function that lets files of this process grow to so many bytes only, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_it_becomes_the_file_when_it_is_whole(part, tmp_path):
    part.write(b"head")
    part.write(np.arange(3, dtype="uint8").data)
    part.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]
    assert (tmp_path / "rows").read_bytes() == b"head\0\1\2"


def test_a_piece_that_does_not_fit_is_not_there_at_all(part, tmp_path, room):
    part.write(b"a" * 10)
    room(15)
    with pytest.raises(OSError, match="File too large") as caught:
        part.write(b"b" * 10)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(part.path))
    part.write(b"c" * 5)
    part.leave()
    assert (tmp_path / "rows.part").read_bytes() == b"a" * 10 + b"c" * 5


def test_room_is_had_before_it_is_needed(part, tmp_path, room):
    part.write(b"a")
    room(1000)
    part.reserve(900)
    with pytest.raises(OSError, match="File too large") as caught:
        part.reserve(2000)
    assert caught.value.filename == str(part.path)
    part.write(b"b")
    part.leave()
    assert (tmp_path / "rows.part").read_bytes() == b"ab"


def test_the_first_name_of_a_file_that_got_its_last_one_is_free_again(part, tmp_path):
    part.write(b"a")
    part.finish()
    other = PartFile(tmp_path / "rows", tmp_path / "rows.part")
    other.write(b"b")
    other.finish()
    assert (tmp_path / "rows").read_bytes() == b"b"


@pytest.mark.parametrize("name", ["no/such/directory", "."])
def test_a_place_where_no_file_can_be(tmp_path, name):
    with pytest.raises(OSError, match=os.strerror(errno.ENOENT if "/" in name else errno.EISDIR)) as caught:
        PartFile(tmp_path / name, tmp_path / name)
    assert caught.value.filename == str(tmp_path / name)
