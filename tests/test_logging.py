"""casdk logs nothing until a handler is set, then enough to follow its calls, and never a secret."""

import logging
import subprocess
import sys
from contextlib import ExitStack

import pytest
from casdk import TLS, AuthError, Client, Retry, ServerError
from casdk._engine.logging import flush
from casdk.testing import Cut, ExecutorError, FaultServer, Refuse

QUICK = Retry(backoff=0.001, max_backoff=0.01)
SECRET = "s3cret-token"


@pytest.fixture
def logged(caplog):
    """A function from a level and a logger's name to what was said there."""
    caplog.set_level(logging.DEBUG, "casdk")

    def logged(level, name):
        assert flush(10)
        return [
            record.getMessage()
            for record in caplog.records
            if record.levelno == level and record.name == f"casdk.{name}"
        ]

    return logged


@pytest.fixture
def play(scheme):
    """A function from a server's rules to a client of it."""
    with ExitStack() as stack:

        def play(rules=None, **options):
            server = stack.enter_context(FaultServer(rules, width=8, **options))
            tls = TLS(ca=server.ca) if scheme.endswith("s") else None
            return stack.enter_context(Client(server.address(scheme), SECRET, tls=tls, retry=QUICK))

        yield play


def test_connections(play, logged, scheme):
    with play() as client:
        client.encode(["a"])
        client.encode(["b"])
        address = str(client)[len("Client('") : -len("')")]
        assert logged(logging.INFO, "connections") == [f"connection 1 to {address} is open"]
    assert len(logged(logging.INFO, "connections")) == 2
    assert "closed" in logged(logging.INFO, "connections")[1]
    assert any("encode at" in line and "1 of 1 items done" in line for line in logged(logging.DEBUG, "calls"))


def test_a_broken_connection_is_opened_again(play, logged):
    with play([Cut("before", "reset")]) as client:
        client.encode(["a"])
    opened = [line for line in logged(logging.INFO, "connections") if line.endswith("is open")]
    assert [line.split()[1] for line in opened] == ["1", "2"]
    [again] = logged(logging.WARNING, "calls")
    assert "1 items from item 0 failed on attempt 1, and is sent again in 0.0" in again


def test_halves(play, logged):
    with play(lambda request: ExecutorError() if "bad" in request.texts else None) as client:
        client.encode(["a", "bad", "b"], errors="return")
    assert any("is halved to find the item" in line for line in logged(logging.INFO, "calls"))


def test_a_lost_batch_is_a_warning_and_a_raised_error_is_not(play, logged):
    with play(Refuse.internal()) as client:
        client.encode(["a"], on_error=lambda response: None)
        [lost] = logged(logging.WARNING, "calls")
        assert "failed on attempt 1 for good" in lost
        with pytest.raises(ServerError):
            client.encode(["a"])
    assert len(logged(logging.WARNING, "calls")) == 1


def test_a_credential_asked_for_again(logged):
    tokens = iter(["stale-token", SECRET])
    with FaultServer(token=SECRET, width=8) as server, Client(server.address("grpc"), lambda: next(tokens)) as client:
        client.encode(["a"])
    assert any("refused the credential" in line for line in logged(logging.INFO, "connections"))


def test_no_secret(play, caplog):
    caplog.set_level(logging.DEBUG, "casdk")
    for rules in ([Cut("before", "reset")], [Refuse.overloaded()]):
        play(rules).encode(["a"])
    with pytest.raises(AuthError):
        play(token="another").encode(["a"])
    assert flush(10)
    assert caplog.records
    assert SECRET not in caplog.text


QUIET = """
from casdk import Client, Retry
from casdk.testing import FaultServer, Refuse
with FaultServer([Refuse.overloaded()], width=8) as server, Client(server.address("grpc")) as client:
    client.encode(["a"])
    assert server.counters.requests == 2
"""


def test_quiet_until_asked():
    run = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")
