"""The channels on grpcio, httpx and websockets behave like casdk's own.

What a server or a proxy may do to them is in tests/faults, which `make test` runs for both.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from casdk import TLS, CasdkError, Client, DeadlineError, Document, Limits, ReplyError, Retry, Timeouts, TransportError
from casdk._transport.address import parse_address
from casdk._transport.channels import channel_of
from casdk.testing import Babble, FaultServer, Gate, Hold, TextReply
from http_peer import NAMES, Served, read_request, reply_to

ONCE = Retry(attempts=1)
EMPTY = {"grpc": b"", "http": b"{}", "websocket": b""}
"""What is spoken, and an empty request there."""


def channel_to(address, **options):
    endpoint = parse_address(address)
    return channel_of(endpoint, "libraries")(endpoint, TLS(), Timeouts(**options), Limits(), None)


def test_rows_of_texts_and_of_pictures(connect, scheme, expected, images):
    content = ["a", images["png"], "b"]
    client = connect(scheme, transport="libraries")
    np.testing.assert_array_equal(client.encode(content), expected(content))


def test_many_threads_share_a_client(connect, scheme, expected):
    client = connect(scheme, transport="libraries")
    texts = [f"text {number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        found = np.concatenate(list(pool.map(lambda text: client.encode([text]), texts)))
    np.testing.assert_array_equal(found, expected(texts))


def test_a_large_request_and_a_large_reply(connect, scheme, expected):
    """The reply is larger than what the libraries take by default: 4 MiB over grpc, 1 MiB over a websocket."""
    texts = ["long " * 200_000, *(f"text {number}" for number in range(2500))]
    client = connect(scheme, transport="libraries")
    np.testing.assert_array_equal(client.encode(texts, batch_size=len(texts)), expected(texts))


def test_a_reply_over_the_limit(connect, scheme):
    client = connect(scheme, limits=Limits(max_reply_bytes=1000), retry=ONCE, transport="libraries")
    with pytest.raises(ReplyError, match=r"larger than Limits\.max_reply_bytes"):
        client.encode(["a"])


@pytest.mark.parametrize("family", EMPTY)
async def test_closed_at_any_turn_of_connecting(family):
    """What is in flight ends, and no task stays."""
    gate = Gate()
    with FaultServer(Hold(gate), width=4) as server:
        running = asyncio.all_tasks()
        for turns in range(0, 60, 3):
            channel = channel_to(server.address(family))
            asked = [asyncio.create_task(channel.exchange(name * 32, EMPTY[family], ())) for name in "ab"]
            for _ in range(turns):
                await asyncio.sleep(0)
            await channel.aclose()
            for outcome in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(outcome, TransportError), repr(outcome)
            if left := asyncio.all_tasks() - running:
                _, stayed = await asyncio.wait(left, timeout=10)
                assert not stayed, turns
        gate.open()


@pytest.mark.parametrize("family", EMPTY)
async def test_a_dry_run_and_a_channel_that_is_closed(server, family):
    channel = channel_to(server.address(family))
    assert await channel.dry_run(()) is not None
    await channel.aclose()
    with pytest.raises(TransportError):
        await channel.dry_run(())


@pytest.mark.parametrize("family", EMPTY)
async def test_a_request_has_its_deadline(family):
    gate = Gate()
    with FaultServer(Hold(gate), width=4) as server:
        channel = channel_to(server.address(family), read=0.3)
        with pytest.raises(DeadlineError, match=r"within 0\.3 s"):
            await channel.exchange("a" * 32, EMPTY[family], ())
        gate.open()
        await channel.aclose()


@pytest.mark.parametrize("scheme", ["http", "websocket"])
def test_no_redirect_is_followed(scheme):
    """A request is for the server that was named, and so is the credential."""
    with FaultServer() as other:
        place = other.address("http")
        answer = f"HTTP/1.1 302 Found\r\nlocation: {place}/post\r\ncontent-length: 0\r\n\r\n".encode()
        with FaultServer(connections=Babble(answer, close=True)) as server:
            client = Client(server.address(scheme), retry=ONCE, timeout=20, transport="libraries")
            with client, pytest.raises(CasdkError, match="HTTP 302"):
                client.encode(["a"])
        assert other.counters.accepted == 0


def test_a_gateway_that_has_the_stream_alone():
    with FaultServer(width=4, unary=False) as server:
        client = Client(server.address("grpc"), retry=ONCE, timeout=20, transport="libraries")
        with client:
            for _ in range(2):
                assert client.encode(["a"]).shape == (1, 4)
        assert server.counters.requests == 2


@pytest.mark.parametrize("scheme", EMPTY)
def test_a_reply_that_is_text(scheme):
    with FaultServer(TextReply()) as server:
        client = Client(server.address(scheme), retry=ONCE, timeout=20, transport="libraries")
        with client, pytest.raises(ReplyError):
            client.encode(["a"])


def test_no_cookie_is_sent_back():
    """It would be sent with other calls, as long as the client lives."""
    heads = []

    async def set_one(served, reader, writer):
        while True:
            head, body = await read_request(reader)
            heads.append(head.lower())
            writer.write(reply_to(body).replace(b"\r\n", b"\r\nset-cookie: a=b\r\n", 1))

    async def ask_twice():
        async with Served(channel_of(parse_address("http://host:1"), "libraries"), set_one) as served:
            for name in NAMES[:2]:
                await served.ask(name)

    asyncio.run(ask_twice())
    assert len(heads) == 2
    assert not any(b"cookie" in head for head in heads)


async def test_a_request_that_must_not_share_a_connection_leaves_none_open():
    """As one with the id of a Document that a request before it had: each has a connection of its own."""
    with FaultServer(width=4) as server, Client(server.address("http"), transport="libraries") as client:
        for _ in range(20):
            await client.aencode([Document(id="same", text="a")])
        assert server.counters.connected == 20
        await asyncio.to_thread(server.wait_for, lambda seen: seen.open == 1)
