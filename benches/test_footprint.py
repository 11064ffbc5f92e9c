"""What casdk weighs: time to import it, memory of a long run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from arena import OURS, ROUNDS, Arena, Rival, Row
from contenders import original

IMPORT = "import time, numpy; began = time.perf_counter(); {}; print(time.perf_counter() - began)"
STATEMENTS = {
    "import": ("import casdk", "import clip_client"),
    "import and make a client": (
        "import casdk; casdk.Client('grpc://127.0.0.1:1')",
        "import clip_client; clip_client.Client('grpc://127.0.0.1:1')",
    ),
}


@pytest.mark.parametrize("claim", STATEMENTS)
def test_import(benchmark, arena: Arena, tmp_path: Path, claim: str) -> None:
    row = Row(claim, "", {OURS: {"seconds": []}, "original": {"seconds": []}}, {})
    python, variables = original()
    # pip compiles what it installs, the original among it; this tree is compiled here.
    compiled = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    compiled.pop("PYTHONDONTWRITEBYTECODE", None)
    own, others = (IMPORT.format(statement) for statement in STATEMENTS[claim])

    def seconds(*command: str, **options: dict[str, str]) -> float:
        run = subprocess.run(command, check=True, capture_output=True, text=True, **options)
        return float(run.stdout.splitlines()[-1])

    def import_ours() -> None:
        row.figures[OURS]["seconds"].append(seconds(sys.executable, "-c", own, env=compiled))

    def import_original() -> None:
        row.figures["original"]["seconds"].append(seconds(str(python), "-W", "ignore", "-c", others, env=variables))

    seconds(sys.executable, "-c", own, env=compiled)
    benchmark.pedantic(import_ours, setup=import_original, rounds=ROUNDS, iterations=1)
    arena.keep(row, benchmark)


def test_memory_of_texts(benchmark, arena: Arena) -> None:
    case = {"verb": "encode", "content": "generator", "n": 100_000, "batch": 32}
    arena.weigh(benchmark, "100,000 texts from a generator", "grpc", case, [Rival("original", "original")])


def test_memory_of_images(benchmark, arena: Arena, pictures: str) -> None:
    case = {"verb": "encode", "content": "paths", "n": 3000, "batch": 32, "images": pictures}
    arena.weigh(benchmark, "3,000 images of 100 kB by path", "grpc", case, [Rival("original", "original")])
