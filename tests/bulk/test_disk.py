"""What targets write with: files that are whole or not there, a lock that dies with its holder, a checksum."""

import os
import resource
import signal
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from casdk import BulkError
from casdk.bulk.disk import Checksum, Lock, Part, rename, sum_of, sync_folder, write_whole
from hypothesis import given
from hypothesis import strategies as st


@given(st.binary(max_size=70), st.lists(st.integers(0, 70), max_size=5))
def test_a_checksum_is_the_sum_of_the_words_however_they_come(data, cuts):
    checksum = Checksum()
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, stop in pairwise(places):
        checksum.add(data[start:stop])
    words = np.frombuffer(data + bytes(-len(data) % 8), "<u8").tolist()
    assert int(checksum.text, 16) == sum(words) % 2**64


def test_the_checksum_of_several_is_that_of_all_of_them():
    parts = [Checksum() for _ in range(3)]
    data = [b"\xff" * 16, bytes(range(64)), b"end"]
    for part, one in zip(parts, data, strict=True):
        part.add(one)
    whole = Checksum()
    whole.add(b"".join(data))
    assert sum_of(part.text for part in parts) == whole.text
    assert sum_of([]) == Checksum().text


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    write_whole(path, b"first")
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["a.json"]
    with pytest.raises(OSError, match=r"a\.json") as caught:
        write_whole(tmp_path / "nothing" / "a.json", b"")
    assert "nothing" in caught.value.filename


def test_a_part_goes_on_where_it_is_cut(tmp_path):
    part = Part(tmp_path / "rows.part")
    part.checksum = Checksum()
    assert part.write(b"12345678") == 8
    assert part.write(memoryview(b"abc")) == 3
    part.overwrite(b"_")
    part.sync()
    part.close()
    part.close()
    again = Part(tmp_path / "rows.part", 8)
    again.write(b"XY")
    assert again.tell() == 10
    again.flush()
    again.cut(9)
    again.close()
    rename(again.path, tmp_path / "rows")
    sync_folder(tmp_path)
    assert (tmp_path / "rows").read_bytes() == b"_2345678X"


def test_a_part_holds_all_of_a_write_or_nothing(tmp_path):
    part = Part(tmp_path / "rows.part")
    part.write(b"1234")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6, before[1]))
    try:
        with pytest.raises(OSError, match=r"rows\.part"):
            part.write(b"5678")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    part.close()
    assert (tmp_path / "rows.part").read_bytes() == b"1234"


def test_one_process_at_a_time(tmp_path):
    lock = Lock(tmp_path / "lock", "rows.npy")
    with pytest.raises(BulkError, match=r"rows\.npy is being written by another process"):
        Lock(tmp_path / "lock", "rows.npy")
    lock.release()
    assert os.listdir(tmp_path) == []
    Lock(tmp_path / "lock", "rows.npy").release()


def test_a_process_that_is_killed_leaves_no_lock(tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from casdk.bulk.disk import Lock\n"
        "lock = Lock(Path(sys.argv[1]), 'rows'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path / "lock"], check=False).returncode == -9
    assert (tmp_path / "lock").exists()
    Lock(tmp_path / "lock", "rows").release()
