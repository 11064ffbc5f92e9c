"""The connector of all channels: it loses no received bytes, leaves no connection open, and raises typed errors."""

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import Awaitable, Callable

import pytest
from casdk import TLS, ProtocolMismatchError, ProxyError, TLSError, TransportError
from casdk._transport.address import Endpoint
from casdk._transport.connecting import Connector
from casdk.testing import ConnectProxy, FaultServer, certificates

SECONDS = 10.0
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Ours(asyncio.Protocol):
    """A protocol that records the bytes it receives and the end of its connection."""

    def __init__(self):
        self.transport = None
        self.received = b""
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.received += data

    def connection_lost(self, exc):
        self.ended.set_result(exc)


@contextlib.asynccontextmanager
async def serving(serve, context=None):
    """A server that runs one function for each connection; yields its port, and in the end waits for all connections.

    Each connection has its task from the moment it is accepted, so that one whose TLS handshake is still under way is
    waited for, too: `asyncio.start_server` has a task only for those whose handshake is done.
    """
    loop = asyncio.get_running_loop()
    attending = set()

    async def attend(sock):
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            reader = asyncio.StreamReader()
            transport, protocol = await loop.connect_accepted_socket(
                lambda: asyncio.StreamReaderProtocol(reader), sock, ssl=context
            )
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            try:
                await serve(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()

    def accept():
        with contextlib.suppress(BlockingIOError):
            sock, _ = listener.accept()
            sock.setblocking(False)
            attending.add(loop.create_task(attend(sock)))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        loop.add_reader(listener, accept)
        try:
            yield listener.getsockname()[1]
        finally:
            loop.remove_reader(listener)
    if attending:
        await asyncio.wait(attending)
    for task in attending:
        task.result()


def connector(scheme, port, *, proxy=None, tunnel=True, tls=None, host="127.0.0.1", seconds=SECONDS):
    return Connector(Endpoint(scheme, host, port), tls or TLS(), proxy, seconds, tunnel=tunnel)


async def test_bytes_that_a_server_sends_first_are_received():
    """They come before or after the protocol is made; the end behind them is noticed, too."""

    async def greet(reader, writer):
        writer.write(b"hello")

    async with serving(greet) as port:
        ours = await connector("grpc", port).connect(Ours)
        assert await ours.ended is None
        assert ours.received == b"hello"


async def test_bytes_behind_a_proxys_answer_are_received():
    async def pass_on(reader, writer):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"CONNECT clip.example:51000 HTTP/1.1\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nvia: x\r\n\r\nhello")

    async with serving(pass_on) as port:
        opener = connector("grpc", 51000, host="clip.example", proxy=f"http://127.0.0.1:{port}")
        ours = await opener.connect(Ours)
        assert await ours.ended is None
        assert ours.received == b"hello"


async def test_a_proxys_answer_may_come_in_any_pieces():
    async def pass_on(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        for byte in b"HTTP/1.1 200 OK\r\nvia: x\r\n\r\nhello":
            writer.write(bytes([byte]))
            await asyncio.sleep(0)

    async with serving(pass_on) as port:
        ours = await connector("grpc", 1, proxy=f"http://127.0.0.1:{port}").connect(Ours)
        assert await ours.ended is None
        assert ours.received == b"hello"


@pytest.mark.parametrize(
    ("answer", "said", "retryable"),
    [
        (b"", "broke off its answer", True),
        (b"HTTP/1.1 200 OK\r\n", "broke off its answer", True),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "does not speak HTTP", False),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "opens no tunnel: HTTP 403 Forbidden", False),
        (b"HTTP/1.1 503 Busy\r\n\r\n", "opens no tunnel: HTTP 503 Busy", True),
        (b"HTTP/1.1 200 " + b"x" * 70_000, "has no end", False),
    ],
)
async def test_a_proxy_that_opens_no_tunnel(answer, said, retryable):
    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with serving(refuse) as port:
        with pytest.raises(ProxyError, match=said) as caught:
            await connector("grpc", 1, proxy=f"http://127.0.0.1:{port}").connect(Ours)
        assert (caught.value.retryable, caught.value.sent) == (retryable, False)


