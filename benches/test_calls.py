"""How many instructions a whole call takes in user space: no clock, so nearly the same on a busy machine.

By itself, also against another checkout of casdk, which has been built there (see `benches/README.md`)::

    CASDK_BENCH_OTHER=../before .venv/bin/pytest -c benches/pytest.ini benches/test_calls.py
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from arena import OURS, Arena, Row

ROOT = Path(__file__).parents[1]
WORKER = Path(__file__).parent / "workers" / "calls.py"
OTHER = os.environ.get("CASDK_BENCH_OTHER", "")
"""Another checkout, if there is one to compare with."""
TIMES = 100
CHECKOUTS = {OURS: (ROOT, sys.executable)}
if OTHER:
    python = os.environ.get("CASDK_BENCH_OTHER_PYTHON") or str(Path(OTHER) / ".venv" / "bin" / "python")
    CHECKOUTS["other"] = (Path(OTHER), python)

pytestmark = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind counts the instructions")


class Counted:
    """A process that makes calls under callgrind.

    It starts once for all cases, because a start takes more than all the calls; the counter is read, which resets it,
    before and after the calls of each.

    Args:
        checkout: The casdk that is measured: the root of its source tree.
        python: Its interpreter.
        folder: Where callgrind leaves its counters.
    """

    def __init__(self, checkout: Path, python: str, folder: Path) -> None:
        self._folder = folder
        self._dumps = 0
        callgrind = ("valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={folder / 'counter'}")
        environment = os.environ | {"PYTHONPATH": str(checkout / "python"), "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            [*callgrind, python, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def count(self, address: str, batch: int, times: int) -> int:
        """Return the instructions of so many calls, each of one request, and of reading the counter."""
        self._tell(f"{address} {batch} {times}\n")
        self._read()
        self._tell("\n")
        counted = self._read()
        self._tell("\n")
        return counted

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def _read(self) -> int:
        """Return what was counted since the last time, once the process says that it waits."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", f"{WORKER} has ended"
        subprocess.run(["callgrind_control", "--dump", str(self._process.pid)], check=True, capture_output=True)
        self._dumps += 1
        found = re.search(r"^totals: (\d+)", (self._folder / f"counter.{self._dumps}").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1])


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Counted]]:
    """One process for each checkout."""
    running = {
        name: Counted(checkout, python, tmp_path_factory.mktemp(name)) for name, (checkout, python) in CHECKOUTS.items()
    }
    yield running
    for process in running.values():
        process.close()


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
