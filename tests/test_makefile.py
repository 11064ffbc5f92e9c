"""`make` names a missing or outdated tool in one sentence before it builds anything."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOO_OLD = {
    "cargo 1.84.1": (
        "cargo",
        'echo "cargo 1.84.1 (66221abde 2024-11-19)"',
        "casdk needs cargo 1.85 or newer, and here it is 1.84.1",
    ),
    "no cargo": ("cargo", "exit 127", "casdk needs cargo 1.85 or newer, and here it is missing"),
    "Python 3.10": (
        "python3",
        '[ "$1" = -V ] && echo "Python 3.10.14"',
        "casdk needs Python 3.11 or newer, and 'python3' is Python 3.10.14",
    ),
    "no Python": ("python3", "exit 127", "casdk needs Python 3.11 or newer, and 'python3' is missing"),
}


@pytest.fixture
def make(tmp_path):
    """A function that makes a target with one program replaced by a script."""
    (tmp_path / "bin").mkdir()
    # The rules alone: nothing was made here, and nothing may be.
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())

    def make(target, program, script):
        fake = tmp_path / "bin" / program
        fake.write_text(f"#!/bin/sh\n{script}\n")
        fake.chmod(0o755)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTHON"))}
        environment["PATH"] = f"{tmp_path / 'bin'}:{environment['PATH']}"
        return subprocess.run(["make", target], cwd=tmp_path, env=environment, capture_output=True, text=True)

    return make


@pytest.mark.parametrize("case", TOO_OLD)
@pytest.mark.parametrize("target", ["demo", "test"])
def test_what_is_too_old_is_named_in_one_sentence(make, tmp_path, target, case):
    program, script, sentence = TOO_OLD[case]
    done = make(target, program, script)
    assert done.returncode != 0
    said, end = done.stderr.splitlines()
    assert said.startswith(sentence)
    assert end.startswith("make: ***")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Makefile", "bin"]
