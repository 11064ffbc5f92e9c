"""The proxies of `casdk.testing`, as plain sockets and httpx see them."""

import socket

import httpx
import pytest
from casdk.testing import BlackHole, ConnectProxy, FaultServer, TcpProxy


@pytest.fixture
def echo():
    """A listening socket; a test accepts on it by itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield listener


def connected(port):
    sock = socket.create_connection(("127.0.0.1", port))
    sock.settimeout(20)
    return sock


def test_bytes_pass_both_ways_and_are_counted(echo):
    with TcpProxy(echo.getsockname()[1]) as proxy, connected(proxy.port) as client:
        server, _ = echo.accept()
        with server:
            client.sendall(b"to the server")
            assert server.recv(100) == b"to the server"
            server.sendall(b"back")
            assert client.recv(100) == b"back"
            counters = proxy.wait_for(lambda counters: counters.to_client == 4)
        assert (counters.accepted, counters.open, counters.to_server) == (1, 1, 13)


def test_a_cut_ends_both_sides(echo):
    with TcpProxy(echo.getsockname()[1]) as proxy, connected(proxy.port) as client:
        server, _ = echo.accept()
        with server:
            client.sendall(b"x")
            assert server.recv(1) == b"x"
            proxy.cut("close")
            server.settimeout(20)
            assert server.recv(1) == b""
        # The server has closed its own end, too.
        assert client.recv(1) == b""


def test_a_black_hole_holds_what_is_sent_until_it_flows_again(echo):
    with TcpProxy(echo.getsockname()[1]) as proxy, connected(proxy.port) as client:
        server, _ = echo.accept()
        with server:
            client.sendall(b"x")
            assert server.recv(1) == b"x"
            proxy.blackhole()
            client.sendall(b"lost or late")
            server.settimeout(0.05)
            with pytest.raises(TimeoutError):
                server.recv(1)


def test_it_refuses_while_it_is_told_to(echo):
    with TcpProxy(echo.getsockname()[1]) as proxy:
        proxy.refuse()
        with connected(proxy.port) as client, pytest.raises(ConnectionResetError):
            client.recv(1)
        proxy.refuse(False)
        with connected(proxy.port) as client:
            server, _ = echo.accept()
            with server:
                server.sendall(b"here")
                assert client.recv(4) == b"here"


def test_a_tunnel_is_opened_by_its_target():
    with FaultServer(width=8) as server, ConnectProxy() as proxy:
        with httpx.Client(proxy=proxy.url(), verify=False) as client:
            address = server.address("https")
            assert client.post(f"{address}/post", json={"data": [{"text": "a"}]}).status_code == 200
        assert proxy.targets == [f"127.0.0.1:{server.port('https')}"]
        assert proxy.authorizations == [None]


def test_a_plain_request_is_forwarded():
    with FaultServer(width=8) as server, ConnectProxy() as proxy:
        with httpx.Client(proxy=proxy.url()) as client:
            answer = client.post(f"{server.address('http')}/post", json={"data": [{"text": "a"}]})
        assert answer.json()["data"][0]["text"] == "a"
        assert server.counters.requests == 1


@pytest.mark.parametrize(("userinfo", "status"), [("user:password", 200), ("user:wrong", 407), ("", 407)])
def test_a_password_is_asked_for(userinfo, status):
    with FaultServer(width=8) as server, ConnectProxy("user", "password") as proxy:
        with httpx.Client(proxy=proxy.url(userinfo)) as client:
            answer = client.post(f"{server.address('http')}/post", json={"data": [{"text": "a"}]})
        assert answer.status_code == status
        assert server.counters.requests == (status == 200)


def test_every_request_may_get_one_status():
    with FaultServer() as server, ConnectProxy(status=502) as proxy:
        with httpx.Client(proxy=proxy.url()) as client:
            assert client.get(server.address("http")).status_code == 502
        assert server.counters.accepted == 0


def test_a_black_hole_answers_no_connection():
    with BlackHole() as hole:
        host, _, port = hole.address("http").removeprefix("http://").rpartition(":")
        with pytest.raises(TimeoutError):
            socket.create_connection((host, int(port)), timeout=0.1)
