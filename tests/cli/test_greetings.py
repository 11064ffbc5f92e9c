"""Scripted faults of what is spoken on a port: the doctor names each, and the address that works."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from casdk.testing import (
    Babble,
    FaultServer,
    Silent,
)


@contextmanager
def website(handler):
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        thread = Thread(target=site.serve_forever)
        thread.start()
        try:
            yield site.server_port
        finally:
            site.shutdown()
            thread.join()


def test_tls_where_none_was_meant(diagnosed):
    with FaultServer() as server:
        port = server.port("grpcs")
        diagnosed(f"grpc://127.0.0.1:{port}", "protocol", "no grpc on port", f"use grpcs://127.0.0.1:{port}")


def test_tls_where_http_was_meant(diagnosed):
    with FaultServer() as server:
        port = server.port("https")
        diagnosed(f"http://127.0.0.1:{port}", "protocol", f"port {port}", f"use https://127.0.0.1:{port}")


def test_http_where_grpc_was_meant(diagnosed):
    with FaultServer() as server:
        port = server.port("http")
        diagnosed(f"grpc://127.0.0.1:{port}", "protocol", "HTTP/1.1", f"use http://127.0.0.1:{port}")


def test_grpc_where_http_was_meant(diagnosed):
    with FaultServer() as server:
        port = server.port("grpc")
        diagnosed(f"http://127.0.0.1:{port}", "protocol", "speaks HTTP/2", f"use grpc://127.0.0.1:{port}")


def test_http_where_a_websocket_was_meant(diagnosed):
    with FaultServer() as server:
        port = server.port("http")
        diagnosed(f"websocket://127.0.0.1:{port}", "protocol", "HTTP/1.1", f"use http://127.0.0.1:{port}")


def test_a_websocket_where_http_was_meant(diagnosed):
    with FaultServer() as server:
        port = server.port("websocket")
        diagnosed(
            f"http://127.0.0.1:{port}", "protocol", f"no http on port {port}", f"use websocket://127.0.0.1:{port}"
        )


def test_https_without_http_2_where_grpcs_was_meant(diagnosed, trusting):
    with FaultServer() as server:
        port = server.port("https")
        url = f"grpcs://127.0.0.1:{port}"
        diagnosed(url, "protocol", "HTTP/2", f"https://127.0.0.1:{port}", words=trusting(server))


def test_ssh(diagnosed):
    with FaultServer(connections=Babble()) as server:
        # On the port of a protocol in which the server does not speak first.
        diagnosed(f"grpc://127.0.0.1:{server.port('http')}", "protocol", "SSH", "correct the port")


def test_silence(diagnosed):
    with FaultServer(connections=Silent()) as server:
        diagnosed(server.address("websocket"), "protocol", "says nothing within 0.5 s", "correct the port")


def test_a_web_site(diagnosed, tmp_path):
    class Site(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with website(functools.partial(Site, directory=tmp_path)) as port:
        diagnosed(f"http://127.0.0.1:{port}", "protocol", "no CLIP server", "correct the port")


def test_a_page_that_has_moved(diagnosed):
    class Site(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(301)
            self.send_header("location", "https://elsewhere.invalid/")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with website(Site) as port:
        diagnosed(f"http://127.0.0.1:{port}", "protocol", "elsewhere (status 301)", "correct the port")


def test_fastapi_where_a_websocket_was_meant(diagnosed):
    class Gateway(BaseHTTPRequestHandler):
        """Refuses a websocket as FastAPI does one that it has no path for, which is as it refuses a stranger."""

        def do_GET(self):
            self.send_error(403)

        def do_POST(self):
            self.send_error(422)

        def log_message(self, *arguments):
            pass

    with website(Gateway) as port:
        url, cure = f"websocket://127.0.0.1:{port}", f"use http://127.0.0.1:{port}"
        diagnosed(url, "protocol", f"no websocket on port {port}", cure)
