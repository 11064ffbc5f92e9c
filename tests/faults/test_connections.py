"""Connections that cannot be made, or go silent: another one is tried, and the call continues if it can."""

import asyncio
import socket
import time
from contextlib import ExitStack

import grpc.aio
import numpy as np
import pytest
from casdk import TLS, DeadlineError, Retry, Timeouts, TransportError
from casdk._engine.logging import flush
from casdk._transport.channels import base
from casdk._transport.channels.libraries.grpc import CHANNEL
from casdk.testing import SCHEMES, BlackHole, ConnectProxy, Delay, Fault, Gate, Hold, Never, TcpProxy
from casdk.testing.scripts import AnsweredError
from h2.errors import ErrorCodes

pytestmark = pytest.mark.tls
ONCE = Retry(attempts=1)
CONNECT_SECONDS = 2.0
"""Dead addresses take their share of it; what is left has to do for the living one on a busy machine."""
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
            named(server, scheme, timeouts=Timeouts(connect=0.8, total=20)).encode(["a"])
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


# connections that went silent


@pytest.fixture
def behind(make_server, connect_to):
    """A function from a scheme and Client's options to a server, a NAT in front of it that can forget, and a client."""
    with ExitStack() as stack:

        def behind(scheme, **options):
            server = make_server()
            proxy = stack.enter_context(TcpProxy(server.port(scheme)))
            return server, proxy, connect_to(proxy, scheme, **options)

        yield behind


@pytest.mark.parametrize("limit", ["timeout", "read"])
def test_a_connection_on_which_a_deadline_passed_is_not_used_again(behind, scheme, rows, limit):
    """Whosever deadline it is, the call's or the request's; the call after it opens another connection."""
    options = {"timeouts": Timeouts(read=1)} if limit == "read" else {"timeout": 0.3}
    _, nat, client = behind(scheme, retry=ONCE, **options)
    client.encode(["warm"], timeout=20)
    nat.forget()
    with pytest.raises(DeadlineError):
        client.encode(["lost"])
    np.testing.assert_array_equal(client.encode(["a", "b"], timeout=20), rows(["a", "b"]))


def test_merged_calls_leave_a_silent_connection(behind, scheme, rows):
    _, nat, client = behind(scheme, retry=ONCE, coalesce=True)
    client.encode(["warm"])
    nat.forget()
    with pytest.raises(DeadlineError):
        client.encode(["lost"], timeout=0.3)
    np.testing.assert_array_equal(client.encode(["a"], timeout=20), rows(["a"]))


async def test_the_idle_ones_of_a_pool_went_silent_too(behind, scheme, rows):
    """With a connection for each of 8 calls, one call fails and not 8, one after the other."""
    _, nat, client = behind(scheme, retry=ONCE)
    await asyncio.gather(*[client.aencode([f"{number}"]) for number in range(8)])
    nat.forget()
    with pytest.raises(DeadlineError):
        await client.aencode(["lost"], timeout=0.3)
    for text in "abc":
        np.testing.assert_array_equal(await client.aencode([text], timeout=20), rows([text]))


async def test_who_still_waits_on_a_retired_connection_is_answered(make_server, connect_to, scheme, rows):
    """One call's deadline passes before a byte has come; the other is patient, and the server only slow."""
    gate = Gate()
    server = make_server(lambda request: None if request.texts[0] in ("warm", "new") else Hold(gate))
    client = connect_to(server, scheme, retry=ONCE)
    await client.aencode(["warm"])
    patient = asyncio.create_task(client.aencode(["patient"]))
    with pytest.raises(DeadlineError):
        await client.aencode(["hasty"], timeout=0.3)
    connected = server.counters.connected
    np.testing.assert_array_equal(await client.aencode(["new"], timeout=20), rows(["new"]))
    assert server.counters.connected == connected + 1
    gate.open()
    np.testing.assert_array_equal(await patient, rows(["patient"]))
    await client.aencode(["new"], timeout=20)
    if not scheme.startswith("http"):
        server.wait_for(lambda counters: counters.open == 1)


