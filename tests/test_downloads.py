"""Images behind URLs, through a client: a web site that misbehaves on purpose, and what becomes of each item."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import psutil
import pytest
from casdk import Client, Document, DownloadError, Limits, Timeouts


class Site(ThreadingHTTPServer):
    """``/image`` is one; ``/hop/N`` leads there in N redirects; ``/large``, ``/gone``, ``/silent``, ``/drip`` do not.

    Attributes:
        asked: Paths, in order.
        cookies: What requests for ``/cookie`` brought along.
        connections: Accepted.
        crowd: Where requests of ``/meet/...`` wait for each other.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.body = body
        self.asked: list[str] = []
        self.cookies: list[str | None] = []
        self.connections = 0
        self.crowd = threading.Barrier(4, timeout=20)
        self.closing = threading.Event()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        kind, _, rest = self.path[1:].partition("/")
        if kind == "silent":
            self.server.closing.wait(20)
            self.close_connection = True
            return
        if kind == "hop" and int(rest):
            self.reply(302, b"", location=f"/hop/{int(rest) - 1}")
        elif kind == "gone":
            self.reply(404, b"it is not here")
        elif kind == "large":
            self.reply(200, self.server.body + bytes(100_000))
        elif kind == "packed":
            self.reply(200, packed(rest), **{"content-encoding": rest})
        elif kind == "packed-hop":
            self.reply(302, packed("gzip"), location="/image", **{"content-encoding": "gzip"})
        elif kind == "endless-hop":
            self.send_response(302)
            self.send_header("location", "/image")
            self.end_headers()
            while True:
                self.wfile.write(bytes(100_000))
        elif kind == "cookie":
            self.server.cookies.append(self.headers.get("cookie"))
            self.reply(200, self.server.body, **{"set-cookie": f"number{len(self.server.asked)}=1; path=/"})
        elif kind == "html-encoding":
            self.reply(200, self.server.body, **{"content-encoding": "<html><h1>Hello</h1>"})
        elif kind == "as-it-is":
            self.reply(200, self.server.body, **{"content-encoding": "Identity"})
        elif kind == "drip":
            self.send_response(200)
            self.end_headers()
            while not self.server.closing.wait(0.02):
                self.wfile.write(b".")
        else:
            if kind == "meet":
                self.server.crowd.wait()
            self.reply(200, self.server.body)

    def reply(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in (headers | {"content-length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True  # the client had enough

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


BOMB = 64 * 1024 * 1024
"""Bytes that each of the compressed bodies holds in a few thousand."""


@cache
def packed(encodings: str) -> bytes:
    """Return that many zeros, compressed once for each encoding; an unknown encoding leaves bytes as they are."""
    body: Any = zlib.compressobj(9, wbits=31) if encodings.startswith("gzip") else zlib.compressobj(9)
    body = b"".join(body.compress(bytes(BOMB // 16)) for _ in range(16)) + body.flush()
    for _ in encodings.split(",gzip")[1:]:
        body = gzip.compress(body)
    return bytes(body)


@pytest.fixture
def site(images: Any) -> Iterator[Site]:
    with Site(images["png"].read_bytes()) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield running
        running.closing.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def narrow(server: Any) -> Iterator[Client]:
    limits = Limits(max_item_bytes=50_000, redirects=2)
    with Client(server.address("grpc"), limits=limits, timeouts=Timeouts(download=2)) as client:
        yield client


@pytest.fixture
def patient(server: Any) -> Iterator[Client]:
    with Client(server.address("grpc")) as client:
        yield client


BAD = {
    "/gone": "HTTP 404",
    "/large": r"larger than Limits\.max_item_bytes \(50000\)",
    "/hop/3": "redirects",
    "/silent": r"not there within 2 s",
    "/drip": r"not there within 2 s",
}


@pytest.mark.parametrize("path", BAD)
def test_what_cannot_be_fetched_is_named_and_the_rest_is_done(
    narrow: Client, patient: Client, site: Site, expected: Any, path: str
):
    content = [site.url("/hop/2"), site.url(path), "a text"]
    with pytest.raises(DownloadError, match=BAD[path]) as caught:
        narrow.encode(content)
    assert caught.value.index == 1
    assert str(caught.value).startswith("item 1: ")
    assert site.url(path) in str(caught.value)
    found = narrow.encode(content, errors="return")
    assert [error.index for error in found.errors] == [1]
    picture = patient.encode([site.url("/image")])[0]
    np.testing.assert_array_equal(found.embeddings[[0, 2]], [picture, expected(["a text"])[0]])


def test_a_host_that_refuses_is_named(patient: Client):
    with pytest.raises(DownloadError, match=r"item 0: .*http://127\.0\.0\.1:1/a\.png") as caught:
        patient.encode(["http://127.0.0.1:1/a.png"])
    assert isinstance(caught.value, ConnectionError)


@pytest.mark.parametrize("size", [1, 4])
def test_images_of_a_window_are_fetched_at_once(patient: Client, site: Site, expected: Any, images: Any, size: int):
    """Each of the four is answered only when all four were asked for: within a batch, and across batches."""
    rows = patient.encode([site.url(f"/meet/{number}") for number in range(4)], batch_size=size)
    np.testing.assert_array_equal(rows, np.repeat(expected([images["png"]]), 4, axis=0))


def test_connections_are_pooled_and_each_image_of_a_request_is_fetched_once(patient: Client, site: Site):
    for _ in range(3):
        patient.encode([site.url("/image")] * 5)
    assert site.asked == ["/image"] * 3
    assert site.connections == 1


def test_documents_and_candidates_are_fetched_too(patient: Client, site: Site):
    query = Document(uri=site.url("/image"), matches=[Document(uri=site.url("/hop/1")), Document(text="b")])
    patient.rank([query])
    assert {match.uri for match in query.matches} == {site.url("/hop/1"), ""}
    assert not any(document.blob for document in (query, *query.matches))
    assert sorted(site.asked) == ["/hop/0", "/hop/1", "/image"]


PACKED = ["gzip", "gzip,gzip", "deflate", "x-gzip", "br", "gzip,identity"]


@pytest.mark.parametrize("encoding", PACKED)
def test_what_was_sent_compressed_is_not_decompressed(patient: Client, site: Site, encoding: str):
    packed(encoding)
    patient.encode([site.url("/image")])
    before = psutil.Process().memory_info().rss
    with pytest.raises(DownloadError, match=f"Content-Encoding '{encoding}', which was not asked for"):
        patient.encode([site.url(f"/packed/{encoding}")])
    assert psutil.Process().memory_info().rss - before < BOMB // 4


@pytest.mark.parametrize("hop", ["/packed-hop", "/endless-hop"])
def test_the_body_of_a_redirect_is_not_read(patient: Client, site: Site, expected: Any, images: Any, hop: str):
    packed("gzip")
    before = psutil.Process().memory_info().rss
    np.testing.assert_array_equal(patient.encode([site.url(hop)]), expected([images["png"]]))
    assert psutil.Process().memory_info().rss - before < BOMB // 4


def test_what_is_said_to_be_as_it_is_is_taken(patient: Client, site: Site, expected: Any, images: Any):
    np.testing.assert_array_equal(patient.encode([site.url("/as-it-is")]), expected([images["png"]]))


@pytest.mark.parametrize("path", [f"/packed/{encoding}" for encoding in PACKED] + ["/large", "/hop/6"])
def test_a_document_that_loads_its_uri_believes_no_host_either(site: Site, path: str):
    before = psutil.Process().memory_info().rss
    document = Document(uri=site.url(path))
    words = "could not be fetched: .*(Content-Encoding|larger than 50000 bytes|more than 5 redirects)"
    for load in (document.load_uri_to_blob, document.load_uri_to_image_tensor):
        with pytest.raises(ConnectionError, match=words):
            load(max_bytes=50_000)
    assert document.blob == b""
    assert psutil.Process().memory_info().rss - before < BOMB // 4


def test_cookies_are_not_kept(client, site):
    """They would grow, and tell one call's host of another's."""
    for _ in range(3):
        client.encode([site.url("/cookie")])
    assert site.cookies == [None] * 3


def test_neither_a_password_nor_a_page_is_in_a_message(client, site):
    url = site.url("/html-encoding").replace("http://", "http://user:tok-0123@")
    with pytest.raises(DownloadError, match="a web page, 'Hello'") as caught:
        client.encode([url])
    assert "tok-0123" not in str(caught.value)
    assert caught.value.item == url
