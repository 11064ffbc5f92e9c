"""What the tests of pools share: scripted servers that give rows of 8 numbers, and clients of several of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from casdk import TLS, Client
from casdk.testing import Fault, FaultServer, embed
from other_model import OtherModel

WIDTH = 8


@pytest.fixture
def make_servers() -> Iterator[Callable[..., list[FaultServer]]]:
    """A function from a script for each server, and FaultServer's options, to as many running ones."""
    servers: list[FaultServer] = []

    def make(*scripts: Any, **options: Any) -> list[FaultServer]:
        made = [FaultServer(script, width=WIDTH, **options).start() for script in scripts]
        servers.extend(made)
        return made

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def pool_of() -> Iterator[Callable[..., Client]]:
    """A function from servers, their schemes and Client's options to a client of them."""
    clients: list[Client] = []

    def pool_of(servers: list[FaultServer], *schemes: str, **options: Any) -> Client:
        schemes = schemes or ("grpc",) * len(servers)
        if any(scheme.endswith("s") for scheme in schemes):
            options.setdefault("tls", TLS(ca=servers[0].ca))
        addresses = [server.address(scheme) for server, scheme in zip(servers, schemes, strict=True)]
        clients.append(Client(addresses, **options))
        return clients[-1]

    yield pool_of
    for client in clients:
        client.close()


@pytest.fixture
def rows() -> Callable[[list[str]], np.ndarray]:
    """What the servers compute: ``[N, 8]``."""

    def rows(texts: list[str]) -> np.ndarray:
        return np.stack([embed(text, WIDTH) for text in texts])

    return rows


@pytest.fixture
def other_model() -> Fault:
    """What a server does that holds another model of the same width."""
    return OtherModel(WIDTH)
