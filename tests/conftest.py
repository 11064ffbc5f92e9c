"""What the tests share: one embedded server on six schemes, clients of it, both modes, small images, the oracle."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import os
import signal
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from casdk import TLS, Client
from casdk._transport.address import SCHEMES as ROWS
from casdk._transport.channels import channel_of
from casdk.testing import FaultServer, Gate, TcpProxy
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from casdk.server import Served
    from numpy.typing import NDArray

SCHEMES = tuple(ROWS)
KINDS = ("png", "jpeg", "gif", "webp")
LOGS = ("casdk", "casdk.calls", "casdk.connections", "casdk.progress")

SLOWEST = (
    "test_greenlets.py",
    "faults/test_forks.py",
    "faults/test_reentry.py",
    "crops/test_fidelity.py",
    "bulk/test_kills.py",
    "faults/test_connections.py",
    "test_memory.py",
    "test_examples.py",
    "test_interop.py",
    "faults/test_exit.py",
    "faults/test_concurrency.py",
    "faults/test_restarts.py",
    "cli/test_commands.py",
    "rust/test_reply.py",
    "rust/test_documents.py",
    "faults/test_server_memory.py",
    "faults/test_cancellation.py",
    "faults/test_stopped_runs.py",
    "docs/test_pages.py",
)
"""The files that take longest, most of them with few tests."""

TWINS = (
    "faults",
    "server/test_dispatch.py",
    "test_callbacks.py",
    "test_columns.py",
    "test_encode.py",
    "test_memory.py",
    "test_options.py",
    "test_verbs.py",
)
"""Where a test shows the same over each scheme, unless it has the marker ``tls``."""

# A shell that runs the tests in the background has Ctrl-C ignored, in what they start, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The same of a closed terminal, under nohup.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

if protocols := os.environ.get("CASDK_TESTED_TRANSPORT"):
    # Which channels the tests hold to what stands in them, where a test does not say so itself: "own" or "libraries".
    assert Client.__init__.__kwdefaults__ is not None
    Client.__init__.__kwdefaults__["transport"] = protocols
    channel_of.__defaults__ = (protocols,)

# A state that comes late on a busy machine has come all the same; only one that never comes takes that long.
for wait in (Gate.wait_for, FaultServer.wait_for, TcpProxy.wait_for):
    wait.__defaults__ = (60.0,)

settings.register_profile("fast", max_examples=50, deadline=None)
settings.register_profile("slow", max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


@pytest.hookimpl(tryfirst=True)  # before pytest selects tests by their markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the twins, and sort the tests for the processes that share them."""
    _mark_twins(items)
    if hasattr(config, "workerinput"):
        _sort(items)


def _mark_twins(items: list[pytest.Item]) -> None:
    """Mark tests that show over one scheme what they show over another: `make test` leaves them to `make soak`.

    Of a test over all schemes, `make test` runs the one over grpc, and the one over http or websocket. `make soak` runs
    the other of these two, and the test over one of the secure schemes; over the others it is a further twin. Which
    schemes these are depends on the test's name and its other parameters, so each scheme gets its share of all tests.
    """
    places = [Path(__file__).parent / name for name in TWINS]
    assert all(place.exists() for place in places)
    paths = {path for path in {item.path for item in items} if any(map(path.is_relative_to, places))}
    alike = defaultdict[str, dict[str, pytest.Item]](dict)
    for item in items:
        scheme = item.callspec.params.get("scheme") if hasattr(item, "callspec") else None
        if scheme in ROWS and item.path in paths and not item.get_closest_marker("tls"):
            parameters = [parameter for parameter in item.callspec.id.split("-") if parameter != scheme]
            alike[f"{item.nodeid.partition('[')[0]} {parameters}"][scheme] = item
    for name, tests in alike.items():
        choice = zlib.crc32(name.encode())
        secure = [test for scheme, test in tests.items() if ROWS[scheme].tls]
        for place, test in enumerate(secure):
            test.add_marker("twin")
            if place != choice % len(secure):
                test.add_marker("further_twin")
        plain = [test for scheme, test in tests.items() if not ROWS[scheme].tls and scheme != "grpc"]
        for place, test in enumerate(plain if "grpc" in tests else ()):
            if place != choice % len(plain):
                test.add_marker("twin")


def _sort(items: list[pytest.Item]) -> None:
    """Put the files that take longest first, and after them those with most tests, where processes share the tests.

    A process of `make test` takes one file at a time: one that takes long must not be begun when there is nothing left
    for the others to do. One process alone keeps pytest's order, which is also that of the table of `make interop`.
    """
    places = {Path(__file__).parent / name: place for place, name in enumerate(SLOWEST)}
    assert all(path.is_file() for path in places)
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (places.get(item.path, len(places)), -tests[item.path]))


