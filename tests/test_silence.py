"""gRPC's own lines on standard error: they reach nobody who has not asked for them, and nobody else is changed."""

import os
import subprocess
import sys
import textwrap

import pytest
from casdk.testing import FaultServer, certificates

HEAD = """
import subprocess, sys
from pathlib import Path
from casdk import TLS, CasdkError, Client, Retry
address, ca = sys.argv[1:]

def call():
    tls = {"tls": TLS(ca=ca)} if address.startswith("grpcs") else {}
    with Client(address, retry=Retry(attempts=1), timeout=20, **tls) as client:
        try:
            client.encode(["a"])
        except CasdkError as error:
            return type(error).__name__
"""
CALL = "print(call())"
ASKED = ("GRPC_VERBOSITY", "GRPC_TRACE")


@pytest.fixture
def run(tmp_path):
    """A function that runs a program with an address and an authority; its lines on standard output and error."""

    def run(address, authority, program, **environment):
        ca = tmp_path / "ca.pem"
        ca.write_bytes(authority)
        command = [sys.executable, "-c", HEAD + textwrap.dedent(program), address, str(ca)]
        clean = {name: value for name, value in os.environ.items() if name not in ASKED}
        done = subprocess.run(
            command, capture_output=True, text=True, env={**clean, **environment}, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines(), done.stderr.splitlines()

    return run


@pytest.fixture
def plain():
    """A server that is spoken to by TLS and speaks none, which makes gRPC write a line."""
    with FaultServer() as server:
        yield server.address("grpc").replace("grpc:", "grpcs:"), server.ca


def test_a_refused_port(run):
    assert run("grpc://127.0.0.1:1", b"", CALL) == (["TransportError"], [])


def test_tls_where_none_is_spoken(run, plain):
    assert run(*plain, CALL) == (["ProtocolMismatchError"], [])


def test_no_tls_where_it_is_spoken(run):
    with FaultServer() as server:
        assert run(server.address("grpcs").replace("grpcs:", "grpc:"), b"", CALL) == (["TransportError"], [])


@pytest.mark.parametrize("make", ["expired", "wrong_host"])
def test_a_bad_certificate(run, make):
    authority = certificates.authority()
    with FaultServer(certificate=getattr(authority, make)()) as server:
        assert run(server.address("grpcs"), authority.pem, CALL) == (["TLSError"], [])


@pytest.mark.parametrize("asked", [{"GRPC_VERBOSITY": "INFO"}, {"GRPC_TRACE": "tsi", "GRPC_VERBOSITY": "INFO"}])
def test_who_asks_for_them_has_them(run, plain, asked):
    printed, lines = run(*plain, CALL, **asked)
    assert printed == ["ProtocolMismatchError"]
    assert any("ssl_transport_security" in line for line in lines)


def test_a_program_that_imported_grpc_before_is_left_alone(run, plain):
    printed, lines = run(*plain, f"import grpc\n{CALL}")
    assert printed == ["ProtocolMismatchError"]
    assert any("ssl_transport_security" in line for line in lines)


def test_grpc_of_the_programs_own_works_after_it(run, plain):
    program = """
    print(call())
    import grpc
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        try:
            channel.unary_unary("/a/b")(b"", timeout=10)
        except grpc.RpcError as error:
            print(error.code().name)
    """
    assert run(*plain, program) == (["ProtocolMismatchError", "UNAVAILABLE"], [])


def test_the_environment_is_as_it_was(run, plain):
    """What Python sees, and what a program inherits that is started without an environment of its own."""
    program = """
    import os
    before = dict(os.environ)
    print(call(), dict(os.environ) == before, flush=True)
    look = "import os; print('GRPC_VERBOSITY' in os.environ)"
    subprocess.run([sys.executable, "-c", look], check=True)
    """
    assert run(*plain, program) == (["ProtocolMismatchError True", "False"], [])


def test_the_import_of_casdk_loads_nothing(run, plain):
    program = """
    import os
    print("grpc" in sys.modules, "cygrpc" in Path("/proc/self/maps").read_text())
    """
    assert run(*plain, program) == (["False False"], [])
