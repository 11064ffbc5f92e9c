"""Memory of large messages: the peak of a client's process, beyond what the caller has and what the call returns."""

import json
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import psutil
import pytest
from casdk.testing import Fault, FaultServer, embed
from casdk.wire.docarray_pb2 import DenseNdArrayProto, DocumentArrayProto, DocumentProto, NdArrayProto
from casdk.wire.jina_pb2 import DataRequestProto

MB = 1_000_000
REST_BYTES = 40 * MB
"""What may come on top of the message: more than a few reads of a socket, and less than half a copy of a message."""
CALL = """
import json, sys
from pathlib import Path
from casdk import Client, Limits, Timeouts

def peak():
    # Not `ru_maxrss`, which a process inherits from the one that has started it.
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

address, images = sys.argv[1], int(sys.argv[2])
content = [b"\\x89PNG\\r\\n\\x1a\\n" + bytes(50_000_000) for _ in range(images)] or ["a text"]
limits = Limits(max_message_bytes=1 << 30, max_reply_bytes=2 << 30)
with Client(address, limits=limits, timeouts=Timeouts(read=500)) as client:
    client.profile(quiet=True)
    before = peak()
    rows = client.encode(content)
    beyond = peak() - before - rows.nbytes
    print(json.dumps({"shape": rows.shape, "beyond": beyond, "range": [float(rows.min()), float(rows.max())]}))
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the system does not say so elsewhere")


def call(address, images=0):
    """Return the shape of the rows, the most bytes that a call took beyond its content and them, and their range."""
    command = [sys.executable, "-c", CALL, address, str(images)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


@pytest.mark.soak
@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_a_request_of_a_hundred_megabytes(scheme):
    with FaultServer() as server:
        found = call(server.address(scheme), images=2)
    assert found["shape"] == [2, 512]
    message = 100 * MB * 4 // 3 if scheme == "http" else 100 * MB  # JSON has images as base64
    assert found["beyond"] < message + REST_BYTES


@pytest.mark.soak
@pytest.mark.parametrize(("scheme", "width"), [("grpc", 25 * MB), ("websocket", 25 * MB), ("http", 3 * MB)])
def test_a_large_reply(scheme, width):
    with FaultServer(width=width) as server:
        found = call(server.address(scheme))
    assert found["shape"] == [1, width]
    row = embed("a text", width)
    message = len(json.dumps(row.tolist())) if scheme == "http" else row.nbytes
    assert found["beyond"] < message + REST_BYTES


# two gigabytes

LARGEST_BYTES = (2 << 30) - 1
"""What protobuf has as its limit."""
HEAD_BYTES = 1000
"""Room for what is no number."""
NUMBER = 0.123456
PIECE_NUMBERS = 100_000
FREE_BYTES = 10 << 30


def length(number, size):
    """Return what stands before a field of so many bytes."""
    written = b""
    for rest in (number << 3 | 2, size):
        while rest > 127:
            written += bytes([rest & 127 | 128])
            rest >>= 7
        written += bytes([rest])
    return written


def large_proto(request_id, document_id):
    """Return how a reply of one row begins and ends, and the number that stands so many times between."""
    number = np.float32(NUMBER).tobytes()
    count = (LARGEST_BYTES - HEAD_BYTES) // len(number)
    dense = DenseNdArrayProto(shape=[1, count], dtype="<f4")
    # From the inside out: before each message, what is written of it already, and the field that the rest is in.
    head = b""
    for message, field in [
        (dense, "buffer"),
        (NdArrayProto(), "dense"),
        (DocumentProto(id=document_id), "embedding"),
        (DocumentArrayProto(), "docs"),
        (DataRequestProto.DataContentProto(), "docs"),
        (DataRequestProto(header={"request_id": request_id}), "data"),
    ]:
        place = message.DESCRIPTOR.fields_by_name[field].number
        head = message.SerializeToString() + length(place, len(head) + count * len(number)) + head
    return head, number, count, b""


def large_json(request_id, document_id):
    """Return the same of JSON."""
    number = b"%.6f," % NUMBER
    head = b'{"header":{"requestId":"%b"},"data":[{"id":"%b","embedding":[' % (
        request_id.encode(),
        document_id.encode(),
    )
    return head, number, (LARGEST_BYTES - HEAD_BYTES) // len(number), number[:-1] + b"]}]}"


@dataclass(frozen=True, slots=True)
class Large(Fault):
    """Answer one text by a reply of nearly `LARGEST_BYTES`, which is never there as a whole."""

    async def deliver(self, exchange, payload):
        [document] = exchange.message.data.docs.docs
        if document.text != "a text":  # what `profile` asks for
            return False
        make = large_json if exchange.family == "http" else large_proto
        head, number, count, tail = make(exchange.message.header.request_id, document.id)
        async with exchange.turn():
            await exchange.begin(len(head) + count * len(number) + len(tail))
            await exchange.write(head)
            for start in range(0, count, PIECE_NUMBERS):
                await exchange.write(number * min(PIECE_NUMBERS, count - start))
            await exchange.write(tail)
            await exchange.end()
        return True


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_a_reply_of_two_gigabytes(scheme):
    if (free := psutil.virtual_memory().available) < FREE_BYTES:
        pytest.skip(f"it takes up to 5 GiB on both sides, and {free / 2**30:.0f} of 10 GiB are free")
    with FaultServer(Large(), width=4) as server:
        found = call(server.address(scheme))
    assert found["range"] == [np.float32(NUMBER)] * 2
    assert found["beyond"] < LARGEST_BYTES + REST_BYTES
