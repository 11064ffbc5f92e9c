"""Fixtures of the fault tests: servers that fail on purpose, clients of them, and the figures they find."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from casdk import TLS, Client
from casdk.testing import FaultServer, embed

WIDTH = 32


@pytest.fixture
def make_server() -> Iterator[Callable[..., FaultServer]]:
    """A function with FaultServer's arguments that returns a running one; its rows are 32 wide."""
    servers = []

    def make(*arguments: Any, **options: Any) -> FaultServer:
        options.setdefault("width", WIDTH)
        servers.append(FaultServer(*arguments, **options).start())
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def connect_to() -> Iterator[Callable[..., Client]]:
    """A function from a server (or proxy), a scheme and Client's options to a client of it."""
    clients = []

    def connect(place: Any, scheme: str, **options: Any) -> Client:
        if scheme.endswith("s") and "tls" not in options:
            ca = getattr(place, "ca", None) or FaultServer().ca
            options["tls"] = TLS(ca=ca)
        clients.append(Client(place.address(scheme), **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def rows() -> Callable[[list[str]], np.ndarray]:
    """What the server computes: ``[N, 32]``."""

    def rows(texts: list[str]) -> np.ndarray:
        return np.stack([embed(text, WIDTH) for text in texts])

    return rows


PAIRS = [
    ("grpc", "sync"),
    ("grpcs", "async"),
    ("http", "async"),
    ("https", "sync"),
    ("websocket", "sync"),
    ("websockets", "async"),
]


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Each scheme once, each mode three times: for what they decide apart from each other."""
    scheme, mode = request.param
    return scheme, mode


class _Heap(ctypes.Structure):
    """``struct mallinfo2`` of glibc."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks")),
        *((name, ctypes.c_size_t) for name in ("uordblks", "fordblks", "keepcost")),
    )


@pytest.fixture
def allocated() -> Callable[[], int]:
    """How many bytes ``malloc`` has given out that were not freed: a leak of native code, and no fragmentation."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("only glibc tells what is allocated")
    libc.mallinfo2.restype = _Heap

    def allocated() -> int:
        gc.collect()
        heap = libc.mallinfo2()
        return int(heap.uordblks + heap.hblkhd)

    return allocated


@pytest.fixture
def grown() -> Callable[[], int]:
    """A function that returns how many bytes this process has had resident since the beginning of the test, at most."""

    def resident(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    return lambda: resident("VmHWM") - before


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """Record a figure; the worst of each name is shown at the end of the run."""
    return partial(_record, request.node, "worst")


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Add to a figure that is shown at the end of the run."""
    return partial(_record, request.node, "sum")


def _record(item: pytest.Item, kind: str, name: str, value: float = 1) -> None:
    # A report takes the properties of its test along to the process that writes the summary.
    item.user_properties.append((kind, (name, float(value))))


@pytest.fixture
def stopwatch() -> Callable[[], Any]:
    """A context whose ``.seconds`` is how long it took."""

    class Watch:
        seconds = 0.0

    @contextmanager
    def watch() -> Iterator[Watch]:
        found, start = Watch(), time.monotonic()
        try:
            yield found
        finally:
            found.seconds = time.monotonic() - start

    return watch


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show the figures of docs/guarantees.md."""
    figures: dict[str, float] = {}
    for report in [report for reports in terminalreporter.stats.values() for report in reports]:
        # What is no test's report has no `when`; those of its setup and teardown hold the same properties again.
        for kind, (name, value) in report.user_properties if getattr(report, "when", "") == "call" else ():
            known = figures.get(name)
            figures[name] = value if known is None else known + value if kind == "sum" else max(known, value)
    if figures:
        terminalreporter.section("figures")
        for name, value in sorted(figures.items()):
            terminalreporter.write_line(f"{name}: {value:g}")
