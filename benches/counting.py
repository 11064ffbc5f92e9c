"""Processes whose instructions in user space callgrind counts: no clock, so nearly the same on a busy machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from arena import OURS

ROOT = Path(__file__).parents[1]
OTHER = os.environ.get("CASDK_BENCH_OTHER", "")
"""Another checkout, if there is one to compare with."""
CHECKOUTS = {OURS: (ROOT, sys.executable)}
if OTHER:
    python = os.environ.get("CASDK_BENCH_OTHER_PYTHON") or str(Path(OTHER) / ".venv" / "bin" / "python")
    CHECKOUTS["other"] = (Path(OTHER), python)

needs_callgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind counts the instructions")


class Counted:
    """A process of a checkout's casdk that makes calls under callgrind.

    It starts once for all cases, because a start takes more than all the calls; the counter is read, which resets it,
    before and after the calls of each.

    Args:
        worker: The program, which prints ``ready`` before and after the calls that a line of its input asks for, and
            waits for an empty line each time.
        checkout: The casdk that is measured: the root of its source tree.
        python: Its interpreter.
        folder: Where callgrind leaves its counters.
    """

    def __init__(self, worker: Path, checkout: Path, python: str, folder: Path) -> None:
        self._worker, self._folder = worker, folder
        self._dumps = 0
        callgrind = ("valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={folder / 'counter'}")
        environment = os.environ | {"PYTHONPATH": str(checkout / "python"), "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            [*callgrind, python, str(worker)],
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

    def count(self, *asked: object) -> int:
        """Return the instructions of what the worker is asked for, and of reading the counter."""
        self._tell(" ".join(map(str, asked)) + "\n")
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
        assert self._process.stdout.readline() == "ready\n", f"{self._worker} has ended"
        subprocess.run(["callgrind_control", "--dump", str(self._process.pid)], check=True, capture_output=True)
        self._dumps += 1
        found = re.search(r"^totals: (\d+)", (self._folder / f"counter.{self._dumps}").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1])


@contextmanager
def counted(worker: Path, folders: pytest.TempPathFactory) -> Iterator[dict[str, Counted]]:
    """Run a worker once for each checkout."""
    with ExitStack() as stack:
        running = {}
        for name, (checkout, python) in CHECKOUTS.items():
            running[name] = Counted(worker, checkout, python, folders.mktemp(name))
            stack.callback(running[name].close)
        yield running
