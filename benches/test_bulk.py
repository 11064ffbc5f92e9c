"""CPU and time of a bulk run beside `encode` of the same texts into memory, so what a target costs."""

from pathlib import Path

import pytest
from arena import Arena, Rival
from casdk import Client
from workers.content import texts

ROWS = 100_000
TARGETS = {"a .npy": "rows.npy", "a folder of Parquet files": "rows"}


@pytest.fixture(scope="module")
def found(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many items a request had better have, as a run finds by itself."""
    address, _ = arena.peer("fast").address("grpc")
    with Client(address) as client:
        return client.encode_to(tmp_path_factory.mktemp("found") / "rows.npy", texts(ROWS)).batch_size


@pytest.mark.parametrize("batch", [32, None])
@pytest.mark.parametrize("target", TARGETS)
def test_bulk(benchmark, arena: Arena, found: int, tmp_path: Path, target: str, batch: int | None) -> None:
    case = {"content": "texts", "n": ROWS, "batch": batch or found}
    bulk = {"verb": "encode_to", "target": str(tmp_path / TARGETS[target])}
    claim = f"{ROWS:,} texts into {target}, batch {batch or 'as found'}"
    arena.compete(benchmark, claim, "grpc", case | bulk, [Rival("encode", "casdk", {"verb": "encode"})])
