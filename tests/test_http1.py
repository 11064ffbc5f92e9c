"""http on our own connections: an idle one that was closed fails no call, and early bytes of a server are read."""

import asyncio
import contextlib
import socket
import threading
from functools import partial

import pytest
from casdk import (
    TLS,
    CasdkError,
    Client,
    Limits,
    ProtocolMismatchError,
    RejectedError,
    Retry,
    Timeouts,
    TransportError,
)
from casdk._transport.channels.http1 import HttpChannel
from http_peer import NAMES, Served, answer, length_of, message_of, read_request, reply_to

served_by = partial(Served, HttpChannel)


async def close_at_the_second(served, reader, writer):
    """Answer one request, and close the connection as the next one comes: the client could not know."""
    _, body = await read_request(reader)
    writer.write(reply_to(body))
    served.heads.append((await read_request(reader))[0])


async def test_a_connection_that_was_closed_as_the_request_came():
    async with served_by(close_at_the_second) as served:
        for name in NAMES[:3]:
            assert await served.ask(name) == message_of(name)
        assert served.connections == 3
        with pytest.raises(TransportError, match="closed without an answer") as caught:
            await served.ask(NAMES[3], repeatable=False)
        assert caught.value.sent


async def test_no_request_is_repeated_whose_answer_began():
    async def break_off(served, reader, writer):
        _, body = await read_request(reader)
        writer.write(reply_to(body))
        served.heads.append((await read_request(reader))[0])
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{")

    async with served_by(break_off) as served:
        await served.ask(NAMES[0])
        with pytest.raises(TransportError, match="closed in the middle of the answer"):
            await served.ask(NAMES[1])
        assert len(served.heads) == served.connections == 1


async def test_the_end_of_an_idle_connection_is_noticed_before_a_request_that_must_not_be_repeated():
    ended = asyncio.Event()

    async def close(served, reader, writer):
        _, body = await read_request(reader)
        writer.write(reply_to(body))
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with served_by(close) as served:
        for name in NAMES[:5]:
            ended.clear()
            assert await served.ask(name, repeatable=False) == message_of(name)
            await ended.wait()
        assert served.connections == 5


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n", TransportError, "HTTP 408"),
        (b"SSH-2.0-OpenSSH_9\r\n", ProtocolMismatchError, "does not speak HTTP/1.1"),
    ],
)
async def test_bytes_that_a_server_sends_before_the_request(said, error, words):
    async def speak(served, reader, writer):
        writer.write(said)

    async with served_by(speak) as served:
        with pytest.raises(error, match=words):
            await served.ask(NAMES[0])


async def test_interim_replies_do_not_end_a_large_request():
    async def hint(served, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        body = await reader.readexactly(length_of(head))
        writer.write(reply_to(body[:50]))

    message = message_of(NAMES[0]) + b" " * 20_000_000
    async with served_by(hint) as served:
        assert bytes(await served.channel.exchange(NAMES[0], message, ())) == message[:50]


async def test_an_answer_ends_a_large_request_and_its_connection():
    async def refuse(served, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await reader.read()  # what came meanwhile, up to the end of the connection

    async with served_by(refuse) as served:
        for name in NAMES[:2]:
            assert bytes(await served.channel.exchange(name, message_of(name) + b" " * 30_000_000, ())) == b"{}"
        assert served.connections == 2


@pytest.mark.parametrize("how", ["closed", "taken back"])
async def test_a_request_may_be_cancelled_or_closed_at_any_turn_of_the_loop(how):
    seen = set()
    async with served_by(answer) as served:
        endpoint = served.channel.endpoint
        for turns in range(40):
            channel = HttpChannel(endpoint, TLS(), Timeouts(), Limits(), None)
            tasks = [asyncio.create_task(channel.exchange(name, message_of(name), ())) for name in NAMES[:3]]
            for _ in range(turns):
                await asyncio.sleep(0)
            seen.add(tasks[0].done())
            if how == "closed":
                await channel.aclose()
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            await channel.aclose()
            for name, outcome in zip(NAMES, outcomes, strict=False):
                is_ended = isinstance(outcome, TransportError | asyncio.CancelledError)
                assert is_ended or bytes(outcome) == message_of(name)
            with pytest.raises(TransportError, match="was closed") as caught:
                await channel.exchange(NAMES[0], message_of(NAMES[0]), ())
            assert not caught.value.sent
    assert seen == {False, True}


TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
TEXTS = [f"{number} " + "long " * 16_000 for number in range(80)]


def refuse(listener):
    """Answer the head of each request, and close with its body unread, which resets the connection."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # it was shut down
            return
        with connection, contextlib.suppress(ConnectionError):
            seen = b""
            while b"\r\n\r\n" not in seen and (piece := connection.recv(1000)):
                seen += piece
            connection.sendall(TOO_LARGE)


def test_nothing_is_written_after_the_end(caplog):
    """asyncio would log "socket.send() raised exception" for what is written on; six megabytes are many slices."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse, args=(listener,))
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        # The answer says that it is too large; whether it is read before the reset throws it away, the system decides.
        with Client(address, retry=Retry(attempts=1), timeout=20, transport="own") as client, pytest.raises(CasdkError):
            client.encode(TEXTS, batch_size=len(TEXTS))
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def test_an_answer_ends_the_request():
    """A server that has answered need not read the rest of a request; the call does not wait for it."""
    served = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            served.append(connection)
            while b"\r\n\r\n" not in connection.recv(1000):
                pass
            connection.sendall(TOO_LARGE)

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = Client(address, retry=Retry(attempts=1), timeout=20, transport="own")
        with client, pytest.raises(RejectedError, match="HTTP 413"):
            client.encode(["long " * 3_000_000])
        thread.join()
        served[0].close()
