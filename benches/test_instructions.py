"""How many instructions the Rust pieces take: no clock, so the same on a busy machine. Needs valgrind."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from arena import OURS, Arena, Row

ROOT = Path(__file__).parents[1]
PIECES = {
    "classify": ("classifying a text", 32),
    "pack": ("packing a text", 32),
    "scan": ("scanning the reply, a row", 32),
    "place": ("copying a row of 512", 32),
    "pack-json": ("packing a text as JSON", 32),
    "read-json": ("reading the reply as JSON, a row of 512", 32),
    "data-uri": ("decoding a data URI, a kB of the image", 100),
}
"""What `rust/core/benches/instructions.rs` knows: what it is, and how many of it go into one time."""

pytestmark = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind counts the instructions")


@pytest.fixture(scope="module")
def program() -> str:
    """The program that runs one piece, built as the benches of the crate are."""
    command = ("cargo", "bench", "--no-run", "--locked", "--quiet", "-p", "casdk-core", "--bench", "instructions")
    built = subprocess.run([*command, "--message-format=json"], cwd=ROOT, check=True, capture_output=True, text=True)
    messages = [json.loads(line) for line in built.stdout.splitlines()]
    [path] = [message["executable"] for message in messages if message.get("executable")]
    return str(path)


def count(program: str, piece: str, times: int) -> int:
    command = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, piece, str(times))
    said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    found = re.search(r"Collected : (\d+)", said)
    assert found is not None, said
    return int(found[1])


@pytest.mark.parametrize("piece", PIECES)
def test_instructions(benchmark, arena: Arena, program: str, piece: str) -> None:
    claim, items = PIECES[piece]
    row = Row(claim, "", {OURS: {}}, {})

    def measure() -> None:
        row.figures[OURS]["instructions"] = [(count(program, piece, 5) - count(program, piece, 1)) / 4 / items]

    benchmark.pedantic(measure, rounds=1, iterations=1)
    arena.keep(row, benchmark)
