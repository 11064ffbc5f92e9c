"""Invalid requests to the embedded server fail by themselves, and affect no other request."""

import contextlib
import json
import math
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import grpc
import psutil
import pytest
from casdk import Client
from casdk.server import Served, serve
from casdk.wire.jina_pb2 import DataRequestProto
from websockets.sync.client import connect as open_socket

SCHEMES = ("grpc", "http", "websocket")
SINGLE = "/jina.JinaSingleDataRequestRPC/process_single_data"
STREAM = "/jina.JinaRPC/Call"
WAIT = 20


@pytest.fixture(scope="module")
def served():
    """A server without a token, as ``python -m casdk.server`` starts it."""
    with serve(schemes=SCHEMES) as running:
        yield running


def authority(served: Served, scheme: str) -> str:
    return served.address(scheme).split("://")[1]


def asked(text: str = "a", endpoint: str = "/encode", **header: str) -> DataRequestProto:
    request = DataRequestProto()
    request.header.request_id = "stranger"
    request.header.exec_endpoint = endpoint
    for name, value in header.items():
        setattr(request.header, name, value)
    request.data.docs.docs.add(text=text)
    return request


def ask(served: Served, scheme: str, request: DataRequestProto, wait: float = WAIT) -> tuple[int, str]:
    """Send a request of one text as a stranger would, without casdk's client; return code and words of the status."""
    if scheme == "grpc":
        with grpc.insecure_channel(authority(served, scheme)) as channel:
            call = channel.unary_unary(SINGLE, DataRequestProto.SerializeToString, DataRequestProto.FromString)
            status = call(request, timeout=wait).header.status
        return status.code, status.description
    if scheme == "websocket":
        with open_socket(f"ws://{authority(served, scheme)}", subprotocols=["bytes"], proxy=None) as opened:
            opened.send(request.SerializeToString())
            status = DataRequestProto.FromString(opened.recv(wait)).header.status
        return status.code, status.description
    body = {
        "data": [
            {"text": document.text, "matches": [{"text": match.text} for match in document.matches]}
            for document in request.data.docs.docs
        ],
        "parameters": dict(request.parameters),
        "targetExecutor": request.header.target_executor,
        "execEndpoint": request.header.exec_endpoint,
    }
    answered = post(served, body, wait=wait)["header"]["status"]
    return (0, "") if answered is None else (answered["code"], answered["description"])


def post(served: Served, body: object, path: str = "/post", wait: float = WAIT) -> dict:
    request = Request(f"http://{authority(served, 'http')}{path}", json.dumps(body).encode())
    with urlopen(request, timeout=wait) as answer:
        return json.load(answer)


def lives(served: Served) -> None:
    """Every scheme answers."""
    for scheme in SCHEMES:
        with Client(served.address(scheme), timeout=WAIT) as client:
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
@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_pattern_of_a_client_is_run(served, scheme, pattern):
    code, words = ask(served, scheme, asked(target_executor=pattern))
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


def nested(levels: int, innermost: object = None) -> object:
    """Return dicts in dicts."""
    for _ in range(levels):
        innermost = {"x": innermost}
    return innermost


def field(number: int, payload: bytes) -> bytes:
    """Return a length-delimited field, by hand: google's library would not nest as deeply."""
    size, length = len(payload), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + payload


def deep_message(levels: int) -> bytes:
    """Return a request whose document has chunks in chunks."""
    inner = b""
    for _ in range(levels):
        inner = field(14, inner)
    return field(1, field(1, b"deep")) + field(4, field(1, field(1, inner)))


DEEP = {
    "tags": {"data": [{"text": "a", "tags": nested(480)}]},
    "parameters": {"data": [], "parameters": nested(480)},
    "unknown": {"data": [{"text": "a", "unknown": nested(480)}]},
    "a little": {"data": [{"text": "a", "tags": nested(35)}]},
}


