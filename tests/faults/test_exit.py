"""Calls at the end of a process work as long as Python runs, and end at once when it does not."""

import subprocess
import sys

import pytest
from casdk.testing import ConnectProxy

PATIENCE = 120


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


FINALIZERS = """
import asyncio, os, sys
from casdk import TLS, Client
from casdk.errors import ClosedError
address, ca, home, timeout = sys.argv[1:]
options = {"timeout": float(timeout) if timeout else None}
if address.partition(":")[0].endswith("s"):
    options["tls"] = TLS(ca=ca)
client = Client(address, **options)
client.encode(["a"])

def until_done(coroutine):
    try:
        while True:
            coroutine.send(None)
    except StopIteration as end:
        return end.value

async def leave(client):
    async with client:
        pass

def leave_with(client):
    with client:
        pass

def begin(pieces):
    next(pieces)
    return pieces

begun = begin(client.stream(iter(["a"] * 90), batch_size=1, prefetch=1))
loop = asyncio.new_event_loop()
begun_there = client.astream(iter(["a"] * 90), batch_size=1, prefetch=1)
loop.run_until_complete(anext(begun_there))
sys.begun = begun, begun_there  # else the garbage collector might end them before it comes to what goes on with them
calls = {
    "close": lambda client: client.close(),
    "with": leave_with,
    "async with": lambda client, until_done=until_done, leave=leave: until_done(leave(client)),
    "encode": lambda client: client.encode(["a"]),
    "encode what fails": lambda client: client.encode("one item"),
    "rank": lambda client: client.rank([]),
    "index": lambda client: client.index(["a"]),
    "search": lambda client: client.search(["a"]),
    "profile": lambda client: client.profile("a", quiet=True),
    "stream": lambda client, list=list: list(client.stream(["a"])),
    "a stream that has begun": lambda client, list=list, begun=begun: list(begun),
    "aencode": lambda client, until_done=until_done: until_done(client.aencode(["a"])),
    "astream": lambda client, until_done=until_done, anext=anext: until_done(anext(client.astream(["a"]))),
    "an astream that has begun": lambda client, list=list, pieces=begun_there, until_done=until_done, anext=anext: [
        until_done(anext(pieces)) for _ in range(90)
    ],
    "on a loop": lambda client, loop=loop: loop.run_until_complete(client.aencode(["a"])),
    "a new client": lambda client, Client=Client: Client("http://127.0.0.1:1"),
}
if home == "sys":  # which is emptied after the modules: their names, and asyncio's, are None by then
    del calls["on a loop"]

class Late:
    def __init__(self):
        self.client, self.calls = client, calls

    def __del__(self, exiting=sys.is_finalizing, write=os.write, BaseException=BaseException, type=type):
        if not exiting():
            return
        for name, call in self.calls.items():
            try:
                result = call(self.client)
            except BaseException as error:
                result = f"{type(error).__name__}: {error}"
            write(1, f"{name}: {result}\\n".encode())

if home == "__main__":
    late = Late()
elif home == "sys":
    sys.late = Late()
else:
    import builtins
    builtins.late = Late()
"""
ENDS = ("close", "with", "async with")


@pytest.mark.tls
@pytest.mark.parametrize(
    ("scheme", "home", "timeout"),
    [("grpc", "__main__", ""), ("https", "__main__", "30"), ("websocket", "builtins", ""), ("grpcs", "sys", "")],
)
def test_calls_while_python_is_exiting(make_server, scheme, tmp_path, home, timeout):
    """Finalizers of objects that live as long as Python does: the engine cannot answer any more."""
    lines = run_child(FINALIZERS, make_server(), scheme, tmp_path, home, timeout)
    outcomes = [line.partition(": ")[::2] for line in lines]
    assert len(outcomes) == (15 if home == "sys" else 16)
    for name, outcome in outcomes:
        assert outcome == ("None" if name in ENDS else "ClosedError: Python is exiting: no call can be made any more")
