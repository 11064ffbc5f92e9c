"""Runs the suites of `documents/` against each version of docarray, in its own environment, and a real server."""

import pytest
from documents.run import SUITES, run
from fixtures import Served

SCHEMES = ("grpc", "http", "websocket")


@pytest.mark.parametrize("version", SUITES)
def test_docarray(deterministic_server: Served, version: str) -> None:
    environment, suites = SUITES[version]
    done = run(environment, suites, {scheme: deterministic_server.flows.url(scheme) for scheme in SCHEMES})
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout, done.stdout
