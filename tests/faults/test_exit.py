"""Calls at the end of a process: they work as long as Python runs, and end at once when it does not."""

import subprocess
import sys

import pytest
from casdk.testing import ConnectProxy

pytestmark = pytest.mark.timeout(90)
PATIENCE = 40


def run_child(program, server, scheme, tmp_path, *arguments):
    """Run a program with the server's address, by name, and its authority's file; return the lines it printed."""
    ca = tmp_path / "ca.pem"
    ca.write_bytes(server.ca)
    address = server.address(scheme).replace("127.0.0.1", "localhost")
    command = [sys.executable, "-c", program, address, str(ca), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


AFTER_MAIN = """
import asyncio, atexit, sys, threading
from pathlib import Path
import numpy as np
from casdk import TLS, Client
address, ca, image, url, proxy, used = sys.argv[1:]
options = {"timeout": 30}
if address.partition(":")[0].endswith("s"):
    options["tls"] = TLS(ca=ca)
client = Client(address, **options)
if used == "used":
    client.encode(["a"])

def texts():
    yield from ("a", "b", "c")

def make_calls(client):
    rows = client.encode(["a", "b", "c"])
    np.testing.assert_array_equal(client.encode(texts()), rows)
    np.testing.assert_array_equal(asyncio.run(client.aencode(texts())), rows)
    np.testing.assert_array_equal(np.concatenate(list(client.stream(texts(), batch_size=2))), rows)
    seen = client.encode([Path(image), Path(image).read_bytes(), url])
    np.testing.assert_array_equal(seen, seen[[0, 0, 0]])
    client.encode(texts(), on_done=lambda response: None)
    client.profile("a", quiet=True)

def make_all_calls(when):
    make_calls(client)
    others = {"tls": TLS(verify=False)} if "tls" in options else {}
    with Client(address, **{**options, **others}, proxy=proxy) as fresh:
        make_calls(fresh)
    print(when, flush=True)

def outlive():
    threading.main_thread().join()
    make_all_calls("in a thread that outlives the main thread")

atexit.register(client.close)
atexit.register(make_all_calls, "in an atexit handler")
if used == "used":
    threading.Thread(target=outlive).start()
"""


def call_after_main(server, scheme, tmp_path, images, web, used):
    url = web(images["png"]).replace("127.0.0.1", "localhost")
    with ConnectProxy() as proxy:
        way = proxy.url().replace("127.0.0.1", "localhost")
        lines = run_child(AFTER_MAIN, server, scheme, tmp_path, images["png"], url, way, used)
        assert proxy.counters.accepted >= 1
    return lines


def test_calls_after_the_main_thread(make_server, scheme, tmp_path, images, web):
    """With the client that was used before, and a fresh one through a proxy; by names that have to be looked up."""
    lines = call_after_main(make_server(), scheme, tmp_path, images, web, "used")
    assert lines == ["in a thread that outlives the main thread", "in an atexit handler"]


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_first_calls_after_the_main_thread(make_server, scheme, tmp_path, images, web):
    """The engine itself starts there."""
    assert call_after_main(make_server(), scheme, tmp_path, images, web, "") == ["in an atexit handler"]
