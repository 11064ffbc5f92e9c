"""The embedded server against strangers: what they send costs them their own request, and nobody else's."""

import json
import os
import re
import select
import signal
import subprocess
import sys
from contextlib import ExitStack
from urllib.request import Request, urlopen

import grpc
import pytest
from casdk import Client
from casdk.server import Served, serve
from casdk.server.wire.jina_pb2 import DataRequestProto
from websockets.sync.client import connect as open_socket

DOORS = ("grpc", "http", "websocket")
SINGLE = "/jina.JinaSingleDataRequestRPC/process_single_data"
WAIT = 20


@pytest.fixture(scope="module")
def served():
    """A server without a token, as ``python -m casdk.server`` starts it."""
    with serve(schemes=DOORS) as running:
        yield running


def authority(served: Served, door: str) -> str:
    return served.address(door).split("://")[1]


def asked(text: str = "a", endpoint: str = "/encode", **header: str) -> DataRequestProto:
    request = DataRequestProto()
    request.header.request_id = "stranger"
    request.header.exec_endpoint = endpoint
    for name, value in header.items():
        setattr(request.header, name, value)
    request.data.docs.docs.add(text=text)
    return request


def ask(served: Served, door: str, request: DataRequestProto, wait: float = WAIT) -> tuple[int, str]:
    """Send a request of one text as a stranger would, without casdk's client; return code and words of the status."""
    if door == "grpc":
        with grpc.insecure_channel(authority(served, door)) as channel:
            call = channel.unary_unary(SINGLE, DataRequestProto.SerializeToString, DataRequestProto.FromString)
            status = call(request, timeout=wait).header.status
        return status.code, status.description
    if door == "websocket":
        with open_socket(f"ws://{authority(served, door)}", subprotocols=["bytes"], proxy=None) as opened:
            opened.send(request.SerializeToString())
            status = DataRequestProto.FromString(opened.recv(wait)).header.status
        return status.code, status.description
    body = {
        "data": [{"text": document.text} for document in request.data.docs.docs],
        "targetExecutor": request.header.target_executor,
        "execEndpoint": request.header.exec_endpoint,
    }
    told = post(served, body, wait=wait)["header"]["status"]
    return (0, "") if told is None else (told["code"], told["description"])


def post(served: Served, body: object, path: str = "/post", wait: float = WAIT) -> dict:
    request = Request(f"http://{authority(served, 'http')}{path}", json.dumps(body).encode())
    with urlopen(request, timeout=wait) as answer:
        return json.load(answer)


def lives(served: Served) -> None:
    """Every door answers."""
    for door in DOORS:
        with Client(served.address(door), timeout=WAIT) as client:
            assert client.encode(["a"]).shape == (1, 512)


PATTERNS = {
    "the issue's": "((((((((e*)*n*)*c*)*o*)*d*)*e*)*r*)*)*x",
    "words": r"(\w+)+\d",
    "any": "(.*)*(.*)*(.*)*(.*)*(.*)*(.*)*(.*)*(.*)*!",
    "back": r"(?:(\w*)\1*)*!",
    "long": "encoder" * 10_000,
    "broken": "(",
    "one of": "encoder|indexer",
}


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS.keys())
@pytest.mark.parametrize("door", DOORS)
def test_no_pattern_of_a_client_is_run(served, door, pattern):
    code, words = ask(served, door, asked(target_executor=pattern))
    assert code == 1
    assert "targetExecutor" in words
    assert len(words) < 500


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("", True),
        ("encoder", True),
        ("enc", True),
        ("^encoder$", True),
        ("enc.*", True),
        (".*", True),
        ("enc$", False),
        ("nobody", False),
        ("encoder2", False),
    ],
)
def test_a_target_is_the_beginning_of_a_name(served, target, meant):
    with grpc.insecure_channel(authority(served, "grpc")) as channel:
        call = channel.unary_unary(SINGLE, DataRequestProto.SerializeToString, DataRequestProto.FromString)
        reply = call(asked(target_executor=target), timeout=WAIT)
    assert reply.header.status.code == 0
    assert reply.data.docs.docs[0].HasField("embedding") is meant


def ended(pid: int, seconds: float) -> bool:
    """Wait until a process of any parent is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


HANGS = {"!!stuck": r"in match\n.*executors\.py", "!!busy": r"in _rows\n"}


def test_what_hangs_ends_when_it_is_told_to():
    """Loops and threads that never end: by a signal, and with a parent that is killed."""
    script = """
import signal
from casdk.server import serve
with serve(schemes=["http"], chaos=True, grace=0.2) as served:
    print(served.pid, served.address("http"), flush=True)
    signal.pause()
"""
    with ExitStack() as stack:
        parent = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        )
        cases = [("!!stuck", signal.SIGTERM), ("!!stuck", signal.SIGINT), ("!!busy", signal.SIGTERM)]
        servers = [stack.enter_context(serve(schemes=["http"], chaos=True, grace=0.2)) for _ in cases]
        orphan, address = parent.stdout.readline().split()
        for (text, _), served in zip(cases, servers, strict=True):
            with pytest.raises(TimeoutError):
                ask(served, "http", asked(text), wait=0.5)
            if text == "!!busy":
                assert ask(served, "http", asked()) == (0, "")
        body = json.dumps({"data": [{"text": "!!stuck"}]}).encode()
        with pytest.raises(TimeoutError):
            urlopen(f"{address}/post", body, timeout=0.5)
        parent.kill()
        for (_, number), served in zip(cases, servers, strict=True):
            os.kill(served.pid, number)
        for (text, _), served in zip(cases, servers, strict=True):
            assert served.stop() == 1
            assert re.search(HANGS[text], served.log())
        assert ended(int(orphan), 15)
