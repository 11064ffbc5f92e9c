"""`casdk.compat` has the interface of the original client and none of its defects, D1 to D21, each with a test.

The tests with docarray's own documents are in `interop/documents/document.py`, since they need docarray.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from typing import Any

import casdk
import numpy as np
import pytest
from casdk import TLS, Document, DocumentArray, compat
from casdk.models import Header, Profile, Response, Route, Timings
from casdk.server import serve
from casdk.testing import FaultServer, Gate, Hold

TEXTS = ["she smiled, with pain", "hello world", "a photo of cat.png"]


@pytest.fixture
def moved(server: Any) -> Iterator[compat.Client]:
    """The drop-in."""
    with compat.Client(server.address("grpc")) as client:
        yield client


@pytest.fixture
def recorder() -> Iterator[FaultServer]:
    """A server without faults that remembers its requests."""
    with FaultServer(width=8) as server:
        yield server


def verbs(client: Any) -> dict[str, Callable[..., Any]]:
    return {name: getattr(client, name) for name in ("encode", "rank", "index", "search")}


def twins(client: Any) -> dict[str, Callable[..., Any]]:
    return {name: getattr(client, f"a{name}") for name in ("encode", "rank", "index", "search")}


# the interface


def test_signatures_are_the_originals():
    assert list(inspect.signature(compat.Client).parameters) == ["server", "credential", "kwargs"]
    assert inspect.signature(compat.Client).parameters["credential"].default == {}
    assert inspect.signature(compat.Client.profile).parameters["content"].default == ""
    for name in ("search", "asearch"):
        assert inspect.signature(getattr(compat.Client, name)).parameters["limit"].default == 10
    for name, first in (("encode", "content"), ("rank", "docs"), ("index", "content"), ("search", "content")):
        for verb in (name, f"a{name}"):
            assert list(inspect.signature(getattr(compat.Client, verb)).parameters)[1] == first


def test_batches_are_of_eight(recorder: FaultServer):
    with compat.Client(recorder.address("grpc")) as client:
        client.encode([f"text {number}" for number in range(20)])
    assert sorted(len(request.texts) for request in recorder.requests) == [4, 8, 8]


@pytest.mark.parametrize("twin", [False, True])
@pytest.mark.parametrize("bar", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_many_inputs_are_warned_of_as_upstream_does(recorder: FaultServer, screen: StringIO, twin: bool, bar: bool):
    """Upstream's own ``test_client_large_input``; with a bar and without, of every verb, where the caller's line is."""
    texts = ["hello"] * 600
    with compat.Client(recorder.address("grpc")) as client:
        warned = pytest.warns(
            UserWarning, match="Please ensure all the inputs are valid, otherwise the request will be"
        )
        with warned as caught:
            if twin:
                asyncio.run(client.aencode(texts, show_progress=bar))
            else:
                client.encode(texts, show_progress=bar)
        assert caught[0].filename == __file__ or twin
        for few in (texts[:500], iter(texts)):  # whose length is unknown: the bar of these is accurate
            client.encode(few, show_progress=bar)
        if not twin:
            for verb, asked in verbs(client).items():
                many = texts if verb != "rank" else [Document(text="a", matches=[Document(text="b")])] * 501
                with pytest.warns(UserWarning, match="^Please ensure all") as caught:
                    asked(many, on_done=lambda _: None)
                assert [warning.filename for warning in caught] == [__file__], verb


@pytest.mark.parametrize("twin", [False, True])
def test_nothing_is_an_empty_list(moved: compat.Client, twin: bool):
    found = asyncio.run(moved.aencode([])) if twin else moved.encode([])
    assert found == []
    assert type(found) is list


def test_strings_are_rows(moved: compat.Client, expected: Any):
    np.testing.assert_array_equal(moved.encode(TEXTS), expected(TEXTS))
    np.testing.assert_array_equal(asyncio.run(moved.aencode(TEXTS)), expected(TEXTS))


def test_callbacks_get_what_programs_read(moved: compat.Client):
    done: list[compat.DataRequest] = []
    assert moved.encode(TEXTS, on_done=done.append, batch_size=2) is None
    assert {type(request) for request in done} == {compat.DataRequest}
    assert sorted(len(request.response.docs) for request in done) == [1, 2]
    for request in done:
        assert request.header.request_id in repr(request)
        assert request.status.ok
        assert request.routes[0].executor == "gateway"
        assert request.parameters["drop_image_content"] is True


def test_profile_is_a_dict(moved: compat.Client, capsys: Any):
    figures = moved.profile()
    assert type(figures) is dict
    assert list(figures) == ["Roundtrip", "Client-server network", "Server", "Gateway-CLIP network", "CLIP model"]
    assert "CLIP model" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["index", "search", "rank"])
def test_without_docarray_nothing_is_sent(recorder: FaultServer, verb: str):
    if "docarray" in sys.modules:
        pytest.skip("docarray is here")
    with compat.Client(recorder.address("grpc")) as client:
        for call in (verbs(client)[verb], lambda content: asyncio.run(twins(client)[verb](content))):
            with pytest.raises(ImportError, match=r"docarray<0\.30"):
                call(["a"])
    assert not recorder.requests


# D1 to D21


@pytest.mark.parametrize("twin", [False, True])
def test_d1_the_second_call_with_the_same_parameters_reaches_the_same_model(recorder: FaultServer, twin: bool):
    """`encode` took ``model_name`` out of the caller's dict."""
    parameters = {"model_name": "ViT-L-14", "note": 1}
    with compat.Client(recorder.address("grpc")) as client:
        for _ in range(2):
            if twin:
                asyncio.run(client.aencode(["a"], parameters=parameters))
            else:
                client.encode(["a"], parameters=parameters)
    assert parameters == {"model_name": "ViT-L-14", "note": 1}
    assert [request.endpoint for request in recorder.requests] == ["/encode/ViT-L-14"] * 2


