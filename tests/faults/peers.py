"""Servers that write raw bytes, which no library would: what the tests of broken replies share."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded

Answer = Callable[[socket.socket], None]


@contextlib.contextmanager
def peer(answer: Answer) -> Iterator[str]:
    """Answer each connection in a thread of its own; the address comes without a scheme."""
    connections: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def talk(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            answer(connection)

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                threads.append(threading.Thread(target=talk, args=(connection,), daemon=True))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, args=(listener,))
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for talker in threads:
                talker.join()
            for connection in connections:
                connection.close()


def keep(connection: socket.socket) -> None:
    """Keep a connection open, and read what comes, until the other end closes it."""
    while connection.recv(65536):
        pass


def read_head(connection: socket.socket) -> bytes:
    """Return the head of a request over http, and what came with it."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(65536)
    return head


def read_post(connection: socket.socket) -> bytes:
    """Read a request over http; return its head."""
    head, _, body = read_head(connection).partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    assert length is not None
    missing = int(length[1]) - len(body)
    while missing > 0:
        missing -= len(connection.recv(65536))
    return head


def say(answer: bytes, then: bytes = b"", read: Callable[[socket.socket], object] = read_post) -> Answer:
    """Return what reads a request over http and answers with these bytes, and then with others without end."""

    def answering(connection: socket.socket) -> None:
        read(connection)
        connection.sendall(answer)
        while then:
            connection.sendall(then)
        keep(connection)

    return answering


def accepted(head: bytes) -> bytes:
    """Return the answer to a websocket's handshake."""
    key = re.search(rb"sec-websocket-key: (\S+)", head, re.IGNORECASE)
    assert key is not None
    accept = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )


def frames(answer: bytes, then: bytes = b"", with_handshake: bool = False) -> Answer:
    """Return what answers the first request over a websocket with these bytes, and then with others without end.

    Args:
        answer: Sent once.
        then: Sent without end.
        with_handshake: Send them right behind the handshake, in one piece with it.
    """

    def answering(connection: socket.socket) -> None:
        hello = accepted(read_head(connection))
        if with_handshake:
            connection.sendall(hello + answer)
        else:
            connection.sendall(hello)
            connection.recv(65536)
            connection.sendall(answer)
        while then:
            connection.sendall(then)
        keep(connection)

    return answering


def frame(first: int, payload: bytes = b"", masked: bool = False) -> bytes:
    """Return a frame of a websocket with this first byte."""
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head = bytes([first, len(payload) | bit])
    elif len(payload) < 65536:
        head = bytes([first, 126 | bit]) + struct.pack(">H", len(payload))
    else:
        head = bytes([first, 127 | bit]) + struct.pack(">Q", len(payload))
    return head + (bytes(4) if masked else b"") + payload


def closing(code: int, reason: bytes = b"") -> bytes:
    """Return the frame that closes a websocket."""
    return frame(0x88, struct.pack(">H", code) + reason)


def streams(act: Callable[[H2Connection, int], None]) -> Answer:
    """Return what does something with each request over gRPC."""

    def answering(connection: socket.socket) -> None:
        h2 = H2Connection(H2Configuration(client_side=False, normalize_outbound_headers=False))
        h2.initiate_connection()
        connection.sendall(h2.data_to_send())
        while data := connection.recv(65536):
            for event in h2.receive_data(data):
                if isinstance(event, StreamEnded):
                    act(h2, event.stream_id)
            connection.sendall(h2.data_to_send())

    return answering


def trailers_only(status: str, message: str = "") -> Answer:
    """Return what answers each request over gRPC with a status alone."""
    head = [
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("grpc-status", status),
        ("grpc-message", message),
    ]
    return streams(lambda h2, stream: h2.send_headers(stream, head, end_stream=True))


def message(body: bytes, status: str = "0") -> Answer:
    """Return what answers each request over gRPC with these bytes, gRPC's prefix included, and a status."""

    def act(h2: H2Connection, stream: int) -> None:
        h2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        if body:
            h2.send_data(stream, body)
        h2.send_headers(stream, [("grpc-status", status)], end_stream=True)

    return streams(act)
