"""Pictures of every format, mode, habit and shape that a client may be given, the same on every machine."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["bad_pictures", "file", "odd_pictures", "photo"]

SHAPES = (
    *((501, 403), (403, 501), (640, 480), (301, 300), (225, 224), (224, 225), (224, 224), (223, 340), (449, 448)),
    *((1, 1), (1, 300), (300, 1), (3, 2), (2, 900), (900, 2), (1800, 9), (9, 1800), (2001, 301), (301, 2001)),
)
"""Widths and heights: around the model's side, with a side of one pixel, and many times wider than high."""
SHAPES_OF_EACH = 5


@cache
def photo(width: int, height: int, seed: int) -> Image.Image:
    """Return a picture with smooth parts, edges and noise, as a photo has them."""
    random = np.random.default_rng(seed)
    shades = np.add.outer(np.arange(height) * (seed % 3 + 1), np.arange(width))[:, :, None] // random.integers(3, 9, 3)
    coarse = np.kron(random.integers(0, 90, (height // 50 + 1, width // 50 + 1, 3)), np.ones((50, 50, 1)))
    noise = random.integers(0, 40, (height, width, 3))
    return Image.fromarray(((shades + coarse[:height, :width] + noise) % 256).astype(np.uint8))


def file(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return a picture as the bytes of a file."""
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def _see_through(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(image.convert("L").rotate(180))
    return image


def _deep(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L"), np.uint16) * np.uint16(7))


def _held(orientation: int) -> Image.Exif:
    """Return Exif's note of how the camera was held."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def _moving(image: Image.Image, kind: str) -> bytes:
    frames = [image.rotate(180), image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    return file(image, kind, save_all=True, append_images=frames)


HABITS: dict[str, Callable[[Image.Image], Any]] = {
    "jpeg": lambda image: file(image, "JPEG"),
    "jpeg of quality 30": lambda image: file(image, "JPEG", quality=30),
    "jpeg of quality 100": lambda image: file(image, "JPEG", quality=100, subsampling="4:4:4"),
    "jpeg, 4:2:2": lambda image: file(image, "JPEG", subsampling="4:2:2"),
    "jpeg, progressive": lambda image: file(image, "JPEG", progressive=True),
    "jpeg, optimised": lambda image: file(image, "JPEG", optimize=True),
    **{f"jpeg held as {way}": lambda image, way=way: file(image, "JPEG", exif=_held(way)) for way in range(2, 9)},
    "jpeg with a profile": lambda image: file(image, "JPEG", icc_profile=b"p" * 300),
    "jpeg with a comment": lambda image: file(image, "JPEG", comment=b"no word of this is true " * 50),
    "grey jpeg": lambda image: file(image.convert("L"), "JPEG"),
    "grey jpeg, progressive": lambda image: file(image.convert("L"), "JPEG", progressive=True),
    "cmyk jpeg": lambda image: file(image.convert("CMYK"), "JPEG"),
    "cmyk jpeg, progressive": lambda image: file(image.convert("CMYK"), "JPEG", progressive=True),
    "phone's jpeg of two pictures": lambda image: file(image, "MPO", save_all=True, append_images=[image.rotate(180)]),
    "png": lambda image: file(image, "PNG"),
    "png with alpha": lambda image: file(_see_through(image), "PNG"),
    "grey png": lambda image: file(image.convert("L"), "PNG"),
    "grey png with alpha": lambda image: file(_see_through(image).convert("LA"), "PNG"),
    "png of 16 bits": lambda image: file(_deep(image), "PNG"),
    "png of one bit": lambda image: file(image.convert("1"), "PNG"),
    "png with a palette": lambda image: file(image.quantize(200), "PNG"),
    "png with a palette of 3": lambda image: file(image.quantize(3), "PNG"),
    "png with a clear colour in its palette": lambda image: file(image.quantize(99), "PNG", transparency=5),
    "png with shades in its palette": lambda image: file(
        image.quantize(9), "PNG", transparency=bytes(range(0, 90, 10))
    ),
    "png with a clear colour": lambda image: file(image, "PNG", transparency=(1, 2, 3)),
    "grey png with a clear shade": lambda image: file(image.convert("L"), "PNG", transparency=7),
    "png that moves": lambda image: _moving(image, "PNG"),
    "gif": lambda image: file(image.quantize(250), "GIF"),
    "gif, interlaced": lambda image: file(image.quantize(16), "GIF", interlace=1),
    "gif with a clear colour": lambda image: file(image.quantize(60), "GIF", transparency=3),
    "grey gif": lambda image: file(image.convert("L"), "GIF"),
    "gif that moves": lambda image: _moving(image, "GIF"),
    "webp": lambda image: file(image, "WEBP", quality=85),
    "webp with alpha": lambda image: file(_see_through(image), "WEBP", quality=70),
    "webp without loss": lambda image: file(image, "WEBP", lossless=True),
    "webp that moves": lambda image: _moving(image, "WEBP"),
    "bmp": lambda image: file(image, "BMP"),
    "grey bmp": lambda image: file(image.convert("L"), "BMP"),
    "bmp of one bit": lambda image: file(image.convert("1"), "BMP"),
    "bmp with a palette": lambda image: file(image.quantize(200), "BMP"),
    "tiff": lambda image: file(image, "TIFF"),
    "tiff, packed": lambda image: file(image, "TIFF", compression="tiff_lzw"),
    "cmyk tiff": lambda image: file(image.convert("CMYK"), "TIFF"),
    "image of PIL's": lambda image: image,
    "image of PIL's with a palette": lambda image: image.quantize(120),
}
"""What a picture may be, by its name."""


def odd_pictures() -> dict[str, Any]:
    """Return more than 200 pictures that a server takes, by what they are: each habit in shapes of its own."""
    found = {}
    for number, (habit, make) in enumerate(HABITS.items()):
        for turn in range(SHAPES_OF_EACH):
            width, height = SHAPES[(number * SHAPES_OF_EACH + turn) % len(SHAPES)]
            found[f"{habit}, {width} x {height}"] = make(photo(width, height, number % 3))
    image = photo(501, 403, 9)
    for channels, pixels in (("RGB", np.asarray(image)), ("RGBA", np.asarray(_see_through(image)))):
        for height, width in ((403, 501), (224, 224), (240, 500)):
            found[f"{channels} array, {width} x {height}"] = np.ascontiguousarray(pixels[:height, :width])
    return found


def bad_pictures() -> dict[str, bytes]:
    """Return pictures that are cut short or spoiled, by what they are; a server takes some of them all the same."""
    image = photo(501, 403, 9)
    whole = {kind: file(image, kind) for kind in ("JPEG", "PNG", "WEBP", "BMP")} | {
        "GIF": file(image.quantize(9), "GIF")
    }
    found = {}
    for kind, data in whole.items():
        found[f"{kind} without its second half"] = data[: len(data) // 2]
        found[f"{kind} without its last byte"] = data[:-1]
        found[f"{kind} without all but its head"] = data[:40]
        found[f"{kind} with another one behind it"] = data + data
        middle = len(data) // 2
        found[f"{kind} with zeros in it"] = data[:middle] + bytes(64) + data[middle + 64 :]
    return found
