"""Every command of docs/cli.md runs as it stands there, against the embedded server."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
ADDRESS = "grpc://127.0.0.1:51000"
LINES = [
    line.removeprefix("$ ")
    for block in re.findall(r"^```console\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if line.startswith("$ ")
]


def test_there_is_something_to_run():
    assert len(LINES) >= 5
    assert all(ADDRESS in line for line in LINES)


@pytest.mark.parametrize("line", LINES)
def test_line(line, url, images, tmp_path):
    shutil.copytree(images["png"].parent, tmp_path / "photos")
    shutil.copy(images["png"], tmp_path / "apple.png")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", "-euo", "pipefail", "-c", line.replace(ADDRESS, url)]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("command", re.findall(r"^\| `casdk (\w+)", PAGE, re.MULTILINE))
def test_a_command_of_the_table_exists(command):
    from casdk.cli.commands import app

    assert command in app
