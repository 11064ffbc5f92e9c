"""Pytest fixtures; take them with ``pytest_plugins = ["casdk.testing.fixtures"]`` in your ``conftest.py``."""

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
    """Each of the six schemes in turn."""
    return str(request.param)


@pytest.fixture
def fault_server() -> Iterator[FaultServer]:
    """A running `FaultServer` without faults; give it some with ``fault_server.play(...)``."""
    with FaultServer() as server:
        yield server


def _made(kind: Callable[..., AbstractContextManager[T]]) -> Iterator[Callable[..., T]]:
    """Yield a function with a class's arguments that returns a running one; all of them are stopped in the end."""
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(kind(*args, **options))


@pytest.fixture
def make_fault_server() -> Iterator[Callable[..., FaultServer]]:
    """A function with `FaultServer`'s arguments that returns a running one."""
    yield from _made(FaultServer)


@pytest.fixture
def tcp_proxy() -> Iterator[Callable[[int], TcpProxy]]:
    """A function from a server's port to a running `TcpProxy` in front of it."""
    yield from _made(TcpProxy)


@pytest.fixture
def connect_proxy() -> Iterator[Callable[..., ConnectProxy]]:
    """A function with `ConnectProxy`'s arguments that returns a running one."""
    yield from _made(ConnectProxy)


@pytest.fixture
def black_hole() -> Iterator[BlackHole]:
    """A port that drops SYNs."""
    with BlackHole() as hole:
        yield hole
