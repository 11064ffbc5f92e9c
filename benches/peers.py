"""The servers that are measured against: a fast one, so that the client is what gets measured, and casdk's own."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "casdk"
SOURCE = Path(os.environ.get("CASDK_BENCHPEER") or ROOT.parent / "shared" / "benchpeer")
"""A crate whose ``fastserver`` answers every document out of a table; optional."""
HAS_FAST_PEER = (SOURCE / "Cargo.toml").exists()
SCHEMES = ("grpc", "grpcs", "http", "https", "websocket", "websockets")
DIALECT = "openai"
"""In place of a scheme: OpenAI's dialect, which other clients speak."""


class Peer(NamedTuple):
    """A server, ready.

    Attributes:
        addresses: One for each scheme, and one for `DIALECT`.
        ca: PEM file of its authority.
    """

    addresses: dict[str, str]
    ca: str

    def address(self, scheme: str, *, original: bool = False) -> tuple[str, str]:
        """Return address and authority, ``""`` for a plain scheme; the original spells secure websockets ``wss``."""
        address = self.addresses[scheme]
        if original and scheme == "websockets":
            address = address.replace("websockets://", "wss://")
        return address, self.ca if scheme.endswith("s") else ""


@contextmanager
def fast_peer(folder: Path) -> Iterator[Peer]:
    """Build and start two fast servers, one plain, one with TLS."""
    program = build_fast_peer()
    with ExitStack() as stack:
        plain = stack.enter_context(_serve(program, []))
        secure = stack.enter_context(_serve(program, ["--tls", "--cert-dir", str(folder)]))
        addresses = {scheme: f"{scheme}://127.0.0.1:{port}" for scheme, port in zip(SCHEMES[::2], plain, strict=True)}
        addresses |= {
            scheme: f"{scheme}://localhost:{port}" for scheme, port in zip(SCHEMES[1::2], secure, strict=True)
        }
        addresses[DIALECT] = stack.enter_context(_serve_dialect(addresses["http"]))
        yield Peer(addresses, str(folder / "cert.pem"))


@contextmanager
def own_peer() -> Iterator[Peer]:
    """Start casdk's embedded server, which ranks, indexes and searches too."""
    from casdk.server import serve

    with serve() as served:
        addresses = {scheme: served.address(scheme) for scheme in SCHEMES}
        with _serve_dialect(addresses["http"]) as dialect:
            yield Peer(addresses | {DIALECT: dialect}, str(served.ca))


def build_fast_peer() -> Path:
    """Return the program; it is built beside the user's other caches, keyed by its sources."""
    sources = sorted(path for path in SOURCE.rglob("*") if path.suffix in (".rs", ".toml", ".lock"))
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    home = CACHE / f"benchpeer-{key}"
    program = home / "target" / "release" / "fastserver"
    if not program.exists():
        print("bench: building the fast server ...", flush=True)
        shutil.copytree(SOURCE, home, dirs_exist_ok=True, copy_function=shutil.copyfile)
        subprocess.run(["cargo", "build", "--release", "--quiet", "--locked"], cwd=home, check=True)
    return program


@contextmanager
def _serve(program: Path, options: list[str]) -> Iterator[list[int]]:
    ports = _free_ports(3)
    named = [
        part for name, port in zip(("grpc", "http", "ws"), ports, strict=True) for part in (f"--port-{name}", str(port))
    ]
    server = subprocess.Popen([str(program), *named, *options], stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        assert "ready" in server.stderr.readline()
        yield ports
    finally:
        server.terminate()
        server.communicate()


@contextmanager
def _serve_dialect(address: str) -> Iterator[str]:
    script = Path(__file__).with_name("dialect.py")
    server = subprocess.Popen([sys.executable, str(script), address], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.terminate()
        server.communicate()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]
