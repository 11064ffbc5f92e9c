"""What a bulk run takes into clip-retrieval's layout, beside clip-retrieval's own writer with the same rows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from arena import OURS, ROUNDS, Arena, Row
from contenders import FailedError, writer_of_clip_retrieval

WORKERS = Path(__file__).with_name("workers")
COUNTS = [40_000, 100_000]
"""Pairs; clip-retrieval holds all of a partition in memory until it writes it, casdk a shard's lines on disk."""


@pytest.fixture(scope="module")
def theirs() -> str:
    """The interpreter of the environment with clip-retrieval, if it installs."""
    try:
        return str(writer_of_clip_retrieval())
    except FailedError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("count", COUNTS)
def test_clip_retrieval(theirs: str, benchmark, arena: Arena, tmp_path: Path, count: int) -> None:
    row = Row(f"{count:,} pairs into clip-retrieval's layout", "", {}, {})
    sums = []

    def write(label: str, python: str, script: str) -> None:
        folder = tmp_path / f"{label}-{len(sums)}"
        command = [python, str(WORKERS / script), str(count), str(folder)]
        said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        sums.append(said["sums"])
        for figure, number in said["figures"].items():
            row.figures.setdefault(label, {}).setdefault(figure, []).append(number)

    def ours() -> None:
        write(OURS, sys.executable, "bulk_writer.py")

    benchmark.pedantic(
        ours, setup=lambda: write("clip-retrieval", theirs, "clip_retrieval_writer.py"), rounds=ROUNDS, iterations=1
    )
    for said in sums:  # the numbers of both, which differ by the rounding of two versions of NumPy at most
        assert said == pytest.approx(sums[0], abs=1e-2)
    arena.keep(row, benchmark)
