"""The real servers, and the reference environment's own answers, as seen from the tests."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import select
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Any, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from environment import Environment
from exchange import dumps, loads

HERE = Path(__file__).parent
READY_WITHIN = 180.0
STOPS_WITHIN = 30.0
STARTS = 3
"""Times a flow is started: jina draws the executors' ports, and may draw one that is taken."""

Kind = Literal["fake", "encoder", "real", "other"]


class Flows:
    """One plain and one TLS flow of a jina version, serving six schemes on loopback.

    Args:
        environment: Where jina is.
        kind: ``fake``: the deterministic executor; ``encoder``: the same without an index; ``real``:
            clip_server's ONNX executor and annlite's indexer; ``other``: the same with other weights.
        like: Killed flows whose ports and certificate these take over.
        variables: More of the environment's variables.

    Attributes:
        ports: Port of each scheme.
        processes: Pid of each process by flow and role, e.g. ``plain_clip`` and ``tls_gateway``.
        certificate: PEM file of the authority to trust for the secure schemes.
    """

    def __init__(
        self, environment: Environment, kind: Kind = "fake", like: Flows | None = None, **variables: str
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="casdk-interop-") if like is None else None
        self._work = Path(self._temporary.name) if self._temporary else like._work
        self.certificate = self._work / "cert.pem"
        if like is None:
            write_certificate(self._work)
        self._command: list[str | Path] = [environment.python, HERE / "flows.py", kind, self._work]
        self._command += ["--ports", *map(str, like.ports.values())] if like else []
        self._environment = environment.variables | variables
        self._log = (self._work / "log").open("w+")
        try:
            ready = next(filter(None, (self._start() for _ in range(STARTS))), None)
            if ready is None:
                raise RuntimeError(f"the flow did not start:\n{_end_of(self._log)}")
        except BaseException:
            self.close()
            raise
        self.ports: dict[str, int] = ready["ports"]
        self.processes: dict[str, int] = ready["processes"]

    def _start(self) -> dict[str, Any] | None:
        """Start the flows' process and return what it says when it is ready; ``None`` when it is not to be."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,  # closed when this process ends, however it ends: then the flows end, too
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=self._environment,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], READY_WITHIN)
        line = self._process.stdout.readline() if readable else b""
        if not line:
            self.kill()
            return None
        return json.loads(line)  # type: ignore[no-any-return]

    def url(self, scheme: str) -> str:
        """Return the address of a scheme."""
        return f"{scheme}://localhost:{self.ports[scheme]}"

    def stop(self) -> None:
        """Let the flows finish."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOPS_WITHIN)
        self.close()

    def kill(self) -> None:
        """Kill every process of the flows at once, as a machine that loses power does."""
        if self._process.stdout is None or self._process.stdout.closed:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def close(self) -> None:
        """Kill, and remove what was written."""
        self.kill()
        self._log.close()
        if self._temporary:
            self._temporary.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Reference:
    """The reference environment at work: asks `reference` and returns its answers."""

    def __init__(self, environment: Environment, **variables: str) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [environment.python, "-W", "ignore", HERE / "reference.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment.variables | variables,
        )

    def ask(self, name: str, **arguments: object) -> Any:
        """Return the answer of the reference's function ``name``.

        Raises:
            RefusedError: It raised.
            RuntimeError: The process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(dumps({"ask": name, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the reference ended with status {self._process.wait()}:\n{_end_of(self._log)}")
        said = loads(line)
        if "error" in said:
            raise RefusedError(*said["error"])
        return said["answer"]

    def close(self) -> None:
        """End its process."""
        self._process.communicate()
        self._log.close()


class RefusedError(Exception):
    """The reference raised; its exception's class and message."""


def _end_of(log: IO[str]) -> str:
    log.seek(0)
    return log.read()[-4000:]


def write_certificate(directory: Path) -> None:
    """Write ``cert.pem`` and ``key.pem``, an authority and server of its own for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    hosts = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(hosts, critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