def pytest_collection_finish() -> None:
    """Exclude from garbage collections the half million objects that exist after collection and live to the end.

    A full collection would take a third of a second otherwise, and tests ask for hundreds of them.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _log_levels() -> Iterator[None]:
    """Fails a test that leaves another level on a logger behind, as later tests would see other records."""
    before = _levels()
    yield
    assert _levels() == before


def _levels() -> dict[str, int]:
    return {log: logging.getLogger(log).level for log in ("", *LOGS)}


@pytest.fixture(scope="session")
def server() -> Iterator[Served]:
    """The embedded server, in a process of its own; texts that begin with ``!!`` misbehave there."""
    from casdk.server import serve

    with serve(chaos=True) as served:
        yield served


@pytest.fixture
def memory_of() -> Callable[[Served], Callable[[], int]]:
    """A function from a server to another one, which returns the most bytes resident in its process since then."""

    def memory_of(served: Served) -> Callable[[], int]:
        process = Path("/proc") / str(served.pid)
        (process / "clear_refs").write_text("5")

        def peak() -> int:
            lines = (process / "status").read_text().splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

        return peak

    return memory_of


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    """Each of the six schemes in turn."""
    return str(request.param)


@pytest.fixture
def connect(server: Served) -> Iterator[Callable[..., Client]]:
    """A function from a scheme, and more of Client's arguments, to a client of the server."""
    clients = []

    def connect(scheme: str, **options: Any) -> Client:
        if scheme.endswith("s"):
            options.setdefault("tls", TLS(ca=server.ca))
        clients.append(Client(server.address(scheme), **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def own() -> bool:
    """Whether clients use casdk's own protocols by default, and no library."""
    defaults = Client.__init__.__kwdefaults__
    assert defaults is not None
    return bool(defaults["transport"] != "libraries")


@pytest.fixture
def client(scheme: str, connect: Callable[..., Client]) -> Client:
    """A client of the server, over each scheme in turn."""
    return connect(scheme)


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    """Each verb, then its async twin."""
    return str(request.param)


@pytest.fixture
def call(mode: str) -> Callable[..., Any]:
    """A function that calls a client's verb by name, or its async twin on a loop of its own."""

    def call(client: Client, verb: str, *arguments: Any, **options: Any) -> Any:
        if mode == "sync":
            return getattr(client, verb)(*arguments, **options)
        twin = getattr(client, f"a{verb}")
        return asyncio.run(_wait_for(twin, *arguments, **options))

    return call


async def _wait_for(twin: Any, *arguments: Any, **options: Any) -> Any:
    result = twin(*arguments, **options)
    return await result if inspect.isawaitable(result) else [piece async for piece in result]


@pytest.fixture(scope="session")
def expected() -> Callable[[list[str | Path]], NDArray[np.float32]]:
    """What the server's encoder computes directly: ``[N, D]`` for texts (``str``) and image files (``Path``)."""
    from casdk.server.encoders import Features
    from PIL import Image

    encoder = Features()

    def rows(content: list[str | Path]) -> NDArray[np.float32]:
        found = np.zeros((len(content), encoder.dim), np.float32)
        for row, item in zip(found, content, strict=True):
            if isinstance(item, str):
                row[:] = encoder.encode_texts([item])[0]
            else:
                with Image.open(item) as image:
                    row[:] = encoder.encode_images([image])[0]
        return found

    return rows


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """What rich shows on a terminal."""
    import rich
    from rich.console import Console

    out = StringIO()
    monkeypatch.setattr(rich, "_console", Console(file=out, force_terminal=True, width=140))
    return out


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small image file of each kind; the png holds the very pixels."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    down, across = np.mgrid[0:48, 0:64]
    pixels = np.stack([down * 5, across * 4, (down * across) % 251], axis=2).astype(np.uint8)
    paths = {kind: folder / f"apple.{kind}" for kind in KINDS}
    for kind, path in paths.items():
        Image.fromarray(pixels).save(path, kind.upper())
    return paths


@pytest.fixture(scope="session")
def web() -> Iterator[Callable[[Path], str]]:
    """A function from a file to an http URL that serves its folder on loopback."""
    servers: dict[Path, ThreadingHTTPServer] = {}

    def url(path: Path) -> str:
        if path.parent not in servers:
            site = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Site, directory=str(path.parent)))
            Thread(target=site.serve_forever, daemon=True).start()
            servers[path.parent] = site
        return f"http://127.0.0.1:{servers[path.parent].server_port}/{path.name}"

    yield url
    for site in servers.values():
        site.shutdown()
        site.server_close()


class _Site(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""
