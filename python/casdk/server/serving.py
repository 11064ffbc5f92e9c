"""The server as a child process: gRPC's asyncio allows one loop per process, and that one is the client's."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO

import msgspec

from casdk.server.settings import DEFAULT_PORTS

__all__ = ["Served", "ServerDiedError", "serve"]

TOKEN_VARIABLE = "CASDK_SERVER_TOKEN"
MORE_SECONDS = 12.0
"""Time from the end of the grace until the process is killed; a server that hangs should end itself before."""


class ServerDiedError(RuntimeError):
    """The server ended before it was ready; the message holds what it wrote."""


class _ReadyLine(msgspec.Struct):
    pid: int
    addresses: dict[str, str]
    ca: str | None
    scratch: str


class Served:
    """A running server.

    Attributes:
        addresses: Address of each scheme, e.g. ``{"grpc": "grpc://127.0.0.1:40001"}``.
        pid: Its process.
    """

    def __init__(self, process: subprocess.Popen[bytes], ready: _ReadyLine, log: IO[bytes], grace: float) -> None:
        self.addresses: Mapping[str, str] = MappingProxyType(ready.addresses)
        self.pid: int = ready.pid
        self._ca = None if ready.ca is None else Path(ready.ca)
        self._scratch = ready.scratch
        self._process = process
        self._log = log
        self._grace = grace
        self._said: str | None = None

    @property
    def ca(self) -> Path:
        """PEM file of the certificate to trust for the secure schemes.

        Raises:
            ValueError: No secure scheme is served.
        """
        if self._ca is None:
            raise ValueError("no secure scheme is served, so there is no certificate")
        return self._ca

    def address(self, scheme: str) -> str:
        """Return the address of a scheme.

        Raises:
            ValueError: The scheme is not served.
        """
        if scheme not in self.addresses:
            raise ValueError(f"{scheme!r} is not served; {', '.join(self.addresses)} are")
        return self.addresses[scheme]

    def stop(self) -> int:
        """Let the server finish its requests and end, and kill it if it takes too long; return its exit code."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            code = self._process.wait(self._grace + MORE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._said = self.log()
        self._log.close()
        if code < 0:
            shutil.rmtree(self._scratch, ignore_errors=True)
        return code

    def log(self) -> str:
        """Return what the server has written to stderr."""
        if self._said is not None:
            return self._said
        self._log.seek(0)
        return self._log.read().decode(errors="replace")


@contextlib.contextmanager
def serve(
    *,
    schemes: Sequence[str] = tuple(DEFAULT_PORTS),
    host: str = "127.0.0.1",
    ports: Mapping[str, int] | None = None,
    encoder: str = "features",
    token: str | None = None,
    cert: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    index: bool = True,
    workspace: str | os.PathLike[str] | None = None,
    fetch_uris: bool = False,
    chaos: bool = False,
    allow_hosts: Sequence[str] = (),
    max_message: int | None = None,
    max_memory: int | None = None,
    max_pixels: int | None = None,
    threads: int | None = None,
    grace: float = 10.0,
) -> Iterator[Served]:
    """Run a server in a process of its own while the ``with`` lasts.

    It also ends when this process ends, even if this process is killed.

    Args:
        schemes: What to serve, of ``grpc http websocket grpcs https websockets``.
        host: Address to listen on.
        ports: Port of some schemes; the others get free ones.
        encoder: ``features``, or ``onnx:DIRECTORY`` with ``textual.onnx`` and ``visual.onnx``.
        token: What clients must send as ``authorization``.
        cert: PEM file of a certificate; without it one is made for ``localhost``, ``127.0.0.1`` and ``::1``.
        key: PEM file of its key.
        index: Whether ``/index`` and ``/search`` have an index behind them; else they encode, as clip_server does.
        workspace: Directory to keep the index in; without it the index ends with the server.
        fetch_uris: Whether the server fetches http(s) URIs of documents.
        chaos: Whether texts that begin with ``!!`` misbehave (see `casdk.server.executors.EncodeExecutor`).
        allow_hosts: Names by which clients may call a server on loopback, beside loopback's own.
        max_message: Largest message taken, in bytes (a fifteenth of ``max_memory``).
        max_memory: What requests may take together, in bytes (1.5 GiB), beside the server itself and its models.
        max_pixels: Largest image taken, in pixels (89 million).
        threads: Threads that encode (4).
        grace: Seconds to finish in when stopped.

    Raises:
        ServerDiedError: It did not start; the message says why.
    """
    named: dict[str, object] = {"--cert": cert, "--key": key, "--workspace": workspace, "--max-message": max_message}
    named |= {
        "--max-memory": max_memory,
        "--max-pixels": max_pixels,
        "--threads": threads,
        "--grace": grace,
        "--host": host,
    }
    kind, _, model = encoder.partition(":")
    named |= {"--schemes": ",".join(schemes), "--encoder": kind, "--model": model or None}
    switches = {"--fetch-uris": fetch_uris, "--chaos": chaos, "--no-index": not index}
    served = _start(
        [
            *(f"{name}={value}" for name, value in named.items() if value is not None),
            *(f"--allow-host={name}" for name in allow_hosts),
            *(f"--port={scheme}={port}" for scheme, port in (ports or {}).items()),
            *(name for name, on in switches.items() if on),
        ],
        token,
        grace,
    )
    try:
        yield served
    finally:
        served.stop()


def _start(options: Sequence[str], token: str | None, grace: float) -> Served:
    environment = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
    if token is not None:
        environment[TOKEN_VARIABLE] = token
    log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
    process = subprocess.Popen(
        [sys.executable, "-m", "casdk.server", "--free-ports", "--ready-json", "--with-parent", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            process.wait()
            log.seek(0)
            written = log.read().decode(errors="replace").strip()
            raise ServerDiedError(f"the server ended with code {process.returncode} before it was ready: {written}")
        return Served(process, msgspec.json.decode(line, type=_ReadyLine), log, grace)
    except BaseException:
        process.kill()
        process.communicate()
        log.close()
        raise
