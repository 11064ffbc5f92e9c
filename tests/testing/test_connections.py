"""Each fault of a connection, as a plain socket sees it."""

import socket
import ssl

import pytest
from casdk.testing import Babble, Deaf, FaultServer, Shut, Silent, StallHandshake

POST = b"POST /post HTTP/1.1\r\nhost: a\r\ncontent-length: 20\r\n\r\n"


@pytest.fixture
def opened():
    """A function from a fault to a socket that it happens to."""
    things = []

    def open_(fault, scheme="http"):
        server = FaultServer(connections=fault, width=8).start()
        sock = socket.create_connection(("127.0.0.1", server.port(scheme)))
        sock.settimeout(20)
        things.append((server, sock))
        return server, sock

    yield open_
    for server, sock in things:
        sock.close()
        server.stop()


def test_a_silent_one_never_says_a_word(opened):
    server, sock = opened(Silent())
    sock.sendall(POST)
    server.wait_for(lambda counters: counters.accepted == 1)
    sock.settimeout(0.05)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    assert server.counters.connected == 0


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
@pytest.mark.parametrize("after", [0, 10])
def test_one_that_is_shut_ends_as_it_was_told(opened, how, after):
    _, sock = opened(Shut(after, how))
    if after:
        sock.sendall(POST)
    if how == "reset":
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    else:
        assert sock.recv(1) == b""


def test_what_is_babbled_comes_once_and_the_end_if_it_was_asked_for(opened):
    for close in (True, False):
        server, sock = opened(Babble(b"220 mail\r\n", close=close))
        sock.sendall(POST)
        assert sock.recv(100) == b"220 mail\r\n"
        if close:
            assert sock.recv(1) == b""
        assert server.counters.requests == 0


def test_a_deaf_one_reads_no_more(opened):
    server, sock = opened(Deaf())
    server.wait_for(lambda counters: counters.connected == 1)
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        fill(sock)
    assert server.counters.requests == 0


def test_half_a_handshake_is_half_of_the_servers_flight(opened):
    server, sock = opened(StallHandshake(), "https")
    context = ssl.create_default_context(cadata=server.ca.decode())
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(inward, outward, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    sock.sendall(outward.read())
    inward.write(sock.recv(65536))
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    sock.settimeout(0.05)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    assert server.counters.connected == 0


def fill(sock):
    """Send until no buffer takes any more."""
    while True:
        sock.send(bytes(1 << 16))
