"""What is done with a store by each of two libraries, and what it takes."""

import json
import os
import sys
import time
from collections.abc import Callable

BUCKET = "bench"
LISTED = [f"listed/{number:05d}.jpg" for number in range(10_000)]
IMAGES = [f"images/{number:05d}.jpg" for number in range(2_000)]
IMAGE_BYTES = 100_000
LARGE = "large.tar"
LARGE_BYTES = 64 << 20
BLOCK_BYTES = 8 << 20
"""Bytes of the large object that are requested at a time."""
SHARDS = [f"shards/{os.getpid()}-{number}.parquet" for number in range(4)]
SHARD_BYTES = 50_000_000
AT_ONCE = 64
"""Images that are read at once."""


def run(tasks: dict[str, Callable[[], int]]) -> None:
    """Do what the first argument names, and print what it took, and how many objects or bytes it was about.

    ``warm`` comes before it, so that neither imports nor the first connection are measured, and ``remove`` after it.
    """
    tasks["warm"]()
    begun = time.process_time(), time.perf_counter()
    count = tasks[sys.argv[1]]()
    cpu, seconds = time.process_time() - begun[0], time.perf_counter() - begun[1]
    if sys.argv[1] == "put":
        tasks["remove"]()
    print(json.dumps({"cpu": cpu, "seconds": seconds, "count": count}))