def test_d2_on_always_alone_is_enough(moved: compat.Client):
    """It crashed in the default ``on_done``."""
    seen: list[Any] = []
    assert moved.encode(TEXTS, on_always=seen.append) is None
    assert len(seen) == 1


def test_d3_a_generator_of_strings_is_an_array(moved: compat.Client, expected: Any):
    """It came back as a DocumentArray."""
    np.testing.assert_array_equal(moved.encode(text for text in TEXTS), expected(TEXTS))


def test_d4_declared_defaults_can_be_given(recorder: FaultServer):
    """``parameters=None`` crashed, ``batch_size=None`` sent everything in one request."""
    with compat.Client(recorder.address("grpc")) as client:
        client.encode(["a"] * 20, parameters=None, batch_size=None, show_progress=False, prefetch=None)
    assert len(recorder.requests) == 3


@pytest.mark.parametrize("kind", [casdk.Client, compat.Client])
def test_d5_an_unknown_keyword_is_an_error_everywhere(kind: Any, recorder: FaultServer):
    """They were thrown away."""
    address = recorder.address("grpc")
    with pytest.raises(TypeError, match="tracing"):
        kind(address, tracing=True)
    with kind(address) as client:
        content = [Document(text="a", matches=[Document(text="b")])]
        # The drop-in's other verbs take docarray, or the lack of it is the first thing they say.
        names = verbs(client) if kind is casdk.Client else ["encode"]
        for verb in map(verbs(client).get, names):
            with pytest.raises(TypeError, match="compression"):
                verb(content, compression="gzip")
        for twin in map(twins(client).get, names):
            with pytest.raises(TypeError, match="compression"):
                asyncio.run(twin(content, compression="gzip"))
        with pytest.raises(TypeError, match="compression"):
            client.profile("a", compression="gzip")
    with casdk.Client(address) as client:
        with pytest.raises(TypeError, match="compression"):
            asyncio.run(client.aprofile("a", compression="gzip"))
        with pytest.raises(TypeError, match="compression"):
            next(client.stream(["a"], compression="gzip"))
    assert not recorder.requests


