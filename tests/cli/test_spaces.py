"""The doctor says which of several servers holds another model."""

import pytest
from casdk.cli.access import Access
from casdk.cli.exits import Exit
from casdk.cli.spaces import compare
from casdk.testing import ExecutorError, FaultServer


@pytest.fixture
def servers():
    """Two servers of one model, and one of another."""
    with FaultServer(width=8) as one, FaultServer(width=8) as same, FaultServer(width=16) as other:
        yield one, same, other


def test_the_one_that_differs_is_named_wherever_it_stands(servers):
    one, same, other = (server.address("grpc") for server in servers)
    found = compare([one, same], Access())
    assert (found.ok, found.detail) == (True, "all servers are of one vector space")
    for urls in ([one, same, other], [one, other, same], [other, one, same]):
        found = compare(urls, Access())
        assert (found.ok, found.exit, found.step) == (False, Exit.SERVER, "space")
        assert found.detail.startswith(f"{other}: another model than {one} and {same}")
    assert compare([one, other], Access()).detail.startswith(f"{other}: another model than {one}")


def test_the_doctor_compares_what_is_well(servers, command):
    one, same, other = (server.address("grpc") for server in servers)
    well = command("doctor", f"{one},{same}", "--json")
    assert well.code == 0
    assert (well.lines[-1]["step"], well.lines[-1]["ok"]) == ("space", True)
    ran = command("doctor", f"{one},{other}")
    assert ran.code == 6
    assert "WRONG" in ran.out.splitlines()[-2]
    assert "space" not in [finding["step"] for finding in command("doctor", one, "--json").lines]


def test_a_server_that_cannot_be_asked_is_no_other_model(servers):
    servers[1].play(ExecutorError(name="ValueError"))
    found = compare([server.address("grpc") for server in servers[:2]], Access())
    assert (found.ok, found.exit) == (False, Exit.INPUT)
