"""Ids: none is drawn twice, by any threads and processes."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections import Counter

from casdk._rust import new_id


def test_ids_are_hex_and_never_the_same() -> None:
    ids: set[str] = set()

    def draw() -> None:
        ids.update(new_id() for _ in range(5000))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 20_000
    assert all(re.fullmatch("[0-9a-f]{32}", drawn) for drawn in ids)


def test_ids_are_random_in_every_digit() -> None:
    drawn = [new_id() for _ in range(4000)]
    for digits in zip(*drawn, strict=True):
        counts = Counter(digits)
        assert len(counts) == 16
        assert max(counts.values()) < 400  # of 250 on average: ten deviations


FAMILY = """
import os
from casdk._rust import new_id

ids, reading = [], []
os.register_at_fork(after_in_child=lambda: ids.append(new_id()))  # runs before that of new_id, which comes to be now
if DRAWN:
    ids.append(new_id())
for child in range(3):
    read, write = os.pipe()
    if not os.fork():
        if not os.fork():
            ids.append(new_id())
        os.write(write, " ".join([*ids[DRAWN:], *(new_id() for _ in range(2)), ""]).encode())
        os._exit(0)
    os.close(write)
    reading.append(read)
ids.append(new_id())
for read in reading:
    with open(read) as pipe:
        ids += pipe.read().split()
print(*ids)
"""


def test_forked_children_and_their_children_draw_other_ids() -> None:
    for drawn in (0, 1):
        script = f"DRAWN = {drawn}\n{FAMILY}"
        said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=50)
        ids = said.stdout.split()
        times = Counter(ids)
        assert len(ids) == drawn + 1 + 3 * (3 + 5)
        # What the hook of each of the three children drew is told by that child's child as well.
        assert sorted(times.values())[-4:] == [1, 2, 2, 2]
