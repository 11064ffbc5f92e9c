"""`profile` of one server, of several, and of the servers behind a name."""

from __future__ import annotations

import pytest
from casdk import Client, Pool, Profile
from casdk._calls.profiles import profiles
from msgspec import UNSET


def test_a_profile_is_one_of_each_server(make_servers, pool_of, call, capsys):
    servers = make_servers(None, None)
    found = call(pool_of(servers, "grpc", "http"), "profile", "a")
    assert list(found) == [servers[0].address("grpc"), servers[1].address("http")]
    assert all(isinstance(profile, Profile) and profile.roundtrip > 0 for profile in found.values())
    assert [server.counters.requests for server in servers] == [1, 1]
    assert capsys.readouterr().out.count("Roundtrip") == 2


def test_a_profile_of_one_server_is_no_dict(make_servers, call, capsys):
    [server] = make_servers(None)
    with Client(server.address("grpc")) as client:
        assert isinstance(call(client, "profile", quiet=True), Profile)
        assert [address for address, _ in profiles(client._session, None, UNSET)] == [server.address("grpc")]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("listed", [True, False])
def test_it_is_a_dict_wherever_there_may_be_several(make_servers, call, listed):
    [server] = make_servers(None)
    address = server.address("grpc")
    with Client([address]) if listed else Client(address, pool=Pool()) as client:
        assert list(call(client, "profile", quiet=True)) == [address]
