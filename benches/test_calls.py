"""How many instructions a whole call takes in user space.

By itself, also against another checkout of casdk, which has been built there (see `benches/README.md`)::

    CASDK_BENCH_OTHER=../before .venv/bin/pytest -c benches/pytest.ini benches/test_calls.py
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from arena import Arena, Row
from counting import Counted, counted, needs_callgrind

WORKER = Path(__file__).parent / "workers" / "calls.py"
TIMES = 100

pytestmark = needs_callgrind


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Counted]]:
    """One process for each checkout."""
    with counted(WORKER, tmp_path_factory) as running:
        yield running


@pytest.mark.parametrize("batch", [1, 32])
@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_a_call(benchmark, arena: Arena, processes: dict[str, Counted], scheme: str, batch: int) -> None:
    address, _ = arena.peer("fast").address(scheme)
    row = Row(f"a call, batch {batch}", scheme, {name: {} for name in processes}, {})

    def measure() -> None:
        for name, process in processes.items():
            # What is not of the calls, such as reading the counter, is in both and goes.
            few, many = (process.count(address, batch, times) for times in (TIMES, 3 * TIMES))
            row.figures[name]["instructions a call"] = [(many - few) / (2 * TIMES)]

    benchmark.pedantic(measure, rounds=1, iterations=1)
    arena.keep(row, benchmark)
