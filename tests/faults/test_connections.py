"""Connections that cannot be made, or that went silent: the next one is tried, and a call that can go on does."""

import socket

import grpc.aio
import numpy as np
import pytest
from casdk import TLS, Retry, Timeouts, TransportError
from casdk.testing import BlackHole, ConnectProxy

ONCE = Retry(attempts=1)
CONNECT_SECONDS = 0.8
NAME = "localhost"
"""What the fault server's certificate is good for."""


@pytest.fixture
def resolve(monkeypatch):
    """A function that has a name stand for several addresses, for Python and for gRPC, which looks names up itself."""

    def resolve(*hosts):
        look_up = socket.getaddrinfo

        def found(host, port, *arguments, **options):
            if host != NAME or options.get("flags", 0) & socket.AI_NUMERICHOST:
                return look_up(host, port, *arguments, **options)
            return [entry for one in hosts for entry in look_up(one, port, type=socket.SOCK_STREAM)]

        def addressed(open_channel):
            def open_addressed(target, *arguments, options):
                name, _, port = target.removeprefix("dns:///").rpartition(":")
                assert name == NAME
                addresses = ",".join(f"{host}:{port}" for host in hosts)
                options = [*options, ("grpc.default_authority", f"{name}:{port}")]
                return open_channel(f"ipv4:{addresses}", *arguments, options=options)

            return open_addressed

        monkeypatch.setattr(socket, "getaddrinfo", found)
        for name in ("insecure_channel", "secure_channel"):
            monkeypatch.setattr(grpc.aio, name, addressed(getattr(grpc.aio, name)))

    return resolve


@pytest.fixture
def named(connect_to):
    """A function from a server and a scheme to a client that asks for it by name, and is patient but not for long."""

    class Named:
        def __init__(self, server):
            self.server = server

        def address(self, scheme):
            return self.server.address(scheme, NAME)

    def named(server, scheme, **options):
        options = {"retry": ONCE, "timeouts": Timeouts(connect=CONNECT_SECONDS, total=20), **options}
        return connect_to(Named(server), scheme, **options)

    return named


def test_dead_addresses_are_got_past(make_server, named, resolve, scheme, rows):
    """One refuses, two say nothing, of which each has its share of the connect limit; the last one lives."""
    server = make_server()
    with BlackHole("127.0.0.3", server.port(scheme)), BlackHole("127.0.0.4", server.port(scheme)):
        resolve("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.1")
        np.testing.assert_array_equal(named(server, scheme).encode(["a", "b"]), rows(["a", "b"]))


def test_no_address_lives(make_server, named, resolve, scheme):
    server = make_server()
    with BlackHole("127.0.0.2", server.port(scheme)), BlackHole("127.0.0.3", server.port(scheme)):
        resolve("127.0.0.2", "127.0.0.3")
        with pytest.raises(TransportError, match=r"no connection to .*localhost.* within 0\.8 s") as caught:
            named(server, scheme).encode(["a"])
    assert (type(caught.value), caught.value.sent) == (TransportError, False)


def test_an_address_that_accepts_and_says_nothing(make_server, named, resolve, scheme, rows):
    """It is the last one that the second attempt tries. Over plain http this looks like a server that takes long."""
    if scheme == "http":
        pytest.skip("who waits for a reply cannot tell")
    server = make_server()
    with socket.create_server(("127.0.0.2", server.port(scheme))):
        resolve("127.0.0.2", "127.0.0.1")
        client = named(server, scheme, retry=Retry(attempts=2, backoff=0))
        np.testing.assert_array_equal(client.encode(["a"]), rows(["a"]))


@pytest.mark.parametrize("scheme", ["http", "https", "websocket", "websockets"])
def test_a_proxy_with_a_dead_address(make_server, connect_to, resolve, scheme, rows):
    """gRPC looks up the proxy's name, and tries its addresses, as it does a server's."""
    server = make_server()
    with ConnectProxy() as proxy, BlackHole("127.0.0.2", proxy.port):
        resolve("127.0.0.2", "127.0.0.1")
        url, limits = f"http://{NAME}:{proxy.port}", Timeouts(connect=CONNECT_SECONDS, total=20)
        client = connect_to(server, scheme, proxy=url, retry=ONCE, timeouts=limits)
        np.testing.assert_array_equal(client.encode(["a"]), rows(["a"]))
        assert proxy.targets == [f"127.0.0.1:{server.port(scheme)}"]
        client.close()


@pytest.mark.parametrize("scheme", ["grpcs", "https", "websockets"])
def test_a_dead_address_where_nothing_is_verified(make_server, named, resolve, scheme, rows):
    server = make_server()
    with BlackHole("127.0.0.2", server.port(scheme)):
        resolve("127.0.0.2", "127.0.0.1")
        np.testing.assert_array_equal(named(server, scheme, tls=TLS(verify=False)).encode(["a"]), rows(["a"]))
