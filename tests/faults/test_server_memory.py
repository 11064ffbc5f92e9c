"""What strangers send the embedded server takes bounded memory, whatever it would grow to."""

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from urllib.request import Request, urlopen

import grpc
import pytest
from casdk.server import Served, serve
from casdk.server.wire.jina_pb2 import DataRequestProto
from PIL import Image
from websockets.sync.client import connect as open_socket

SINGLE = "/jina.JinaSingleDataRequestRPC/process_single_data"
DOORS = ("grpc", "http", "websocket")
WAIT = 120
MB = 1_000_000
LENGTHS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@cache
def picture(side: int, kind: str = "PNG", mode: str = "RGB", **options: object) -> bytes:
    """Return a few kilobytes that decode to ``side`` x ``side`` pixels."""
    out = io.BytesIO()
    Image.new(mode, (side, side)).save(out, kind, **options)
    return out.getvalue()


def ask(served: Served, door: str, blobs: list[bytes]) -> tuple[int, str]:
    """Send images in one request, without casdk's client; return code and words of the status."""
    authority = served.address(door).split("://")[1]
    if door == "http":
        body = {"data": [{"blob": base64.b64encode(blob).decode()} for blob in blobs]}
        with urlopen(Request(f"http://{authority}/post", json.dumps(body).encode()), timeout=WAIT) as answer:
            told = json.load(answer)["header"]["status"]
        return (0, "") if told is None else (told["code"], told["description"])
    request = DataRequestProto()
    for blob in blobs:
        request.data.docs.docs.add(blob=blob)
    if door == "grpc":
        with grpc.insecure_channel(authority, LENGTHS) as channel:
            call = channel.unary_unary(SINGLE, DataRequestProto.SerializeToString, DataRequestProto.FromString)
            status = call(request, timeout=WAIT).header.status
    else:
        with open_socket(f"ws://{authority}", subprotocols=["bytes"], proxy=None, max_size=None) as opened:
            opened.send(request.SerializeToString())
            status = DataRequestProto.FromString(opened.recv(WAIT)).header.status
    return status.code, status.description


@pytest.fixture(scope="module")
def small():
    """A server with a fifth of the usual memory: the attacks on it are shorter by as much."""
    with serve(schemes=DOORS, max_memory=300 * MB) as served:
        yield served


SIDE = 3800


@pytest.mark.parametrize("door", DOORS)
def test_images_are_decoded_one_by_one(small, memory_of, door):
    """12 images of 17 kB to 1 MB each become 58 MB each, more than 12 times that with what is on the way."""
    peak = memory_of(small)
    assert ask(small, door, [picture(SIDE)] * 12) == (0, "")
    assert peak() < 550 * MB


def test_images_of_several_requests_share_the_memory(small, memory_of):
    peak = memory_of(small)
    with ThreadPoolExecutor(12) as threads:
        told = threads.map(lambda _: ask(small, "grpc", [picture(SIDE)] * 2), range(12))
    assert list(told) == [(0, "")] * 12
    assert peak() < 550 * MB


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("WEBP", {"lossless": True}),
        ("AVIF", {"speed": 10}),
        ("JPEG", {"progressive": True}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_an_image_that_takes_more_than_there_is_is_refused(small, memory_of, kind, options):
    peak = memory_of(small)
    code, words = ask(small, "grpc", [picture(4400, kind, **options)])
    assert code == 1
    assert "this takes about" in words
    assert "for decoding images" in words
    assert peak() < 300 * MB


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_the_server_stays_under_2_gb(memory_of, figure):
    """20 images as large as is allowed, which took 10.6 GB."""
    with serve(schemes=["grpc"]) as served:
        peak = memory_of(served)
        assert ask(served, "grpc", [picture(9400)] * 20) == (0, "")
        with ThreadPoolExecutor(8) as threads:
            assert set(threads.map(lambda _: ask(served, "grpc", [picture(9400)]), range(8))) == {(0, "")}
        for kind in ("WEBP", "AVIF", "JPEG", "GIF"):
            assert ask(served, "grpc", [picture(6500, kind)] * 3) == (0, "")
        assert peak() < 2000 * MB
        figure("strangers: most memory of the embedded server, MB", round(peak() / MB))
