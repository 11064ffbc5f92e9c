"""A process without free file descriptors gets casdk's errors, and its calls work again when there are some."""

import subprocess
import sys

import pytest
from casdk._transport.channels.causes import NO_DESCRIPTOR

HEAD = """
import os, resource, sys
from casdk import TLS, CasdkError, Client, Retry
address, ca = sys.argv[1:]
options = {"tls": TLS(ca=ca)} if address.partition(":")[0].endswith("s") else {}

def use_up():
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
    held = []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return held

def kind_of(call):
    try:
        call()
    except CasdkError as error:
        return f"{type(error).__name__}: {error}".replace(address, "ADDRESS").replace(ca, "CA")
"""
FIRST = """
held = use_up()
print(kind_of(lambda: Client(address, **options)))
for number in held:
    os.close(number)
with Client(address, **options) as client:
    print(client.encode(["a"]).shape)
"""
CONNECTION = """
used, fresh = (Client(address, timeout=20, retry=Retry(attempts=1), **options) for _ in range(2))
used.encode(["a"])
held = use_up()
print(used.encode(["b"]).shape, kind_of(lambda: fresh.encode(["a"], timeout=1)))
for number in held:
    os.close(number)
print(fresh.encode(["a"]).shape)
"""


@pytest.fixture
def run(make_server, tmp_path):
    """A function that runs a program with a server's address of a scheme, and returns the lines it printed."""
    server = make_server()
    ca = tmp_path / "ca.pem"
    ca.write_bytes(server.ca)

    def run(program, scheme):
        command = [sys.executable, "-c", HEAD + program, server.address(scheme), str(ca)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return run


@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_the_first_client(run, scheme):
    first, second = run(FIRST, scheme)
    assert first.startswith("ConfigError: what a client needs cannot be imported: [Errno 24] Too many open files: ")
    assert second == "(1, 32)"


@pytest.mark.tls
def test_a_connection(run, scheme):
    """A client that has one goes on. With TLS, the file of the authority is what cannot be opened."""
    first, second = run(CONNECTION, scheme)
    said = "ConfigError: " if scheme.endswith("s") else f"TransportError: ADDRESS: {NO_DESCRIPTOR}"
    assert first.startswith(f"(1, 32) {said}")
    assert second == "(1, 32)"
