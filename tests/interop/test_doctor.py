"""The doctor with a real jina: a healthy flow, a scheme on another one's port, and a killed executor."""

from __future__ import annotations

import os
import signal
from itertools import permutations

import pytest
from casdk.cli.access import Access
from casdk.cli.doctor import examine
from environment import REFERENCE
from fixtures import SCHEMES, Served
from servers import Flows

PLAIN = ("grpc", "http", "websocket")


def trusting(flows: Flows) -> Access:
    return Access(ca=flows.certificate)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_is_wrong(deterministic_server: Served, scheme: str) -> None:
    flows = deterministic_server.flows
    findings = list(examine(flows.url(scheme), trusting(flows) if scheme.endswith("s") else Access()))
    assert all(finding.ok for finding in findings), findings
    assert [finding.step for finding in findings][-3:] == ["auth", "dry run", "encode"]


@pytest.mark.parametrize(("asked", "spoken"), [*permutations(PLAIN, 2), *((scheme, f"{scheme}s") for scheme in PLAIN)])
def test_a_scheme_on_the_port_of_another(deterministic_server: Served, asked: str, spoken: str) -> None:
    right = deterministic_server.flows.url(spoken)
    *_, last = examine(f"{asked}://{right.partition('://')[2]}", Access())
    assert (last.step, last.cure) == ("protocol", f"use {right}")


def test_an_executor_that_was_killed() -> None:
    with Flows(REFERENCE) as flows:
        os.kill(flows.processes["plain_clip"], signal.SIGKILL)
        for scheme in PLAIN:
            *_, last = examine(flows.url(scheme), Access(read_timeout=20))
            assert last.step == "dry run"
            assert "executor" in last.cure
