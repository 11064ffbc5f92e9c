"""`serve` starts the server with its options, and ends it with the parent."""

import contextlib
import io
import json
import os
import signal
import tempfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import grpc
import httpx
import numpy as np
import pytest
from casdk.server import serve
from casdk.server.encoders import Features
from casdk.server.settings import Settings
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus

TOKEN = "s3cret-tök3n"


@pytest.mark.parametrize("given", [None, "", "wrong", TOKEN[:-1], f"Bearer {TOKEN}"])
def test_the_token_guards_every_port(guarded, raw, given):
    header = {} if given is None else {"authorization": given.encode()}
    metadata = [("authorization-bin" if given is None else "authorization", _metadata(given))]
    for scheme in ("grpc", "grpcs"):
        with raw.channel(guarded, scheme) as channel:
            for method in (raw.SINGLE, "/jina.JinaGatewayDryRunRPC/dry_run", "/jina.JinaInfoRPC/_status"):
                with pytest.raises(grpc.RpcError) as failure:
                    channel.unary_unary(method)(b"", metadata=metadata, timeout=raw.WAIT)
                assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED
            replies = channel.stream_stream(raw.STREAM)(iter([b""]), metadata=metadata, timeout=raw.WAIT)
            with pytest.raises(grpc.RpcError) as failure:
                next(replies)
            assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with httpx.Client(verify=raw.trust(guarded), headers=header) as http:
        for method, path in (("POST", "/post"), ("POST", "/index"), ("GET", "/openapi.json"), ("GET", "/status")):
            assert http.request(method, guarded.address("https") + path).status_code == 401
    for path in ("/", "/dry_run"):
        with pytest.raises(InvalidStatus) as refusal:
            raw.socket(guarded, "websockets", path, additional_headers=_latin(header))
        assert refusal.value.response.status_code == 401


def _metadata(given):
    return b"" if given is None else given.encode("latin-1", "replace").decode("ascii", "replace").replace("�", "?")


def _latin(header):
    return {name: value.decode("latin-1") for name, value in header.items()}


@pytest.fixture(scope="module")
def guarded():
    with serve(token=TOKEN) as served:
        yield served


def test_the_token_opens_http_and_websocket(guarded, raw):
    header = {"authorization": TOKEN.encode()}
    with httpx.Client(verify=raw.trust(guarded), headers=header) as http:
        for scheme in ("http", "https"):
            assert http.post(guarded.address(scheme) + "/post", json={"data": []}).status_code == 200
    with raw.socket(guarded, additional_headers=_latin(header)) as opened:
        opened.send(raw.request("/", {"text": "a"}).SerializeToString())
        assert opened.recv(raw.WAIT)


def test_the_token_opens_grpc(raw):
    with serve(schemes=["grpc"], token="ascii") as served, raw.channel(served) as channel:
        reply = raw.single(channel, raw.request("/", {"text": "a"}), metadata=[("authorization", "ascii")])
        assert reply.data.docs.docs
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"") == b"\x08\x01"


def test_the_token_is_nowhere_to_be_seen(guarded):
    command = Path(f"/proc/{guarded.pid}/cmdline").read_bytes()
    assert TOKEN.encode() not in command
    assert TOKEN not in guarded.log()
    assert TOKEN not in repr(Settings(ports={"grpc": 0}, token=TOKEN))


@pytest.fixture(scope="module")
def narrow():
    with serve(max_message=100_000, max_pixels=10_000) as served:
        yield served


def test_messages_beyond_the_limit_are_refused(narrow, raw):
    large = raw.request("/", {"blob": b"x" * 200_000})
    with raw.channel(narrow) as channel, pytest.raises(grpc.RpcError) as failure:
        raw.single(channel, large)
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    body = json.dumps(raw.as_json(large)).encode()
    address = narrow.address("http") + "/post"
    assert httpx.post(address, content=body).status_code == 413
    assert httpx.post(address, content=iter([body[:90_000], body[90_000:]])).status_code == 413
    with raw.socket(narrow) as opened:
        opened.send(large.SerializeToString())
        with pytest.raises(ConnectionClosed):
            opened.recv(raw.WAIT)
    assert opened.close_code == 1009


@contextlib.contextmanager
def _web(bodies):
    """A web server: path -> body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = bodies.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()
        thread.join()


def test_uris_are_fetched_when_the_server_may(raw):
    picture = raw.png(50, 40)
    with (
        _web({"/a.png": picture, "/large": b"x" * 200_000}) as web,
        serve(schemes=["grpc"], fetch_uris=True, max_message=100_000) as served,
        raw.channel(served) as channel,
    ):
        reply = raw.single(channel, raw.request("/", {"uri": f"{web}/a.png"})).data.docs.docs[0]
        expected = Features().encode_images([Image.open(io.BytesIO(picture))])[0]
        assert np.array_equal(raw.row(reply), expected)
        assert (reply.uri, reply.blob) == (f"{web}/a.png", b"")
        for uri, words in (
            (f"{web}/none", "404"),
            (f"{web}/large", "exceeds the limit"),
            ("http://127.0.0.1:1/", "connection attempts failed"),
            ("file:///etc/hostname", "reads no files"),
        ):
            status = raw.single(channel, raw.request("/", {"uri": uri})).header.status
            assert words in status.description


def test_the_index_survives_being_killed_after_the_reply(tmp_path, raw):
    texts = [f"text number {at}" for at in range(50)]
    with serve(schemes=["grpc"], workspace=tmp_path) as served, raw.channel(served) as channel:
        forms = [{"text": text, "id": text, "tags": {"n": float(at)}} for at, text in enumerate(texts)]
        assert raw.single(channel, raw.request("/index", *forms)).header.status.code == 0
        os.kill(served.pid, signal.SIGKILL)
        assert served.stop() == -signal.SIGKILL
    with serve(schemes=["grpc"], workspace=tmp_path) as served, raw.channel(served) as channel:
        (status,) = raw.single(channel, raw.request("/status")).data.docs.docs
        assert status.tags["total_docs"] == 50
        reply = raw.single(channel, raw.request("/search", {"text": texts[7]}, limit=1))
        (best,) = reply.data.docs.docs[0].matches
        assert (best.id, best.text, dict(best.tags)) == (texts[7], texts[7], {"n": 7.0})


def test_a_killed_server_leaves_nothing_behind():
    with serve(schemes=["https"]) as served:
        directory = served.ca.parent
        assert directory.parent == Path(tempfile.gettempdir())
        os.kill(served.pid, signal.SIGKILL)
        assert served.stop() == -signal.SIGKILL
    assert not directory.exists()


def test_images_beyond_the_limit_are_named(narrow, raw):
    tensor = {"dense": {"buffer": b"\0" * 10_100, "shape": [101, 100], "dtype": "|u1"}}
    bomb = raw.png(10_000, 10_000)
    assert len(bomb) < 100_000
    with raw.channel(narrow) as channel:
        fine = raw.single(channel, raw.request("/", {"blob": raw.png(100, 100)}))
        assert fine.header.status.code == 0
        for form, size in (
            ({"blob": raw.png(101, 100)}, "10100 pixels"),
            ({"tensor": tensor}, "100 x 101"),
            ({"blob": bomb}, ""),
        ):
            status = raw.single(channel, raw.request("/", {"text": "a"}, form)).header.status
            assert status.exception.args[0].startswith("document 1: ")
            assert size in status.description
            assert "limit" in status.description
            assert status.exception.executor == "EncodeExecutor"
