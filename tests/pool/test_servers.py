"""How a client's servers are described, and the status that it reports of them."""

from __future__ import annotations

import pickle

import pytest
from casdk import TLS, Client, ConfigError, Pool, Server
from casdk._calls.settings import read_servers

ONE, OTHER = "grpc://127.0.0.1:1", "http://127.0.0.1:2"
BAD = [
    (lambda: Server("127.0.0.1"), "must begin with one of these schemes"),
    (lambda: Server(ONE, weight=0), "Server: weight must be more than 0, at most 1e+06, not 0"),
    (lambda: Server(ONE, weight="2"), "Server: weight must be a number, not '2'"),
    (lambda: Server(ONE, tls=TLS()), "tls= needs a secure scheme: grpcs://, not grpc://"),
    (lambda: Server("grpcs://x", tls=True), "Server: tls must be a casdk.TLS, not bool"),
    (lambda: Server(ONE, credential=3), "a credential must be a str, or a callable that returns one, not int"),
    (lambda: Server(ONE, requests_per_second=0), "Server: requests_per_second must be more than 0 a second, not 0"),
    (lambda: Server(ONE, items_per_second=-1), "Server: items_per_second must be more than 0 a second, not -1"),
    (lambda: Pool(resolve=1), "Pool: resolve must be True or False, not 1"),
    (lambda: Pool(resolve_seconds=0), "Pool: resolve_seconds must be more than 0 seconds, not 0"),
    (lambda: Pool(hedge=1.1), "Pool: hedge must be from 0 to 1, not 1.1"),
    (lambda: Pool(hedge=-0.1), "Pool: hedge must be from 0 to 1, not -0.1"),
    (lambda: Pool(hedge=float("nan")), "Pool: hedge must be a finite number, not nan"),
    (lambda: Pool(hedge=True), "Pool: hedge must be a number, not True"),
    (lambda: Pool(index_on="x"), "must begin with one of these schemes"),
    (lambda: Client([]), "a client needs at least one server: the list is empty"),
    (lambda: Client([ONE, OTHER, ONE]), f"{ONE} is among the servers twice"),
    (lambda: Client([ONE, 3]), "the server's address must be a str like"),
    (lambda: Client(Server(ONE)), r"write Client([Server(...)])"),
    (lambda: Client(3), "the server's address must be a str like"),
    (lambda: Client([ONE, OTHER], tls=TLS()), "tls= needs a secure scheme"),
    (lambda: Client([ONE], pool=True), "pool must be a casdk.Pool, not bool"),
]


@pytest.mark.parametrize(("make", "said"), BAD, ids=[said[:40] for _, said in BAD])
def test_what_cannot_be_is_refused_at_once(make, said):
    with pytest.raises(ConfigError) as refused:
        make()
    assert said in str(refused.value)


def test_a_server_shows_what_it_was_told_but_its_credential():
    server = Server("grpcs://clip", 2, tls=TLS(ca="ca.pem"), credential="s3cret", requests_per_second=5)
    assert repr(server) == (
        "Server('grpcs://clip', weight=2, tls=TLS(ca='ca.pem'), credential=***, requests_per_second=5)"
    )
    assert repr(Server(ONE)) == f"Server({ONE!r})"


def test_servers_are_addresses_or_servers():
    assert read_servers(ONE) == (Server(ONE),)
    assert read_servers([ONE, Server(OTHER, weight=2)]) == (Server(ONE), Server(OTHER, weight=2))
    assert read_servers((ONE,)) == (Server(ONE),)


def test_a_client_of_several_is_shown_and_pickled_with_all_of_them():
    with Client([ONE, Server(OTHER, weight=2)], pool=Pool(index_on=ONE)) as client:
        assert repr(client) == f"Client([{ONE!r}, {OTHER!r}])"
        with pickle.loads(pickle.dumps(client)) as copy:
            assert copy._settings == client._settings
    with Client([ONE]) as client:
        assert repr(client) == f"Client({ONE!r})"


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (Server("grpcs://clip", credential="s3cret"), "credential is a str"),
        (Server("grpcs://clip", tls=TLS(cert=b"s3cret", key=b"s3cret")), "TLS key is bytes"),
    ],
)
def test_secrets_of_a_server_are_not_pickled(server, said):
    with Client([ONE, server]) as client, pytest.raises(ConfigError, match=said) as refused:
        pickle.dumps(client)
    assert "s3cret" not in str(refused.value)