@pytest.mark.parametrize("body", DEEP.values(), ids=DEEP.keys())
def test_deep_json_costs_its_request_and_not_the_socket(served, body):
    with open_socket(f"ws://{authority(served, 'websocket')}", proxy=None) as opened:
        opened.send(json.dumps({"data": [{"text": "a"}]}))
        assert json.loads(opened.recv(WAIT))["data"][0]["embedding"]
        opened.send(json.dumps(body))
        status = json.loads(opened.recv(WAIT))["header"]["status"]
        assert status["code"] == 1
        assert "nested" in status["description"]
        opened.send(json.dumps({"data": [{"text": "a"}]}))
        assert json.loads(opened.recv(WAIT))["data"][0]["embedding"]
    with pytest.raises(HTTPError) as refusal:
        post(served, body)
    assert refusal.value.code == 422
    assert "nested" in json.load(refusal.value)["detail"][0]["msg"]


@pytest.mark.parametrize("levels", [90, 480, 20_000])
def test_deep_documents_cost_their_request_and_not_the_connection(served, levels):
    messages = [asked().SerializeToString(), deep_message(levels), asked().SerializeToString()]
    with open_socket(f"ws://{authority(served, 'websocket')}", subprotocols=["bytes"], proxy=None) as opened:
        for message in messages:
            opened.send(message)
        replies = [DataRequestProto.FromString(opened.recv(WAIT)) for _ in messages]
    with grpc.insecure_channel(authority(served, "grpc")) as channel:
        replies += map(DataRequestProto.FromString, channel.stream_stream(STREAM)(iter(messages), timeout=WAIT))
        with pytest.raises(grpc.RpcError) as refusal:
            channel.unary_unary(SINGLE)(messages[1], timeout=WAIT)
    assert sorted((reply.header.request_id, reply.header.status.code) for reply in replies) == [
        *[("deep", 1)] * 2,
        *[("stranger", 0)] * 4,
    ]
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT


EXTREMES = {
    "not a number in tags": {"tags": {"x": math.nan}},
    "infinite deep in tags": {"tags": {"x": [{"y": [1.0, -math.inf]}]}},
    "weight": {"weight": math.nan},
    "offset": {"offset": math.inf},
    "location": {"location": [0.0, math.nan]},
}


@pytest.mark.parametrize("name", EXTREMES)
def test_what_json_cannot_say_is_not_indexed(served, name):
    """A null among numbers made every http search fail that found the document."""
    request = asked(f"extreme {name}", "/index")
    given = request.data.docs.docs.add(text=name, id=name, **{k: v for k, v in EXTREMES[name].items() if k != "tags"})
    given.tags.update(EXTREMES[name].get("tags", {}))
    code, words = ask(served, "grpc", request)
    assert code == 1
    assert f"document '{name}' holds a number that is not finite" in words
    with Client(served.address("http"), timeout=WAIT) as client:
        [query] = client.search([name], limit=1000)
    assert name not in [match.id for match in query.matches]


def test_an_embedding_that_is_not_finite_is_not_indexed(served):
    for value in (math.nan, math.inf, 1e300):
        request = asked("", "/index")
        dense = request.data.docs.docs[0].embedding.dense
        dense.buffer, dense.dtype = struct.pack("<512d", *[value] * 512), "<f8"
        dense.shape.append(512)
        code, words = ask(served, "grpc", request)
        assert (code, "not finite" in words) == (1, True)


def test_a_document_as_deep_as_is_taken_is_found_on_every_door(served):
    """What is indexed stands deeper in the reply to a search: one that just fit made each of them fail."""
    tags = nested(28, "x")
    post(served, {"data": [{"id": "deepest", "text": "the deepest", "tags": tags}]}, "/index")
    for scheme in SCHEMES:
        with Client(served.address(scheme), timeout=WAIT) as client:
            [query] = client.search(["the deepest"], limit=1)
        assert (query.matches[0].id, query.matches[0].tags) == ("deepest", tags)


