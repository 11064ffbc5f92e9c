"""A connection reads its answer in whatever pieces it arrives, and rejects an answer without a request."""

import asyncio

import pytest
from casdk import ReplyError, TransportError
from casdk._transport.address import Endpoint
from casdk._transport.channels.http1_connection import AT_ONCE_BYTES, Connection

ENDPOINT = Endpoint("http", "127.0.0.1", 51001)
MOST = 1000


class Written(asyncio.Transport):
    """A transport that records written bytes, and is full when the test says so."""

    def __init__(self, protocol):
        super().__init__()
        self.pieces = []
        self.protocol = protocol
        self.full = False
        self.ended = False

    def write(self, data):
        self.pieces.append(bytes(data))
        if self.full:
            self.protocol.pause_writing()

    def close(self):
        self.ended = True

    def abort(self):
        self.ended = True

    def is_closing(self):
        return self.ended


def connection_to_nobody():
    lost = []
    connection = Connection(ENDPOINT, lost.append)
    transport = Written(connection)
    connection.connection_made(transport)
    return connection, transport, lost


async def asking(connection, body=b"{}"):
    task = asyncio.create_task(connection.ask(b"POST / HTTP/1.1\r\n\r\n", body, MOST))
    await asyncio.sleep(0)
    return task


async def test_any_cut_of_an_answer():
    stream = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
    connection, _, _ = connection_to_nobody()
    for cut in range(len(stream)):
        task = await asking(connection)
        connection.data_received(stream[:cut])
        connection.data_received(stream[cut:])
        answer = await task
        assert (answer.status, bytes(answer.body)) == (200, b"hello")
        assert connection.open


async def test_a_small_request_is_written_at_once_and_a_large_one_as_it_is_read():
    connection, transport, _ = connection_to_nobody()
    await asking(connection, b"x" * AT_ONCE_BYTES)
    assert [len(piece) for piece in transport.pieces] == [len(b"POST / HTTP/1.1\r\n\r\n") + AT_ONCE_BYTES]
    connection, transport, _ = connection_to_nobody()
    transport.full = True
    await asking(connection, b"x" * (3 << 20))
    for pieces in (2, 3, 4):
        assert len(transport.pieces) == pieces
        connection.resume_writing()
        await asyncio.sleep(0)
    assert len(transport.pieces) == 4


@pytest.mark.parametrize("early", [b"HTTP/1.1 200 OK\r\n", b"x" * 10])
async def test_bytes_between_two_requests_end_it(early):
    connection, transport, _ = connection_to_nobody()
    task = await asking(connection)
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    await task
    assert connection.open
    connection.data_received(early)
    assert not connection.open
    assert transport.ended


async def test_a_server_that_sends_without_end_before_the_request():
    connection, transport, _ = connection_to_nobody()
    for _ in range(10):
        connection.data_received(b"HTTP/1.1 100 x\r\n\r\n" * 1000)
    assert not connection.open
    assert transport.ended


async def test_an_answer_too_large_ends_it():
    connection, transport, _ = connection_to_nobody()
    task = await asking(connection)
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n")
    with pytest.raises(ReplyError, match=r"http://127.0.0.1:51001: the reply is larger than .*\(1000\)"):
        await task
    assert transport.ended


async def test_the_end_of_the_connection_may_be_that_of_an_answer():
    connection, _, lost = connection_to_nobody()
    task = await asking(connection)
    connection.data_received(b"HTTP/1.1 503 x\r\nretry-after: 7\r\n\r\nbusy")
    connection.eof_received()
    connection.connection_lost(None)
    status, body, retry_after = await task
    assert (status, bytes(body), retry_after) == (503, b"busy", "7")
    assert (connection.open, connection.stale, lost, connection.lost.done()) == (False, False, [connection], True)


@pytest.mark.parametrize("used", [False, True])
async def test_an_end_without_an_answer(used):
    connection, _, _ = connection_to_nobody()
    connection.pairing.used = used
    task = await asking(connection)
    connection.connection_lost(ConnectionResetError(104, "Connection reset by peer"))
    with pytest.raises(TransportError, match=r"the connection broke$") as caught:
        await task
    assert caught.value.sent
    assert connection.stale is used
    with pytest.raises(TransportError, match=r"the connection broke$"):
        await connection.ask(b"", b"", MOST)
