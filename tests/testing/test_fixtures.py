"""The pytest fixtures of `casdk.testing`, used by a test of another project."""

import subprocess
import sys

TESTS = """
pytest_plugins = ["casdk.testing.fixtures"]

import socket
import pytest
from casdk import TLS, Client
from casdk.testing import Refuse

seen = []


def test_a_scheme_at_a_time(scheme, fault_server):
    seen.append(scheme)
    tls = TLS(ca=fault_server.ca) if scheme.endswith("s") else None
    with Client(fault_server.address(scheme), tls=tls) as client:
        assert client.encode(["a"]).shape == (1, 512)


def test_they_were_six():
    assert len(set(seen)) == len(seen) == 6


def test_one_of_ones_own(make_fault_server, tcp_proxy, connect_proxy):
    server = make_fault_server([Refuse.unavailable()], width=8)
    with Client(tcp_proxy(server.port("http")).address("http")) as client:
        assert client.encode(["a"]).shape == (1, 8)
    assert server.counters.requests == 2
    proxy = connect_proxy("user", "password")
    with Client(server.address("http"), proxy=proxy.url("user:password")) as client:
        assert client.encode(["a"]).shape == (1, 8)
    assert len(proxy.targets) >= 1


def test_nobody_answers(black_hole):
    with pytest.raises(TimeoutError):
        socket.create_connection(black_hole.address("http").removeprefix("http://").split(":"), timeout=0.1)
"""


def test_a_suite_of_somebody_elses(tmp_path):
    (tmp_path / "test_mine.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout
    assert "9 passed" in done.stdout