def test_d6_every_verb_is_authenticated_on_every_scheme(scheme: str):
    """`profile` and websockets never were; the documented key of the credential was not read, without a word."""
    with FaultServer(width=8, token="s3cret") as server:
        tls = TLS(ca=server.ca) if scheme.endswith("s") else None
        with casdk.Client(server.address(scheme), {"Authorization": "s3cret"}, tls=tls) as client:
            content = [Document(text="a", matches=[Document(text="b")])]
            for verb in (*verbs(client).values(), lambda content: client.profile(content[0], quiet=True)):
                verb(content)
            for twin in (*twins(client).values(), lambda content: client.aprofile(content[0], quiet=True)):
                asyncio.run(twin(content))
        options = {"tls": tls} if tls else {}
        with compat.Client(server.address(scheme), credential={"Authorization": "s3cret"}, **options) as moved:
            assert moved.encode(["a"]).shape == (1, 8)
            moved.profile()
        assert {request.authorization for request in server.requests} == {"s3cret"}
        assert {request.endpoint for request in server.requests} == {"/encode", "/rank", "/index", "/search", "/"}
    for kind in (casdk.Client, compat.Client):
        with pytest.raises(casdk.ConfigError, match="'Authentication'"):
            kind("grpc://127.0.0.1:1", credential={"Authentication": "s3cret"})


@pytest.mark.parametrize("scheme", ["websockets", "wss"])
def test_d7_the_documented_scheme_works(server: Any, scheme: str):
    """``websockets://`` was no valid scheme."""
    address = server.address("websockets").replace("websockets", scheme)
    with compat.Client(address, tls=TLS(ca=server.ca)) as client:
        assert client.encode(["a"]).shape == (1, 512)


def test_d8_images_and_sentences_are_told_apart(moved: compat.Client, expected: Any, images: Any, web: Any):
    """By a suffix alone: a sentence that ended in one was a missing file, a URL without one was embedded as text."""
    png = images["png"]
    bare = png.with_name("200")
    bare.write_bytes(png.read_bytes())
    data = base64.b64encode(png.read_bytes()).decode()
    content = ["a photo of cat.png", web(bare), f"{web(png)}?w=100", f"{web(png)}#frag", f"data:;base64,{data}"]
    np.testing.assert_array_equal(moved.encode(content), expected(["a photo of cat.png", png, png, png, png]))


@pytest.mark.parametrize(
    "bad", ["nosuch.png", b"no image", "http://127.0.0.1:1/x.png", "data:image/png;base64,a*b=", ""]
)
def test_d9_one_bad_item_is_named_and_the_others_are_done(server: Any, expected: Any, bad: Any):
    """It aborted the whole stream, and nothing said which one it was."""
    content = [*TEXTS, bad, *TEXTS]
    with compat.Client(server.address("grpc")) as moved, pytest.raises(casdk.ItemError, match=r"^item 3: ") as caught:
        moved.encode(content)
    assert caught.value.index == 3
    with casdk.Client(server.address("grpc")) as client:
        found = client.encode(content, errors="return")
    assert [error.index for error in found.errors] == [3]
    np.testing.assert_array_equal(found.embeddings[[0, 1, 2, 4, 5, 6]], expected(TEXTS * 2))


@pytest.mark.parametrize("empty", ["", Document(), Document(text="")])
def test_d10_an_empty_item_shifts_no_row(server: Any, expected: Any, empty: Any):
    """Its row was missing, so that stacking failed or every later row was another item's."""
    with casdk.Client(server.address("grpc")) as client:
        with pytest.raises(casdk.EmptyItemError, match=r"^item 1: "):
            client.encode(["a", empty, "b"])
        rows = client.encode(["a", empty, "b"], errors="return").embeddings
    np.testing.assert_array_equal(rows[[0, 2]], expected(["a", "b"]))
    assert np.isnan(rows[1]).all()


