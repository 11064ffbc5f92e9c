"""Images behind URLs, through a client: a web site that misbehaves on purpose, and what becomes of each item."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from casdk import Client, Document, DownloadError, Limits, Timeouts


class Site(ThreadingHTTPServer):
    """``/image`` is one; ``/hop/N`` leads there in N redirects; ``/large``, ``/gone``, ``/silent``, ``/drip`` do not.

    Attributes:
        asked: Paths, in order.
        connections: Accepted.
        crowd: Where requests of ``/meet/...`` wait for each other.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.body = body
        self.asked: list[str] = []
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
    with Client(server.address("grpc"), limits=limits, timeouts=Timeouts(download=0.5)) as client:
        yield client


@pytest.fixture
def patient(server: Any) -> Iterator[Client]:
    with Client(server.address("grpc")) as client:
        yield client


BAD = {
    "/gone": "HTTP 404",
    "/large": r"larger than Limits\.max_item_bytes \(50000\)",
    "/hop/3": "redirects",
    "/silent": r"not there within 0\.5 s",
    "/drip": r"not there within 0\.5 s",
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
