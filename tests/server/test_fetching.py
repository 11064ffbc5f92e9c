"""Image hosts cannot delay or overload a server with ``--fetch-uris``."""

import gzip
import io
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from casdk.server import serve
from casdk.server.fetching import REQUEST_SECONDS, Fetcher
from casdk.wire.jina_pb2 import DataRequestProto
from PIL import Image

SIZE = 200_000_000
MB = 1_000_000


def _picture():
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    return out.getvalue()


PICTURE = _picture()


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/image":
            self._answer(200, PICTURE)
        elif self.path == "/bomb":
            self._answer(200, self.server.bomb, **{"content-encoding": "gzip, gzip"})
        elif self.path == "/bomb-hop":
            self._answer(302, self.server.bomb, location="/image", **{"content-encoding": "gzip, gzip"})
        elif self.path == "/loop":
            self._answer(302, b"", location="/loop")
        elif self.path == "/file":
            self._answer(302, b"", location="file:///etc/hostname")
        elif self.path == "/large":
            self._answer(200, bytes(30 * MB))
        elif self.path == "/silent":
            self.server.closing.wait(30)

    def _answer(self, code, body, **headers):
        self.send_response(code)
        for name, value in (headers | {"content-length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # the client had enough

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site():
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as web:
        web.daemon_threads = True
        web.closing = threading.Event()
        web.bomb = gzip.compress(gzip.compress(bytes(SIZE), 9))
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.closing.set()
        web.shutdown()
        thread.join()


BAD = {
    "/bomb": "Content-Encoding 'gzip, gzip', which was not asked for",
    "/loop": "more than 5 redirects",
    "/file": "was not fetched",
    "/large": "exceeds the limit of 20000000 bytes",
}


def test_no_host_is_believed(site, raw, memory_of):
    with (
        serve(schemes=["grpc"], fetch_uris=True, max_memory=300 * MB) as served,
        raw.channel(served) as channel,
    ):
        call = channel.unary_unary(raw.SINGLE, DataRequestProto.SerializeToString, DataRequestProto.FromString)
        peak = memory_of(served)
        for path, words in BAD.items():
            status = call(raw.request("/", {"uri": site + path}), timeout=raw.WAIT).header.status
            assert words in status.description
        reply = call(raw.request("/", *[{"uri": f"{site}/bomb-hop"}] * 4), timeout=raw.WAIT)
        assert (reply.header.status.code, len(reply.data.docs.docs)) == (0, 4)
        assert peak() < 200 * MB


def test_a_silent_host_does_not_keep_the_server(site, raw):
    with serve(schemes=["grpc"], fetch_uris=True, grace=0.3) as served, raw.channel(served) as channel:
        call = channel.unary_unary(raw.SINGLE, response_deserializer=DataRequestProto.FromString)
        waiting = call.future(raw.request("/", {"uri": f"{site}/silent"}).SerializeToString(), timeout=raw.WAIT)
        assert call(raw.request("/", {"text": "a"}).SerializeToString(), timeout=raw.WAIT).data.docs.docs
        assert served.stop() == 0
        # Whether there is time to say so before the connection ends is not promised; that the call ends is.
        if waiting.exception(raw.WAIT) is None:
            assert "shutting down" in waiting.result().header.status.description


async def test_a_request_has_so_long_for_all_its_uris(site):
    import asyncio

    fetcher = Fetcher(MB)
    assert await asyncio.to_thread(fetcher.fetch, f"{site}/image", time.monotonic() + 20) == PICTURE
    with pytest.raises(TimeoutError, match=f"the {REQUEST_SECONDS:g} s of a request for its URIs are over"):
        await asyncio.to_thread(fetcher.fetch, f"{site}/silent", time.monotonic() + 0.2)
    with pytest.raises(TimeoutError, match="are over"):
        await asyncio.to_thread(fetcher.fetch, f"{site}/image", time.monotonic() - 1)
    await fetcher.aclose()
    with pytest.raises(OSError, match="shutting down"):
        await asyncio.to_thread(fetcher.fetch, f"{site}/image", time.monotonic() + 20)
