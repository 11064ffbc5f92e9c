"""Compressed replies are never decompressed, because kilobytes could become gigabytes before any limit counts them.

The servers here are raw ones: no library sends what was not asked for.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import re
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from casdk import Client, Limits, ReplyError, Retry
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded
from peers import read_head, read_post

SIZE = 200_000_000
MOST = 1_000_000


@cache
def bomb(wbits: int = 31) -> bytes:
    """Return `SIZE` zeros, compressed: gzip's form, zlib's (15) or none around it (-15)."""
    press = zlib.compressobj(9, wbits=wbits)
    return b"".join(press.compress(bytes(SIZE // 20)) for _ in range(20)) + press.flush()


def answer_grpc(connection: socket.socket) -> None:
    h2 = H2Connection(H2Configuration(client_side=False))
    h2.initiate_connection()
    connection.sendall(h2.data_to_send())
    while data := connection.recv(65536):
        for event in h2.receive_data(data):
            if isinstance(event, StreamEnded):
                head = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-encoding", "gzip")]
                h2.send_headers(event.stream_id, head)
                body = b"\1" + struct.pack(">I", len(bomb())) + bomb()
                for start in range(0, len(body), 16000):
                    h2.send_data(event.stream_id, body[start : start + 16000])
                h2.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)
        connection.sendall(h2.data_to_send())


def answer_http(connection: socket.socket) -> None:
    read_post(connection)
    packed = gzip.compress(bomb())
    encoding = b"gzip, gzip"
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: %b\r\ncontent-length: %d\r\n\r\n"
    connection.sendall(answer % (encoding, len(packed)) + packed)
    connection.recv(1)


def answer_websocket(connection: socket.socket) -> None:
    key = re.search(rb"sec-websocket-key: (\S+)", read_head(connection), re.IGNORECASE)[1]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )
    connection.recv(65536)
    packed = bomb(-15)
    connection.sendall(b"\xc2\x7f" + struct.pack(">Q", len(packed)) + packed)
    connection.recv(1)


@contextlib.contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Answer connections one after the other; the address comes without a scheme."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(5)
                    answer(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


ANSWERS = {
    "grpc": (answer_grpc, "compressed"),
    "http": (answer_http, "Content-Encoding"),
    "websocket": (answer_websocket, "reserved bits"),
}


def peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize("scheme", ANSWERS)
def test_a_reply_that_comes_compressed(scheme):
    answer, words = ANSWERS[scheme]
    bomb(), bomb(-15)
    with serving(answer) as place:
        limits = Limits(max_reply_bytes=MOST)
        with Client(f"{scheme}://{place}", limits=limits, retry=Retry(attempts=1), timeout=20) as client:
            Path("/proc/self/clear_refs").write_text("5")
            before = peak()
            with pytest.raises(ReplyError, match=words):
                client.encode(["a"])
            assert peak() - before < SIZE // 4
