"""Crops against an oracle: the server's chain of steps has to make the same pixels of the crop as of the picture."""

import io
import sys
import threading
import warnings

import numpy as np
import pytest
from casdk import ConfigError
from casdk._content.crops import (
    ARRAY,
    MOST_PIXELS,
    DecodingMemory,
    Form,
    check_pillow,
    crop_of_array,
    crop_of_bytes,
    square_of,
    written_again,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, UnidentifiedImageError

SIZE = 56
EVERY_FORM = frozenset(
    Form(format, mode)
    for format in ("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", ARRAY)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16")
)
MEMORY = DecodingMemory()


def prepared(data, size):
    """What clip_server makes of an image: torchvision's Resize and CenterCrop on one of Pillow's, then RGB."""
    image = Image.open(io.BytesIO(data))
    height, width = image.height, image.width
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = size, int(size * long / short)
    new_width, new_height = (new_short, new_long) if width <= height else (new_long, new_short)
    if [height, width] != [new_height, new_width]:
        image = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
    top = round((image.height - size) / 2.0)
    left = round((image.width - size) / 2.0)
    image = image.crop((left, top, left + size, top + size))
    with warnings.catch_warnings():  # of transparency that is lost
        warnings.simplefilter("ignore")
        return np.asarray(image.convert("RGB"))


def noise(width, height, seed=1):
    """A picture with smooth parts and noise, as a photo has them."""
    random = np.random.default_rng(seed)
    shades = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[:, :, None] // np.array([1, 2, 3])
    return Image.fromarray(((shades + random.integers(0, 90, (height, width, 3))) % 256).astype(np.uint8))


def file(image, format, **options):
    data = io.BytesIO()
    image.save(data, format, **options)
    return data.getvalue()


def in_mode(image, mode):
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L"), np.uint16) * np.uint16(3))
    if mode in ("RGBA", "LA"):
        image = image.copy()
        image.putalpha(image.convert("L").rotate(90).resize(image.size))
    return image.quantize(60) if mode == "P" else image.convert(mode)


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


PICTURES = {
    "progressive": lambda: file(noise(401, 303), "JPEG", progressive=True),
    "4:4:4": lambda: file(noise(133, 401), "JPEG", subsampling="4:4:4"),
    "rotated by exif": lambda: file(noise(301, 203), "JPEG", exif=exif(6)),
    "colour profile": lambda: file(noise(301, 203), "JPEG", icc_profile=b"p" * 200),
    "phone": lambda: file(noise(301, 203), "MPO", save_all=True, append_images=[noise(100, 80)]),
    "cmyk": lambda: file(noise(301, 203).convert("CMYK"), "JPEG"),
    "grey": lambda: file(noise(303, 204).convert("L"), "JPEG"),
    "interlaced": lambda: file(noise(90, 77).quantize(16), "GIF", interlace=1),
    "transparent palette": lambda: file(noise(99, 121).quantize(9), "PNG", transparency=3),
    "palette of shades": lambda: file(noise(99, 121).quantize(9), "PNG", transparency=bytes(range(0, 90, 10))),
    "transparent grey": lambda: file(noise(99, 121).convert("L"), "PNG", transparency=7),
    "transparent colour": lambda: file(noise(99, 121), "PNG", transparency=(1, 2, 3)),
    "bmp": lambda: file(noise(99, 121), "BMP"),
    "lossy webp": lambda: file(noise(199, 121), "WEBP", quality=80),
    "tiny": lambda: file(noise(1, 1), "PNG"),
    "tiny, wide": lambda: file(noise(3, 2), "PNG"),
    "a line": lambda: file(noise(3000, 2), "PNG"),
    "a column": lambda: file(noise(2, 2999), "PNG"),
    "of the size": lambda: file(noise(SIZE, SIZE), "PNG"),
    "short side of the size": lambda: file(noise(SIZE, 81), "PNG"),
    "rounds to even": lambda: file(noise(SIZE + 1, SIZE), "PNG"),
    "rounds to even, up": lambda: file(noise(SIZE + 3, SIZE), "PNG"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_the_servers_steps_give_the_same_pixels(name):
    data = PICTURES[name]()
    crop = crop_of_bytes(data, SIZE, EVERY_FORM, MEMORY)
    assert Image.open(io.BytesIO(crop.data)).size == (SIZE, SIZE)
    np.testing.assert_array_equal(prepared(crop.data, SIZE), prepared(data, SIZE))


@pytest.mark.parametrize(
    ("format", "mode"),
    [
        *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        *(("JPEG", mode) for mode in ("L", "RGB", "CMYK")),
        *(("WEBP", mode) for mode in ("RGB", "RGBA")),
        ("GIF", "P"),
        ("BMP", "RGB"),
    ],
)
@settings(max_examples=settings.default.max_examples // 3)
@given(width=st.integers(1, 190), height=st.integers(1, 190), size=st.integers(16, 64), seed=st.integers(0, 99))
def test_every_form_in_every_shape(format, mode, width, height, size, seed):
    data = file(in_mode(noise(width, height, seed), mode), format)
    crop = crop_of_bytes(data, size, EVERY_FORM, MEMORY)
    assert crop.form == Form(format, Image.open(io.BytesIO(data)).mode)
    np.testing.assert_array_equal(prepared(crop.data, size), prepared(data, size))


@given(width=st.integers(2, 190), height=st.integers(2, 190), channels=st.sampled_from([1, 3]))
def test_arrays_fare_as_their_png(width, height, channels):
    pixels = np.asarray(noise(width, height))[:, :, :channels]
    crop = crop_of_array(pixels, SIZE, EVERY_FORM, MEMORY)
    assert crop.form == Form(ARRAY, "L" if channels == 1 else "RGB")
    data = file(Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels), "PNG")
    np.testing.assert_array_equal(prepared(crop.data, SIZE), prepared(data, SIZE))


def test_what_another_form_is_or_moves_goes_as_it_is():
    photo = file(noise(90, 80), "JPEG")
    frames = [noise(90, 80, seed) for seed in range(3)]
    for data in (
        file(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        file(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        file(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
    ):
        assert crop_of_bytes(data, SIZE, EVERY_FORM, MEMORY) is None
    assert crop_of_bytes(photo, SIZE, frozenset({Form("PNG", "RGB"), Form("JPEG", "L")}), MEMORY) is None
    assert crop_of_bytes(photo, SIZE, frozenset({Form("JPEG", "RGB")}), MEMORY) is not None
    assert crop_of_bytes(photo + b"\xff\xda" * 64, SIZE, EVERY_FORM, MEMORY) is None  # a pass over all pixels for each


@pytest.mark.parametrize("sides", [(1, 70_000), (70_000, 1), (9000, 9000)])
def test_what_has_too_many_pixels_before_or_after_it_is_resized_goes_as_it_is(sides):
    assert crop_of_bytes(file(Image.new("1", sides), "PNG"), 224, EVERY_FORM, MEMORY) is None


@pytest.mark.parametrize("shape", [(1, 9, 3), (9, 1, 3), (9, 9, 4), (9, 9, 2), (9, 9), (0, 9, 3)])
def test_pixels_of_other_shapes_go_as_they_are(shape):
    assert crop_of_array(np.zeros(shape, np.uint8), SIZE, EVERY_FORM, MEMORY) is None


def test_pixels_of_other_numbers_go_as_they_are():
    assert crop_of_array(np.zeros((9, 9, 3), np.float32), SIZE, EVERY_FORM, MEMORY) is None
    assert MOST_PIXELS < 9000 * 9000


def test_broken_pictures_raise_what_pillow_raises(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    with pytest.raises(UnidentifiedImageError):
        crop_of_bytes(b"no picture", SIZE, EVERY_FORM, MEMORY)
    with pytest.raises(OSError, match="truncated"):
        crop_of_bytes(file(noise(90, 80), "JPEG")[:2000], SIZE, EVERY_FORM, MEMORY)


def test_a_square_is_rgb_of_the_size():
    square = square_of(noise(99, 77).convert("L"), SIZE)
    assert (square.mode, square.size) == ("RGB", (SIZE, SIZE))


@pytest.mark.parametrize(("written", "kind"), [("jpeg95", "JPEG"), ("webp90", "WEBP")])
def test_with_loss_a_crop_is_smaller_and_nearly_the_same(written, kind):
    data = file(noise(303, 204), "PNG")
    exact = crop_of_bytes(data, SIZE, EVERY_FORM, MEMORY)
    lossy = crop_of_bytes(data, SIZE, EVERY_FORM, MEMORY, written)
    image = Image.open(io.BytesIO(lossy.data))
    assert (lossy.form, image.format, image.mode, image.size) == (exact.form, kind, "RGB", (SIZE, SIZE))
    assert len(lossy.data) < len(exact.data)
    off = prepared(lossy.data, SIZE).astype(int) - prepared(exact.data, SIZE)
    assert 0 < np.abs(off).mean() < 10
    assert written_again(exact.data, written) == lossy.data
    pixels = np.asarray(noise(303, 204))
    assert crop_of_array(pixels, SIZE, EVERY_FORM, MEMORY, written).data == lossy.data


def test_without_pillow_the_extra_is_named(monkeypatch):
    check_pillow("exact")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ConfigError, match=r'images="jpeg95" needs Pillow: pip install "casdk\[image\]"'):
        check_pillow("jpeg95")


def test_decoding_waits_for_memory_unless_it_is_alone():
    memory = DecodingMemory(10)
    with memory.hold(99):
        pass
    order, inside = [], threading.Event()

    def other():
        inside.set()
        with memory.hold(6):
            order.append("second")

    with memory.hold(6):
        thread = threading.Thread(target=other)
        thread.start()
        inside.wait()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