def test_depths_and_numbers_at_their_ends_cost_their_request(served):
    request = asked()
    request.data.docs.docs[0].granularity = request.data.docs.docs[0].adjacency = 2**32 - 1
    request.data.docs.docs[0].chunks.add(text="a")
    request.data.docs.docs[0].matches.add(text="a")
    for scheme in ("grpc", "websocket"):
        assert ask(served, scheme, request) == (0, "")
        request.header.exec_endpoint = "/search"
        assert ask(served, scheme, request) == (0, "")


@pytest.mark.parametrize(
    "paths",
    ["@" + "r," * 6000 + "r", "@" + ",".join(["m"] * 6000), "@" + "m" * 12_000, "@" + ",".join(["c" * 700] * 17)],
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_access_paths_are_few_and_walked_apart_from_the_loop(served, scheme, paths):
    request = asked("a")
    for _ in range(200):
        request.data.docs.docs.add(text="b").matches.add(text="c")
    request.parameters["access_paths"] = paths
    code, words = ask(served, scheme, request)
    few = "," not in paths
    assert (code, "access path" in words) == ((0, False) if few else (1, True))
    assert len(words) < 500


def test_a_search_is_bounded_by_what_it_would_find(served):
    request = asked("a", "/search")
    for _ in range(199):
        request.data.docs.docs.add(text="b")
    request.parameters["limit"] = 10_000
    code, words = ask(served, "grpc", request)
    assert code == 1
    assert "200 queries with a limit of 10000 ask for 2000000 documents, and one request gets 100000" in words
    request.parameters["limit"] = 500
    assert ask(served, "grpc", request) == (0, "")


def test_a_search_is_bounded_by_the_bytes_it_would_return(served):
    large = asked("large 0", "/index")
    large.data.docs.docs[0].tags["x"] = "x" * 1_000_000
    large.data.docs.docs.add(text="large 1").tags["x"] = "x" * 1_000_000
    assert ask(served, "grpc", large) == (0, "")
    request = asked("large 0", "/search")
    request.data.docs.docs.extend([request.data.docs.docs[0]] * 16)
    request.parameters["limit"] = 2
    code, words = ask(served, "grpc", request)
    assert (code, "too large for one reply" in words) == (1, True)
    large.header.exec_endpoint = "/delete"
    assert ask(served, "grpc", large) == (0, "")
    larger = asked("larger", "/index")
    larger.data.docs.docs[0].tags["x"] = "x" * 1_100_000
    code, words = ask(served, "grpc", larger)
    assert (code, "and the index takes 1048576" in words) == (1, True)


NAMES = {"evil.example": 403, "127.evil.example": 403, "localhost": 200, "127.1.2.3": 200, "0.0.0.0": 200, "other": 200}


def test_names_that_were_made_to_lead_here_are_refused():
    """DNS rebinding: a page of evil.example, whose name leads to 127.0.0.1 by now, is of the same origin."""
    with serve(schemes=["http", "websocket"], allow_hosts=["other"]) as served:
        for name, expected in NAMES.items():
            for port in ("", ":51001"):
                found = []
                for scheme, path, more in (
                    ("http", "/post", {"Content-Length": "2"}),
                    ("http", "/", {}),
                    (
                        "websocket",
                        "/",
                        {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"},
                    ),
                ):
                    host, _, number = authority(served, scheme).partition(":")
                    with contextlib.closing(HTTPConnection(host, int(number), timeout=WAIT)) as connection:
                        key = {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="} if "Upgrade" in more else {}
                        headers = {"Host": name + port, "Origin": f"http://{name}{port}"} | more | key
                        connection.request(
                            "POST" if path == "/post" else "GET", path, b"{}" if path == "/post" else None, headers
                        )
                        found.append(connection.getresponse().status)
                assert found == ([403] * 3 if expected == 403 else [200, 200, 101])


def test_grpc_is_no_door_for_a_page(served):
    """A browser speaks HTTP/1.1 to a port without TLS, and gRPC does not."""
    host, _, port = authority(served, "grpc").partition(":")
    with contextlib.closing(HTTPConnection(host, int(port), timeout=WAIT)) as connection:
        connection.request("POST", SINGLE, b"", {"Content-Type": "application/grpc"})
        with pytest.raises((HTTPException, ConnectionError)):
            connection.getresponse()


FORGED = "/encode\nERROR:root:forged\r\x1b[2J\u2028"


def test_no_line_of_a_client_reaches_the_log():
    command = [sys.executable, "-m", "casdk.server", "--free-ports", "--ready-json", "--verbose", "--fetch-uris"]
    with ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        stack.callback(process.kill)
        addresses = json.loads(process.stdout.readline())["addresses"]
        place = addresses["http"].removeprefix("http://")
        for body in (
            {"data": [{"uri": FORGED}], "execEndpoint": FORGED},
            {"data": [{"uri": f"http://127.0.0.1:1/{FORGED}"}]},
            {"data": [{"tensor": [1]}], "targetExecutor": FORGED},
            {"data": [], "parameters": {"ids": FORGED}, "execEndpoint": "/delete"},
            {"data": [{"text": FORGED}], "parameters": {"access_paths": FORGED}},
        ):
            with urlopen(Request(f"http://{place}/post", json.dumps(body).encode()), timeout=WAIT) as answer:
                assert json.load(answer)["header"]["status"]["code"] == 1
        with socket.create_connection(place.split(":")) as garbage:
            garbage.sendall(FORGED.encode() * 10 + b"\r\n\r\n")
            assert garbage.recv(12) == b"HTTP/1.1 400"
        process.send_signal(signal.SIGTERM)
        log = process.communicate(timeout=WAIT)[1].decode()
    assert "encoder failed on" in log
    assert not [line for line in log.split("\n") if line.startswith("ERROR") or not line.isprintable()]


def test_out_of_descriptors_the_server_waits():
    with serve(schemes=SCHEMES) as served:
        process = psutil.Process(served.pid)
        enough = resource.prlimit(served.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(served.pid, resource.RLIMIT_NOFILE, (process.num_fds() + 5, enough[1]))
        with ExitStack() as stack:
            for scheme in SCHEMES:
                for _ in range(40):
                    stack.enter_context(socket.create_connection(authority(served, scheme).split(":")))
            spent = sum(process.cpu_times()[:2])
            assert not select.select([], [], [], 1.5)[0]
            assert sum(process.cpu_times()[:2]) - spent < 0.5
        resource.prlimit(served.pid, resource.RLIMIT_NOFILE, enough)
        lives(served)
        assert served.log().count("Too many open files") <= len(SCHEMES)
        assert len(served.log()) < 2000


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


def stick(pid: int, address: str) -> None:
    """Ask for what never ends on the loop, and return when the server is in it, which takes all of a core."""
    process = psutil.Process(pid)
    spent = process.cpu_times().user
    host, port = address.removeprefix("http://").split(":")
    with contextlib.closing(HTTPConnection(host, int(port), timeout=WAIT)) as connection:
        connection.request("POST", "/post", json.dumps({"data": [{"text": "!!stuck"}]}))
        while process.cpu_times().user < spent + 0.2:
            time.sleep(0.01)
    # It goes on until it is ended, seconds later, and the other tests need that core.
    os.setpriority(os.PRIO_PROCESS, pid, 19)


@pytest.mark.soak
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
        cases = [("!!stuck", signal.SIGTERM), ("!!busy", signal.SIGINT)]
        servers = [stack.enter_context(serve(schemes=["http"], chaos=True, grace=0.2)) for _ in cases]
        orphan, address = parent.stdout.readline().split()
        for (text, number), served in zip(cases, servers, strict=True):
            if text == "!!busy":
                with pytest.raises(TimeoutError):
                    ask(served, "http", asked(text), wait=1.5)
                assert ask(served, "http", asked()) == (0, "")
            else:
                stick(served.pid, served.address("http"))
            os.kill(served.pid, number)
        stick(int(orphan), address)
        parent.kill()
        for (text, _), served in zip(cases, servers, strict=True):
            assert served.stop() == 1
            assert re.search(HANGS[text], served.log())
        assert ended(int(orphan), 60)
