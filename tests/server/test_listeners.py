"""A port ends slow heads, stalled readers and endless fragments, each within its time limit."""

import asyncio
import contextlib
import socket
import struct

import pytest
from casdk.server import listeners
from casdk.server.gateway import Gateway
from casdk.server.listeners import send_seconds
from casdk.server.settings import Settings

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
WAIT = 20


def talk(scheme, talking):
    """Run a server of one scheme in this process, and a coroutine with a connection to it."""

    async def run():
        async with Gateway(Settings(ports={scheme: 0}, threads=1, index=False)).run() as ready:
            host, port = ready.addresses[scheme].split("://")[1].split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                async with asyncio.timeout(WAIT):
                    return await talking(reader, writer)
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

    return asyncio.run(run())


def test_a_reply_has_as_long_as_it_is_large():
    assert send_seconds(0) == listeners.STALLED_SECONDS
    assert send_seconds(10 * listeners.SEND_BYTES_PER_SECOND) == listeners.STALLED_SECONDS + 10


@pytest.mark.parametrize("scheme", ["http", "websocket"])
@pytest.mark.parametrize("begun", [b"", b"GET / HT"])
def test_a_head_that_does_not_end_ends_the_connection(monkeypatch, scheme, begun):
    monkeypatch.setattr(listeners, "HEAD_SECONDS", 0.1)

    async def talking(reader, writer):
        writer.write(begun)
        return await reader.read()

    assert talk(scheme, talking) == b""


def test_so_does_one_after_a_request_was_answered(monkeypatch):
    """uvicorn waits for the next request for a few seconds, and for ever when it has begun."""
    monkeypatch.setattr(listeners, "HEAD_SECONDS", 0.1)

    async def talking(reader, writer):
        writer.write(HEAD + b"\r\n")
        assert await reader.readuntil(b"\r\n\r\n{}")
        writer.write(b"GET / HT")
        return await reader.read()

    assert talk("http", talking) == b""


def test_a_request_that_is_worked_on_is_waited_for(monkeypatch):
    monkeypatch.setattr(listeners, "HEAD_SECONDS", 0.1)

    async def talking(reader, writer):
        writer.write(b"POST /post HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{")
        await asyncio.sleep(0.3)  # longer than a head may take; the body has its own time
        writer.write(b"}")
        return await reader.readline()

    assert talk("http", talking) == b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("more", [b"X: " + b"a" * 20_000 + b"\r\n", b"x: 1\r\n" * 1000])
def test_a_handshake_that_the_library_does_not_read_is_refused(more):
    """It said nothing, and the connection was kept for ever."""

    async def talking(reader, writer):
        writer.write(HEAD + more + UPGRADE)
        return await reader.read()

    assert talk("websocket", talking).startswith(b"HTTP/1.1 400 ")


def frame(kind, payload, *, last):
    return struct.pack("BB4x", kind | (128 if last else 0), 128 | len(payload)) + payload


def test_a_message_in_too_many_fragments_closes_the_connection():
    async def talking(reader, writer):
        writer.write(HEAD + UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(2, b"a", last=False) + frame(0, b"a", last=False) * listeners.MOST_FRAGMENTS)
        return await reader.read()

    closed = talk("websocket", talking)
    assert closed[:1] == b"\x88"
    assert struct.unpack_from(">H", closed, 2) == (listeners.TOO_LARGE,)


def test_while_many_connect_others_are_answered():
    """All that had connected were accepted before anything else was done."""

    async def talking(reader, writer):
        host, port = writer.get_extra_info("peername")
        with contextlib.ExitStack() as stack:
            for _ in range(500):
                stack.enter_context(socket.create_connection((host, port)))
            writer.write(HEAD + b"\r\n")
            answer = asyncio.ensure_future(reader.readline())
            before, most = len(asyncio.all_tasks()), 0
            while not answer.done():
                await asyncio.sleep(0)
                now = len(asyncio.all_tasks())
                before, most = now, max(most, now - before)
            return answer.result(), most

    line, accepted_at_once = talk("http", talking)
    assert line == b"HTTP/1.1 200 OK\r\n"
    assert accepted_at_once < 10
