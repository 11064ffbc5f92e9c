"""Runs the suites of `documents/` against each version of docarray, in its own environment, and a real server."""

import subprocess
from pathlib import Path

import pytest
from documents.run import ROOT, SUITES, run
from fixtures import Served
from pages import ADDRESS, Fence, titled

SCHEMES = ("grpc", "http", "websocket")


@pytest.mark.parametrize("version", SUITES)
def test_docarray(deterministic_server: Served, version: str) -> None:
    environment, suites = SUITES[version]
    done = run(environment, suites, {scheme: deterministic_server.flows.url(scheme) for scheme in SCHEMES})
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout, done.stdout


@pytest.mark.parametrize(
    "fence", [fence for fence in titled() if fence.title == "docarray"], ids=lambda fence: fence.page
)
def test_page(deterministic_server: Served, fence: Fence, tmp_path: Path) -> None:
    [environment] = [environment for version, (environment, _) in SUITES.items() if version.startswith("0.21.")]
    program = tmp_path / "block.py"
    program.write_text(ADDRESS.sub(deterministic_server.flows.url("grpc"), fence.text))
    variables = environment.variables | {"PYTHONPATH": str(ROOT / "python")}
    subprocess.run([str(environment.python), str(program)], env=variables, cwd=tmp_path, check=True)
