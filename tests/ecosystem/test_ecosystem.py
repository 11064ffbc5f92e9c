"""Runs each suite of `suites/`, and the examples of the engines, in an environment of its own: ``make ecosystem``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ADDRESS, titled

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from environment import PINS, ROOT, UnavailableError, python_of, variables_of  # noqa: E402

SUITES = HERE / "suites"
EXAMPLES = {"dask": "dask_column.py", "ray": "ray_column.py", "torch": "torch_dataloader.py"}


@pytest.fixture(scope="module")
def variables(server, images) -> dict[str, str]:
    """Where the embedded server of this process listens, and a picture."""
    return {"CASDK_SERVER": server.address("grpc"), "CASDK_PICTURE": str(images["png"])}


def run(name: str, variables: dict[str, str], *arguments: str, cwd: Path | None = None) -> None:
    try:
        command = [str(python_of(name)), *arguments]
    except UnavailableError as reason:
        pytest.skip(str(reason))
    environment = variables_of(name) | variables
    done = subprocess.run(
        command, env=environment, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PINS)
def test_suite(name, variables):
    run(name, variables, "-m", "pytest", "-c", str(SUITES / "pytest.ini"), str(SUITES / f"with_{name}.py"))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, variables):
    run(name, variables, str(ROOT / "examples" / EXAMPLES[name]), variables["CASDK_SERVER"])


BLOCKS = [fence for fence in titled() if fence.title in PINS]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("fence", BLOCKS, ids=[f"{fence.page} {fence.title}" for fence in BLOCKS])
def test_page(fence, variables, tmp_path):
    shutil.copy(variables["CASDK_PICTURE"], tmp_path / "apple.png")
    program = tmp_path / "block.py"
    assert ADDRESS.search(fence.text)
    program.write_text(ADDRESS.sub(variables["CASDK_SERVER"], fence.text))
    run(fence.title, variables, program.name, cwd=tmp_path)


def test_every_suite_has_pins():
    assert {path.stem.removeprefix("with_") for path in SUITES.glob("with_*.py")} == set(PINS)
    assert {fence.title for fence in BLOCKS} == set(PINS)