def test_d11_images_are_let_go_of(server: Any, images: Any):
    """All images of a run were held until its end, and stayed in the caller's Documents."""
    seen: list[weakref.ref[Any]] = []
    most = 0

    def pictures() -> Iterator[Any]:
        nonlocal most
        for number in range(120):
            pixels = np.full((8, 8, 3), number, np.uint8)
            seen.append(weakref.ref(pixels))
            most = max(most, sum(pixel() is not None for pixel in seen))
            yield pixels

    documents = [Document(uri=str(images["png"])) for _ in range(20)]
    with casdk.Client(server.address("grpc")) as client:
        assert client.encode(pictures(), batch_size=4, prefetch=3).shape == (120, 512)
        client.encode(documents)
    assert most <= 6 * 4
    assert not any(document.blob for document in documents)


def test_d12_calls_share_a_connection_and_do_not_wait_for_each_other(scheme: str):
    """A lock of the class let one call run at a time in a process; each opened a channel of its own."""
    gate = Gate()
    with FaultServer(lambda request: Hold(gate) if "held" in request.texts else None, width=8) as server:
        tls = TLS(ca=server.ca) if scheme.endswith("s") else None
        with casdk.Client(server.address(scheme), tls=tls) as client:
            held = [threading.Thread(target=client.encode, args=(["held"],)) for _ in range(3)]
            for thread in held:
                thread.start()
            gate.wait_for(3)  # all three are with the server
            for _ in range(5):
                assert client.encode(["a"]).shape == (1, 8)
            gate.open()
            for thread in held:
                thread.join()
        assert server.counters.accepted <= (4 if scheme.startswith("http") else 1)


@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_d13_a_full_window_costs_no_cpu(server: Any, scheme: str):
    """Waiting for room in it was a busy loop on http and websocket."""
    with casdk.Client(server.address(scheme)) as client:
        client.encode(["a"])
        began, used = time.monotonic(), time.process_time()
        client.encode(["!!sleep:0.5", "!!sleep:0.5", "three", "four"], batch_size=1, prefetch=1)
        seconds, cpu = time.monotonic() - began, time.process_time() - used
    assert seconds > 0.9
    assert cpu < seconds / 3


@pytest.mark.parametrize("kind", [set, frozenset, dict.fromkeys, lambda texts: dict.fromkeys(texts).keys()])
def test_d14_a_set_or_keys_are_encoded(moved: compat.Client, expected: Any, kind: Any):
    """They crashed after the work was done."""
    content = kind(TEXTS)
    if isinstance(content, dict):
        content = dict(enumerate(content)).values()
    np.testing.assert_array_equal(moved.encode(content), expected(list(content)))


def test_d15_bars_of_concurrent_calls_are_right(server: Any, screen: Any):
    """They shared one; a generator had 500 items."""
    with casdk.Client(server.address("grpc")) as client:
        client.encode((text for text in TEXTS), show_progress=True)
        assert "3/3" in screen.getvalue()
        assert "500" not in screen.getvalue()
        calls = [
            threading.Thread(
                target=client.encode, args=(["a"] * count,), kwargs={"show_progress": True, "batch_size": 5}
            )
            for count in (31, 47)
        ]
        for call in calls:
            call.start()
        for call in calls:
            call.join()
    assert "31/31" in screen.getvalue()
    assert "47/47" in screen.getvalue()


MOVE_IN = """
import os, sys, threading
import msgspec, numpy  # which do things of their own
sys.addaudithook(lambda event, _: seen.append(event) if event.startswith(("socket.", "os.", "subprocess.")) else None)
seen, before = [], dict(os.environ)
from casdk.compat import Client
client = Client("grpc://127.0.0.1:1")
assert dict(os.environ) == before
assert threading.active_count() == 1
# putenv and unsetenv keep gRPC's own lines off standard error while it is loaded, and leave nothing behind.
assert {*seen} <= {"os.listdir", "os.scandir", "os.putenv", "os.unsetenv"}, seen
assert seen.count("os.putenv") == seen.count("os.unsetenv")
"""


def test_d16_importing_and_making_a_client_does_nothing():
    """They asked PyPI, started a telemetry thread, and took the proxies out of the environment."""
    environment = {"HTTPS_PROXY": "http://127.0.0.1:1", "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", MOVE_IN], check=True, env=environment)


