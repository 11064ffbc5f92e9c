"""Pytest fixtures; ``pytest_plugins = ["casdk.testing.fixtures"]`` in your ``conftest.py`` makes them available."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

import pytest

from casdk.testing.proxy import BlackHole, ConnectProxy, TcpProxy
from casdk.testing.server import SCHEMES, FaultServer

__all__ = ["black_hole", "connect_proxy", "fault_server", "make_fault_server", "scheme", "tcp_proxy"]

T = TypeVar("T")


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    """Run the test once for each of the six schemes."""
    return str(request.param)


@pytest.fixture
def fault_server() -> Iterator[FaultServer]:
    """A running `FaultServer` without faults; ``fault_server.play(...)`` adds some."""
    with FaultServer() as server:
        yield server


def _made(kind: Callable[..., AbstractContextManager[T]]) -> Iterator[Callable[..., T]]:
    """Yield a function that makes and starts an object of a class; all of these objects are stopped at the end."""
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(kind(*args, **options))


@pytest.fixture
def make_fault_server() -> Iterator[Callable[..., FaultServer]]:
    """A function that takes the arguments of `FaultServer` and returns a running one."""
    yield from _made(FaultServer)


@pytest.fixture
def tcp_proxy() -> Iterator[Callable[[int], TcpProxy]]:
    """A function that takes a server's port and returns a running `TcpProxy` in front of it."""
    yield from _made(TcpProxy)


@pytest.fixture
def connect_proxy() -> Iterator[Callable[..., ConnectProxy]]:
    """A function that takes the arguments of `ConnectProxy` and returns a running one."""
    yield from _made(ConnectProxy)


@pytest.fixture
def black_hole() -> Iterator[BlackHole]:
    """A `BlackHole`: a port on which connecting hangs."""
    with BlackHole() as hole:
        yield hole
