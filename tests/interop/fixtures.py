"""Fixtures of the interop suites: the servers, started once each, and what they are expected to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from casdk import TLS, Client
from deterministic import cosines, rows, softmax
from environment import NEWEST, OLDEST, REFERENCE, Environment, UnavailableError
from samples import Sample
from servers import Flows, Kind, Reference

CLIP_SERVER = f"clip-server 0.8.3 on jina {REFERENCE.version}"
SERVERS: dict[str, tuple[Environment, Kind]] = {
    f"{what}jina {environment.version}": (environment, kind)
    for what, kind in (("", "fake"), ("clip-server 0.8.3 on ", "real"))
    for environment in (OLDEST, REFERENCE, NEWEST)
}
"""Real servers by the names the table has for them."""
SCHEMES = ("grpc", "grpcs", "http", "https", "websocket", "websockets")
MODES = ("sync", "async")


class Served:
    """A running server and what it is to answer.

    Attributes:
        flows: The server.
        exact: Whether its rows are recomputed here bit by bit, not by clip_server's own executor.
    """

    def __init__(self, flows: Flows, kind: Kind, reference: Callable[[], Reference]) -> None:
        self.flows = flows
        self.exact = kind != "real"
        self._reference = reference

    def client(self, scheme: str, **options: Any) -> Client:
        """Return a client of this server."""
        if scheme.endswith("s"):
            options["tls"] = TLS(ca=str(self.flows.certificate))
        return Client(self.flows.url(scheme), **options)

    def rows(self, samples: Sequence[Sample]) -> np.ndarray[Any, Any]:
        """Return the embeddings ``[N, 512]`` the executor computes for these."""
        if self.exact:
            return rows([s.content for s in samples])
        return np.asarray(self._reference().ask("clip", verb="encode", content=[s.known for s in samples]))

    def scores(self, query: Sample, candidates: Sequence[Sample]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return probability and cosine of each candidate ``[C]``."""
        if self.exact:
            cosine = cosines(self.rows([query]), self.rows(candidates))[0]
            return softmax(cosine), cosine
        named = [{**c.known, "id": str(i)} for i, c in enumerate(candidates)]
        (ranked,) = self._reference().ask("clip", verb="rank", content=[{**query.known, "matches": named}])
        found = sorted(ranked["matches"], key=lambda match: int(match["id"]))
        values = [[m["scores"][name]["value"] for m in found] for name in ("clip_score", "clip_score_cosine")]
        return np.array(values[0]), np.array(values[1])


def call(client: Client, mode: str, verb: str, *arguments: Any, **options: Any) -> Any:
    """Call a verb, or its async twin from a loop of its own."""
    if mode == "sync":
        return getattr(client, verb)(*arguments, **options)
    return asyncio.run(getattr(client, f"a{verb}")(*arguments, **options))


@pytest.fixture(scope="session")
def reference() -> Iterator[Callable[[], Reference]]:
    """The reference environment at work, started when first asked."""
    started: list[Reference] = []

    def start() -> Reference:
        if not started:
            started.append(Reference(REFERENCE))
        return started[0]

    yield start
    for one in started:
        one.close()


@pytest.fixture(scope="session")
def clip_reference(reference: Callable[[], Reference]) -> Reference:
    """The reference environment with clip_server's executor in it."""
    _build_clip(REFERENCE)
    return reference()


def _build_clip(environment: Environment) -> None:
    if reason := _lacking(environment):
        pytest.skip(reason)


@cache
def _lacking(environment: Environment) -> str | None:
    try:
        environment.build_clip()
    except UnavailableError as reason:
        return str(reason)
    return None


@pytest.fixture(scope="session")
def running(reference: Callable[[], Reference]) -> Iterator[Callable[[str], Served]]:
    """Servers by their names in `SERVERS`, started when first asked for; one of the heavy ones at a time."""
    served: dict[str, Served] = {}

    def start(name: str) -> Served:
        if name not in served:
            environment, kind = SERVERS[name]
            if kind == "real":
                _build_clip(environment)
                _build_clip(REFERENCE)  # which says what is expected
                for other in [other for other in served if SERVERS[other][1] == "real"]:
                    served.pop(other).flows.stop()
            served[name] = Served(Flows(environment, kind), kind, reference)
        return served[name]

    yield start
    for one in served.values():
        one.flows.stop()


@pytest.fixture
def server(request: pytest.FixtureRequest, running: Callable[[str], Served]) -> Served:
    """The server a test is parametrized with, by its name in `SERVERS`."""
    return running(request.param)


@pytest.fixture(scope="module")
def encoder_server(reference: Callable[[], Reference]) -> Iterator[Served]:
    """The reference's jina with an executor that has no index."""
    with Flows(REFERENCE, "encoder") as flows:
        yield Served(flows, "encoder", reference)


@pytest.fixture
def deterministic_server(running: Callable[[str], Served]) -> Served:
    """The reference's jina with the deterministic executor."""
    return running(f"jina {REFERENCE.version}")
