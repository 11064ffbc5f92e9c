"""Images with captions of which the embeddings are known: what writers are given, and what they take."""

import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

WIDTH = 512
TABLE = 1024
"""Embeddings there are; they come over and over."""
BATCH = 256
"""Pairs that come at a time, as from a model."""
MIB = 1 << 20


def embeddings() -> np.ndarray:
    """Return ``[TABLE + BATCH, WIDTH]`` float32; pair n has the row n modulo TABLE for its image and its caption."""
    rows = np.random.default_rng(7).standard_normal((TABLE, WIDTH), np.float32)
    return np.concatenate([rows, rows[:BATCH]])


def pairs(count: int) -> Iterator[tuple[str, str]]:
    """Yield the name of an image, and its caption."""
    for number in range(count):
        yield f"{number // 10_000:05d}/{number:09d}", f"a photo of the thing with the number {number}"


def measured(write: Callable[[], None], folder: str) -> None:
    """Print what writing takes, how much memory the process had at most, and what came of it."""
    begun = time.process_time(), time.perf_counter()
    write()
    cpu, seconds = time.process_time() - begun[0], time.perf_counter() - begun[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    files = sorted(Path(folder).glob("*_emb/*.npy"))
    sums = {path.parent.name: float(np.load(path).astype(np.float64).sum()) for path in files}
    print(json.dumps({"figures": {"cpu": cpu, "seconds": seconds, "peak memory": peak}, "sums": sums}))
