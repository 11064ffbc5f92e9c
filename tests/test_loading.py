"""A Document loads the bytes and pixels behind its URI, within limits, and says what it cannot read."""

import os
import socket
import sys
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import numpy as np
import pytest
from casdk.documents import Document
from casdk.testing._thread import reserve
from PIL import Image

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def png(pixels=PIXELS, mode=None):
    buffer = BytesIO()
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(buffer, "PNG")
    return buffer.getvalue()


class Site(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("location", "/image.png")
            self.end_headers()
            return
        body = png() if self.path == "/image.png" else b""
        self.send_response(200 if body else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site():
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "an image.png"
    path.write_bytes(png())
    return path


@pytest.fixture(params=["path", "file", "home", "data", "http", "moved"])
def uri(request, path, site, monkeypatch):
    monkeypatch.setenv("HOME", str(path.parent))
    return {
        "path": str(path),
        "file": path.as_uri(),
        "home": f"~/{path.name}",
        "data": f"data:image/png;base64,{b64encode(png()).decode()}",
        "http": f"{site}/image.png",
        "moved": f"{site}/moved",
    }[request.param]


def test_loading(uri):
    document = Document(uri=uri)
    assert document.load_uri_to_blob() is document
    assert document.blob == png()
    assert document.tensor is None
    assert document.load_uri_to_image_tensor() is document
    assert document.tensor.dtype == np.uint8
    assert np.array_equal(document.tensor, PIXELS)
    assert document.uri == uri


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA"])
def test_pixels_are_rgb(tmp_path, mode):
    (tmp_path / "a").write_bytes(png(mode=mode))
    document = Document(uri=str(tmp_path / "a")).load_uri_to_image_tensor()
    assert document.tensor.shape == (4, 6, 3)
    assert document.tensor.flags.writeable
    if mode == "RGBA":
        assert np.array_equal(document.tensor, PIXELS)


@pytest.mark.parametrize(
    ("size", "shape"), [({"width": 3}, (4, 3, 3)), ({"height": 8}, (8, 6, 3)), ({"width": 2, "height": 2}, (2, 2, 3))]
)
def test_scaling(path, size, shape):
    assert Document(uri=str(path)).load_uri_to_image_tensor(**size).tensor.shape == shape


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        ("", ValueError, "no uri"),
        ("nosuch.png", FileNotFoundError, "nosuch.png"),
        ("file:///nosuch.png", FileNotFoundError, "nosuch.png"),
        ("data:image/png;base64,@@@@", ValueError, "base64"),
        ("data:image/png", ValueError, "comma"),
        ("http://[::1", ValueError, "no URL"),
        ("https://example.com/a b.png", ValueError, "percent-encode"),
        ("file:///a b.png", ValueError, "percent-encode"),
        ("file://elsewhere/a.png", OSError, "elsewhere"),
    ],
)
def test_what_cannot_be_read(uri, error, message):
    document = Document(uri=uri)
    for load in (document.load_uri_to_blob, document.load_uri_to_image_tensor):
        with pytest.raises(error, match=message):
            load()
    assert (document.blob, document.tensor) == (b"", None)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_nothing_but_a_regular_file_is_read(tmp_path, scheme):
    """Reading a FIFO would wait for its writer, and a device has no end."""
    os.mkfifo(tmp_path / "fifo")
    for path, what in ((tmp_path / "fifo", "a FIFO"), ("/dev/zero", "a device"), (tmp_path, "a directory")):
        document = Document(uri=f"{scheme}{path}")
        for load in (document.load_uri_to_blob, document.load_uri_to_image_tensor):
            with pytest.raises(OSError, match=f"{path} is {what}, not a regular file"):
                load()
        assert document.blob == b""


def test_no_more_is_read_than_allowed(path):
    data = f"data:image/png;base64,{b64encode(png()).decode()}"
    for uri in (str(path), path.as_uri(), data):
        document = Document(uri=uri)
        with pytest.raises(OSError, match=rf"has {len(png())} bytes, more than the {len(png()) - 1} of max_bytes"):
            document.load_uri_to_blob(max_bytes=len(png()) - 1)
        assert document.load_uri_to_blob(max_bytes=len(png())).blob == png()


def test_a_name_that_is_no_utf8_is_read(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff.png"
    with open(name, "wb") as file:
        file.write(png())
    assert Document(uri=os.fsdecode(name)).load_uri_to_blob().blob == png()


def test_http_errors(site):
    with pytest.raises(ConnectionError, match="could not be fetched: HTTP 404"):
        Document(uri=f"{site}/nosuch.png").load_uri_to_blob()
    with reserve() as closed, pytest.raises(ConnectionError, match="could not be fetched"):
        Document(uri=f"http://127.0.0.1:{closed.getsockname()[1]}/a.png").load_uri_to_blob()


def test_silence():
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(TimeoutError, match=r"silent for 0\.2 s"),
    ):
        Document(uri=f"http://127.0.0.1:{silent.getsockname()[1]}/a.png").load_uri_to_blob(timeout=0.2)


@pytest.mark.parametrize("data", [b"", b"no image", png()[:48], png()[:20]], ids=["empty", "text", "cut", "header"])
def test_what_is_no_image(tmp_path, data):
    (tmp_path / "a.png").write_bytes(data)
    document = Document(uri=str(tmp_path / "a.png"))
    assert document.load_uri_to_blob().blob == data
    with pytest.raises(ValueError, match=rf"these {len(data)} bytes are no image that Pillow can read"):
        document.load_uri_to_image_tensor()


def test_without_pillow(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'casdk\[image\]'"):
        Document(uri=str(path)).load_uri_to_image_tensor()


def bomb(kind, side):
    buffer = BytesIO()
    Image.new("1", (side, side)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("side", [110, 200], ids=["above", "twice above"])
def test_more_pixels_than_pillow_allows(tmp_path, monkeypatch, kind, side):
    """Pillow warns of the first and refuses the second, with an error of its own."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    (tmp_path / "a").write_bytes(bomb(kind, side))
    with pytest.raises(ValueError, match=r"pixels|decompression bomb"):
        Document(uri=str(tmp_path / "a")).load_uri_to_image_tensor()


def test_no_program_is_run_to_read_an_image(tmp_path):
    (tmp_path / "a").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match="PostScript is a program"):
        Document(uri=str(tmp_path / "a")).load_uri_to_image_tensor()
