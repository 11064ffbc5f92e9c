"""What all channels connect by: nothing that came is lost, nothing stays open, and what failed has its name."""

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
    """A protocol that writes down what it is told."""

    def __init__(self):
        self.transport = None
        self.heard = b""
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.heard += data

    def connection_lost(self, exc):
        self.ended.set_result(exc)


@contextlib.asynccontextmanager
async def serving(serve, context=None):
    """A server of one function; yields its port, and waits for the end of each of its connections.

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


async def test_what_a_server_says_first_is_heard():
    """Whether it comes before or after its protocol is made; and the end behind it."""

    async def greet(reader, writer):
        writer.write(b"hello")

    async with serving(greet) as port:
        ours = await connector("grpc", port).connect(Ours)
        assert await ours.ended is None
        assert ours.heard == b"hello"


async def test_what_comes_with_a_proxys_answer_is_heard():
    async def pass_on(reader, writer):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"CONNECT clip.example:51000 HTTP/1.1\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nvia: x\r\n\r\nhello")

    async with serving(pass_on) as port:
        way = connector("grpc", 51000, host="clip.example", proxy=f"http://127.0.0.1:{port}")
        ours = await way.connect(Ours)
        assert await ours.ended is None
        assert ours.heard == b"hello"


async def test_an_answer_of_a_proxy_may_come_in_any_pieces():
    async def pass_on(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        for byte in b"HTTP/1.1 200 OK\r\nvia: x\r\n\r\nhello":
            writer.write(bytes([byte]))
            await asyncio.sleep(0)

    async with serving(pass_on) as port:
        ours = await connector("grpc", 1, proxy=f"http://127.0.0.1:{port}").connect(Ours)
        assert await ours.ended is None
        assert ours.heard == b"hello"


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


async def test_whoever_sends_a_proxy_whole_requests_has_no_tunnel():
    with ConnectProxy() as proxy:
        ours = await connector("http", 1, proxy=proxy.url(), tunnel=False).connect(Ours)
        assert ours.transport.get_extra_info("peername") == ("127.0.0.1", proxy.port)
        ours.transport.abort()
    assert proxy.targets == []


@pytest.mark.parametrize(("scheme", "agreed"), [("grpcs", "h2"), ("https", "http/1.1"), ("websockets", "http/1.1")])
async def test_each_scheme_asks_for_its_protocol(scheme, agreed):
    """And nothing waits for company before it is sent."""
    with FaultServer() as server:
        way = connector(scheme, server.port(scheme), host="localhost", tls=TLS(ca=server.ca))
        ours = await way.connect(Ours)
        assert ours.transport.get_extra_info("ssl_object").selected_alpn_protocol() == agreed
        sock = ours.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        ours.transport.abort()


async def test_a_server_that_speaks_before_tls():
    """What it said would be missing in the handshake, which is how OpenSSL sees that it is no TLS."""

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


async def test_a_handshake_has_the_rest_of_the_time():
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


@pytest.mark.parametrize("way", ["plain", "proxy", "tls", "tls through a proxy"])
@pytest.mark.parametrize("how", ["taken back", "closed"])
async def test_ended_at_any_turn(way, how):
    """Nothing stays open: the server sees the end of each connection, and a socket that nobody closes would warn."""
    authority = certificates.authority()
    finished = set()

    async def listen(reader, writer):
        await reader.read()

    async def stay(ours):
        for _ in range(3):
            await asyncio.sleep(0)

    scheme = "https" if "tls" in way else "http"
    context = certificates.server_context(authority.server(), ["http/1.1"]) if "tls" in way else None
    async with serving(listen, context) as port:
        # The proxy ends first: what it still had to open to the server is open by then, or never will be.
        with ConnectProxy() as proxy:
            for turns in range(80):
                through = proxy.url() if "proxy" in way else None
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


async def test_none_is_opened_any_more():
    opener = connector("http", 1)
    opener.close()
    with pytest.raises(TransportError, match="was closed"):
        await opener.connect(Ours)