def test_d17_rank_brings_no_image_back_and_fetches_each_once(server: Any, images: Any):
    """The images of all candidates travelled back; one of several queries was read for each of them."""
    png, fetched = images["png"], []
    with casdk.Client(server.address("grpc")) as client:
        query = Document(text="a", matches=[Document(blob=png.read_bytes()), Document(uri=str(png))])
        (response,) = client.rank([query], return_responses=True)
        assert [match.blob for match in response.docs[0].matches] == [b"", b""]
        assert query.matches[0].blob == png.read_bytes()
        with site(png.read_bytes(), fetched) as url:
            queries = [Document(text=text, matches=[Document(uri=url), Document(text="b")]) for text in TEXTS]
            client.rank(queries, batch_size=3)
    assert len(fetched) == 1


@contextmanager
def site(body: bytes, fetched: list[str]) -> Iterator[str]:
    """A web site of one image, which notes who asks; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fetched.append(self.path)
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{web.server_port}/image"
        finally:
            web.shutdown()
            thread.join()


def test_d18_a_profile_of_no_time_and_many_executors(capsys: Any):
    """It divided by the gateway's whole milliseconds, and read two routes whatever there were."""
    at = 1_700_000_000_000_000_000
    names = ("gateway", "clip_t", "reranker", "indexer")
    routes = tuple(Route(executor=name, start_ns=at, end_ns=at) for name in names)
    timings = Timings.between(0, 0, 0, 0, 0, 0, routes)
    profile = Profile.from_response(Response(header=Header(request_id="0"), routes=routes, timings=timings))
    profile.print()
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("CLIP model", "reranker", "indexer"))
    assert [name for name, _ in profile.executors] == ["clip_t", "reranker", "indexer"]


def test_d19_nothing_waits_for_ever(images: Any, server: Any):
    """Neither a call nor the download of an image had a limit."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with compat.Client(f"grpc://127.0.0.1:{port}", timeout=0.2) as moved, pytest.raises(casdk.DeadlineError):
            moved.encode(["a"])
        limits = casdk.Timeouts(download=0.2)
        with (
            casdk.Client(server.address("grpc"), timeouts=limits) as client,
            pytest.raises(casdk.DownloadError, match=r"not there within 0\.2 s"),
        ):
            client.encode([f"http://127.0.0.1:{port}/a.png"])


async def test_d20_inside_a_running_loop_the_exception_is_the_calls_own(moved: compat.Client, expected: Any):
    """A sync call there started a thread, and said only that the loop's result could not be retrieved."""
    np.testing.assert_array_equal(moved.encode(TEXTS), expected(TEXTS))
    before = {thread.name for thread in threading.enumerate()}
    with pytest.raises(casdk.FileMissingError, match=r"item 0: .*nosuch\.png"):
        moved.encode(["nosuch.png"])
    new = {thread.name for thread in threading.enumerate()} - before
    assert all(name.startswith("casdk-") for name in new), new


@pytest.mark.parametrize("twin", [False, True])
def test_d21_what_a_flow_cannot_do_is_said(twin: bool):
    """`index`, `search` and `rank` with a model "succeeded" on a flow that only encodes."""
    with serve(schemes=["grpc"], index=False) as served, casdk.Client(served.address("grpc")) as client:
        calls = twins(client) if twin else verbs(client)

        def call(verb: str, *arguments: Any, **options: Any) -> Any:
            found = calls[verb](*arguments, **options)
            return asyncio.run(found) if twin else found

        for verb in ("index", "search"):
            with pytest.raises(casdk.NotSupportedError, match="no indexer"):
                call(verb, ["a"])
        query = Document(text="a", matches=[Document(text="b")])
        with pytest.raises(casdk.NotSupportedError, match="clip_score"):
            call("rank", [query], parameters={"model_name": "other"})
        assert call("rank", [query])[0].matches[0].scores["clip_score"].value == 1.0
        assert isinstance(call("rank", [query]), DocumentArray)
