"""The floor: a raw TCP socket that moves the same bytes, and one copy of each row: ``python floor.py ADDRESS CA``."""

import socket as sockets
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
from loop import Call, Case, serve
from wire import messages

ADDRESS, CA = sys.argv[1:]
SCHEME, TARGET = ADDRESS.split("://")


def prepare(case: Case) -> Call:
    sent = messages(case, "json" if SCHEME == "http" else "proto")
    asked, answered = len(sent[0]), len(reply_to(sent[0]))
    assert {len(message) for message in sent} == {asked}, "the peer counts on requests of one length"
    peer = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("echo.py")), str(asked), str(answered)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert peer.stdout is not None
    line = sockets.create_connection(("127.0.0.1", int(peer.stdout.readline())))
    line.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
    buffer = memoryview(bytearray(answered))
    batch = case["batch"]
    rows = np.empty((case["n"], 512), np.float32)
    size = batch * 512 * 4
    # JSON has no rows to copy; as many bytes are copied as the rows have.
    source = np.frombuffer(buffer if len(buffer) >= size else bytes(size), np.float32, batch * 512).reshape(batch, 512)

    def call() -> None:
        for start, message in enumerate(sent):
            line.sendall(message)
            got = 0
            while got < len(buffer):
                got += line.recv_into(buffer[got:])
            rows[start * batch : (start + 1) * batch] = source

    return call


def reply_to(message: bytes) -> bytes:
    """Ask the server once, to learn how long its answers are."""
    if SCHEME == "http":
        request = urllib.request.Request(f"{ADDRESS}/post", message, {"content-type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            return reply.read()
    if SCHEME == "websocket":
        from websockets.sync.client import connect
        from websockets.typing import Subprotocol

        with connect(f"ws://{TARGET}", subprotocols=[Subprotocol("bytes")], max_size=None, proxy=None) as socket:
            socket.send(message)
            return bytes(socket.recv(decode=False))
    import grpc

    with grpc.insecure_channel(TARGET, [("grpc.max_receive_message_length", -1)]) as channel:
        return channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")(message)


if __name__ == "__main__":
    serve(prepare)