async def test_no_tunnel_is_asked_for_where_the_proxy_passes_requests_on():
    with ConnectProxy() as proxy:
        ours = await connector("http", 1, proxy=proxy.url(), tunnel=False).connect(Ours)
        assert ours.transport.get_extra_info("peername") == ("127.0.0.1", proxy.port)
        ours.transport.abort()
    assert proxy.targets == []


@pytest.mark.parametrize(("scheme", "agreed"), [("grpcs", "h2"), ("https", "http/1.1"), ("websockets", "http/1.1")])
async def test_each_scheme_asks_for_its_protocol(scheme, agreed):
    """And small writes are sent at once, without Nagle's algorithm."""
    with FaultServer() as server:
        opener = connector(scheme, server.port(scheme), host="localhost", tls=TLS(ca=server.ca))
        ours = await opener.connect(Ours)
        assert ours.transport.get_extra_info("ssl_object").selected_alpn_protocol() == agreed
        sock = ours.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        ours.transport.abort()


async def test_a_server_that_speaks_before_tls():
    """Its bytes are not part of a TLS handshake, so the port does not speak TLS."""

    async def greet(reader, writer):
        writer.write(b"SSH-2.0-OpenSSH_9\r\n")
        await reader.read()

    async with serving(greet) as port:
        with pytest.raises(ProtocolMismatchError, match="does not speak TLS"):
            await connector("https", port).connect(Ours)


async def test_a_server_that_closes_before_tls():
    async def close(reader, writer):
        return

    async with serving(close) as port:
        with pytest.raises(TLSError, match="closed in the TLS handshake"):
            await connector("https", port).connect(Ours)


async def test_a_handshake_has_the_rest_of_the_connect_timeout():
    async def stay_silent(reader, writer):
        await reader.read()

    async with serving(stay_silent) as port:
        with pytest.raises(TransportError, match=r"no connection to https://.* within 0\.2 s"):
            await connector("https", port, seconds=0.2).connect(Ours)
        made = []

        async def wait(ours):
            made.append(ours)
            await asyncio.shield(ours.ended)

        with pytest.raises(TransportError, match=r"no connection to http://.* within 0\.2 s"):
            await connector("http", port, seconds=0.2).connect(Ours, wait)
        await made[0].ended


@pytest.mark.parametrize("route", ["plain", "proxy", "tls", "tls through a proxy"])
@pytest.mark.parametrize("how", ["cancelled", "closed"])
async def test_connecting_may_be_cancelled_or_closed_at_any_turn_of_the_loop(route, how):
    """Nothing stays open: the server sees the end of each connection, and a socket that nobody closes would warn."""
    authority = certificates.authority()
    finished = set()

    async def listen(reader, writer):
        await reader.read()

    async def stay(ours):
        for _ in range(3):
            await asyncio.sleep(0)

    scheme = "https" if "tls" in route else "http"
    context = certificates.server_context(authority.server(), ["http/1.1"]) if "tls" in route else None
    async with serving(listen, context) as port:
        # The proxy ends first, so that no connection from it to the server can begin after the server has ended.
        with ConnectProxy() as proxy:
            for turns in range(80):
                through = proxy.url() if "proxy" in route else None
                opener = connector(scheme, port, proxy=through, host="localhost", tls=TLS(ca=authority.pem))
                task = asyncio.create_task(opener.connect(Ours, stay))
                for _ in range(turns):
                    await asyncio.sleep(0)
                finished.add(task.done())
                if task.done():
                    task.result().transport.abort()
                elif how == "closed":
                    opener.close()
                    with pytest.raises(TransportError, match="was closed"):
                        await task
                else:
                    task.cancel()
                    await asyncio.wait([task])
                    assert task.cancelled()
            ours = await connector(scheme, port, host="localhost", tls=TLS(ca=authority.pem)).connect(Ours)
            ours.transport.abort()
    gc.collect()
    assert False in finished


async def test_a_closed_connector_opens_no_connection():
    opener = connector("http", 1)
    opener.close()
    with pytest.raises(TransportError, match="was closed"):
        await opener.connect(Ours)
