"""Memory of large messages: the peak of a client's process, beyond what the caller has and what the call returns."""

import json
import subprocess
import sys

import pytest
from casdk.testing import FaultServer, embed

MB = 1_000_000
REST_BYTES = 40 * MB
"""What may come on top of the message: more than a few reads of a socket, and less than half a copy of a message."""
COPIES = {"grpc": 1, "websocket": 1, "http": 2}
"""How many times a message may be in memory at once. A JSON body is, while its pieces are joined."""
CALL = """
import json, sys
from pathlib import Path
from casdk import Client, Limits

def peak():
    # Not `ru_maxrss`, which a process inherits from the one that has started it.
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

address, images = sys.argv[1], int(sys.argv[2])
content = [b"\\x89PNG\\r\\n\\x1a\\n" + bytes(50_000_000) for _ in range(images)] or ["a text"]
with Client(address, limits=Limits(max_message_bytes=1 << 30)) as client:
    client.profile(quiet=True)
    before = peak()
    rows = client.encode(content)
    print(json.dumps({"shape": rows.shape, "beyond": peak() - before - rows.nbytes}))
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the system does not say so elsewhere")


def peak_of(address, images=0):
    """Return the shape of the rows, and the most bytes that a call took beyond its content and them."""
    command = [sys.executable, "-c", CALL, address, str(images)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    return found["shape"], found["beyond"]


@pytest.mark.parametrize("scheme", COPIES)
def test_a_request_of_a_hundred_megabytes(scheme):
    with FaultServer() as server:
        shape, beyond = peak_of(server.address(scheme), images=2)
    assert shape == [2, 512]
    message = 100 * MB * 4 // 3 if scheme == "http" else 100 * MB  # JSON has images as base64
    assert beyond < COPIES[scheme] * message + REST_BYTES


@pytest.mark.parametrize(("scheme", "width"), [("grpc", 25 * MB), ("websocket", 25 * MB), ("http", 3 * MB)])
def test_a_large_reply(scheme, width):
    with FaultServer(width=width) as server:
        shape, beyond = peak_of(server.address(scheme))
    assert shape == [1, width]
    row = embed("a text", width)
    message = len(json.dumps(row.tolist())) if scheme == "http" else row.nbytes
    assert beyond < COPIES[scheme] * message + REST_BYTES
