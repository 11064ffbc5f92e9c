"""CPU and time of a bulk run beside `encode` of the same texts into memory, so what a target costs.

A job encodes its input once. So the first comparison runs each contender in a new process, where `encode` has to get
the memory for its matrix from the system. The second one repeats both in one process. There the matrix of `encode` lies
in memory that the process has used before.
"""

import shutil
from pathlib import Path

import pytest
from arena import Arena, Rival
from casdk import Client
from workers.content import texts

FIRST_ROWS = 300_000
"""Rows of a process's first call: their matrix of 614 MB is larger than what glibc keeps of freed memory."""
REPEATED_ROWS = 100_000
TARGETS = {"a .npy": "rows.npy", "a folder of Parquet files": "rows"}
BATCHES = {"batch 32": 32, "batch as found": None, "each with its own batch": "auto"}
"""Both with requests of the same size; and both without `batch_size=`, where `encode` sends 32 items in a request."""


def encode_at(batch: int | str) -> Rival:
    """`encode`, with requests as large as those of the bulk run, or with its own where that finds out by itself."""
    return Rival("encode", "casdk", {"verb": "encode"} | ({"batch": 32} if batch == "auto" else {}))


@pytest.fixture(scope="module")
def found(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many items a request had better have, as a run finds by itself."""
    address, _ = arena.peer("fast").address("grpc")
    with Client(address) as client:
        return client.encode_to(tmp_path_factory.mktemp("found") / "rows.npy", texts(REPEATED_ROWS)).batch_size


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("target", TARGETS)
def test_first_call(benchmark, arena: Arena, found: int, tmp_path: Path, target: str, batch: str) -> None:
    folder = tmp_path / "target"

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()

    bulk = {"verb": "encode_to", "target": str(folder / TARGETS[target])}
    case = {"content": "texts", "n": FIRST_ROWS, "batch": BATCHES[batch] or found} | bulk
    claim = f"{FIRST_ROWS:,} texts into {target}, {batch}, the first call of a process"
    arena.compete_once(benchmark, claim, "grpc", case, [encode_at(case["batch"])], prepare)
    shutil.rmtree(folder)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("target", TARGETS)
def test_repeated(benchmark, arena: Arena, found: int, tmp_path: Path, target: str, batch: str) -> None:
    case = {"content": "texts", "n": REPEATED_ROWS, "batch": BATCHES[batch] or found}
    bulk = {"verb": "encode_to", "target": str(tmp_path / TARGETS[target])}
    claim = f"{REPEATED_ROWS:,} texts into {target}, {batch}, repeated in one process"
    arena.compete(benchmark, claim, "grpc", case | bulk, [encode_at(case["batch"])])
