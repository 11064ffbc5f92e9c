"""How many instructions the driver takes for a request: casdk without a channel, its replies canned.

By itself, also against another checkout of casdk, as `test_calls.py`::

    CASDK_BENCH_OTHER=../before .venv/bin/pytest -c benches/pytest.ini benches/test_driver.py
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from arena import Arena, Row
from counting import Counted, counted, needs_callgrind

WORKER = Path(__file__).parent / "workers" / "driver.py"
TIMES = 200
CALLS = {"single": "a call of one request", "bulk": "a request of a call of many"}
REPLIES = {"at-once": "its reply is there at once", "together": "replies arrive together"}

pytestmark = needs_callgrind


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Counted]]:
    """One process for each checkout."""
    with counted(WORKER, tmp_path_factory) as running:
        yield running


@pytest.mark.parametrize("batch", [1, 32])
@pytest.mark.parametrize("replies", REPLIES)
@pytest.mark.parametrize("calls", CALLS)
def test_the_driver(
    benchmark, arena: Arena, processes: dict[str, Counted], calls: str, replies: str, batch: int
) -> None:
    row = Row(
        f"the driver alone, {CALLS[calls]}, batch {batch}: {REPLIES[replies]}", "", {name: {} for name in processes}, {}
    )

    def measure() -> None:
        for name, process in processes.items():
            few, many = (process.count(calls, replies, batch, times) for times in (TIMES, 3 * TIMES))
            row.figures[name]["instructions a call"] = [(many - few) / (2 * TIMES)]

    benchmark.pedantic(measure, rounds=1, iterations=1)
    arena.keep(row, benchmark)