async def test_a_call_taken_back_retires_nothing(make_server, connect_to, scheme, rows):
    """Who changes their mind says nothing of the connection."""
    server = make_server(lambda request: Never() if request.texts[0] == "taken back" else None)
    client = connect_to(server, scheme)
    await client.aencode(["warm"])
    task = asyncio.create_task(client.aencode(["taken back"], timeout=20))
    await asyncio.to_thread(server.wait_for, lambda counters: counters.requests == 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    np.testing.assert_array_equal(await client.aencode(["a"]), rows(["a"]))
    if not scheme.startswith("http"):
        assert server.counters.connected == 1


@pytest.fixture
def pings(monkeypatch):
    """Pings after 0.4 s, to be answered within 0.4 s."""
    monkeypatch.setattr(base, "PING_SECONDS", 0.4)
    monkeypatch.setattr(base, "PONG_SECONDS", 0.4)


@pytest.mark.parametrize("scheme", ["grpc", "grpcs", "websocket", "websockets"])
def test_a_ping_finds_out_while_a_call_is_in_flight(behind, pings, scheme, rows):
    """Its request is sent again long before its time is over; http has no ping, and leaves it to the system."""
    _, nat, client = behind(scheme)
    client.encode(["warm"])
    nat.forget()
    np.testing.assert_array_equal(client.encode(["a"], timeout=20), rows(["a"]))


@pytest.mark.parametrize("scheme", ["grpc", "grpcs", "websocket", "websockets"])
def test_a_server_that_answers_pings_may_take_its_time(make_server, connect_to, pings, scheme, rows):
    server = make_server(Delay(1.5))
    np.testing.assert_array_equal(connect_to(server, scheme, retry=ONCE).encode(["a"], timeout=20), rows(["a"]))
    assert server.counters.connected == 1


class RefusePings(Fault):
    """End the connection as gRPC's own servers do where a client pings too often; it takes them seconds to find out."""

    async def wait(self, exchange):
        connection = exchange.connection
        connection._h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM, b"too_many_pings")
        connection.push()
        connection.cut("close")
        raise AnsweredError


@pytest.mark.parametrize("scheme", ["grpc", "grpcs"])
def test_a_server_that_refuses_pings_gets_none_any_more(make_server, connect_to, scheme, rows, caplog, monkeypatch):
    """The request is sent again, on a connection without them: grpcio's."""
    asked, pings = [], CHANNEL._pings
    monkeypatch.setattr(CHANNEL, "_pings", lambda channel: asked.append(channel) or pings(channel))
    server = make_server([None, RefusePings(), None, RefusePings()])
    client = connect_to(server, scheme, retry=Retry(attempts=2, backoff=0.001), transport="libraries")
    for text in "abc":
        np.testing.assert_array_equal(client.encode([text], timeout=20), rows([text]))
    assert server.counters.connected == 3
    assert len(asked) == 1
    assert flush(20)
    assert sum("refuses pings" in record.getMessage() for record in caplog.records) == 1


PING = b"\0\0\x08\6\0"
"""How the frame of a ping that is no answer begins."""


class Listen(Fault):
    """Answer a second and a half late, and keep what the client sends meanwhile."""

    def __init__(self):
        self.received = b""

    async def wait(self, exchange):
        connection = exchange.connection
        take = connection.take

        def listen(data):
            self.received += data
            take(data)

        connection.take = listen
        await asyncio.sleep(1.5)


@pytest.mark.parametrize("refused", [False, True])
def test_our_pings_end_where_they_are_refused(make_server, connect_to, pings, rows, caplog, refused):
    """Over connections of our own, which count what they send; the request is sent again."""
    listening = Listen()
    server = make_server([RefusePings(), listening] if refused else [listening])
    client = connect_to(server, "grpc", retry=Retry(attempts=2, backoff=0.001), transport="own")
    np.testing.assert_array_equal(client.encode(["a"], timeout=20), rows(["a"]))
    assert (PING in listening.received) is not refused
    assert flush(20)
    assert ("refuses pings" in caplog.text) is refused


@pytest.mark.soak
async def test_silence_ends_after_25_seconds(behind, rows, figure):
    async def went_on(scheme):
        _, nat, client = behind(scheme)
        await client.aencode(["warm"])
        await asyncio.to_thread(nat.forget)
        began = time.monotonic()
        np.testing.assert_array_equal(await client.aencode(["a"], timeout=59), rows(["a"]))
        return time.monotonic() - began

    took = await asyncio.gather(*map(went_on, ["grpc", "grpcs", "websocket", "websockets"]))
    figure("connections: a silent one was left after, s", round(max(took), 1))
    assert max(took) < base.PING_SECONDS + base.PONG_SECONDS + 3


@pytest.mark.soak
async def test_pings_end_no_request_that_takes_long(server, connect):
    """gRPC's own servers, of which the embedded one is one, end the connection of a client that pings too often."""
    attempts = [connect(scheme, retry=ONCE, timeouts=Timeouts(read=150)) for scheme in SCHEMES]
    found = await asyncio.gather(*[client.aencode(["!!sleep:110"]) for client in attempts])
    assert len({row.tobytes() for row in found}) == 1
