"""Pictures that show how a server prepares images: its model's size, and the forms of which crops give the same rows.

Each picture is sent as it is and as a crop. The distance between two rows of the same picture, sent twice as it is, is
the noise of the server's arithmetic; a crop whose row is no further off is as good as the picture. There is no I/O
here: `casdk._calls.cropping` sends the pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from casdk._content.crops import ARRAY, DecodingMemory, Form, crop_of_array, crop_of_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

__all__ = ["SIZES", "Proof", "forms_shown", "pictures_of_forms", "pictures_of_sizes", "size_shown", "sizes_tried"]

SIZES: Final = (224, 240, 256, 280, 288, 320, 336, 378, 384, 448, 512)
"""Sides that CLIP models have, in pixels."""
PHOTO: Final = Form("JPEG", "RGB")
WIDTH, HEIGHT = 727, 577
"""Sides in pixels of the picture that shows the size: odd, and larger than any model's side, so that each model resizes
and crops it."""
MARGIN_RATIO: Final = 1.3
"""How many times the model's side the sides of the other pictures are."""
NOISE_RATIO: Final = 2.0
"""A row that is off by at most so many times the noise counts as equal, since one sample of the noise may be larger
than another. A server whose arithmetic has no noise has to give exactly the same row."""
CLEAR_RATIO: Final = 10.0
"""The row of a wrong size has to be off by at least so many times the noise."""
LEAST_DIFFERENCE_RATIO: Final = 1e-5
"""The rows of two sizes have to differ by at least this part of their length: a server that ignores pictures shows
nothing."""
QUALITY: Final = 90
"""Quality of the pictures that are written with loss, from 0 to 100."""


class Proof(NamedTuple):
    """What a server has shown about one of its models.

    Attributes:
        size: The model's side, in pixels.
        forms: The forms of pictures of which a crop gives the same row as the picture.
    """

    size: int
    forms: frozenset[Form]


def sizes_tried(size: int | None) -> tuple[int, ...]:
    """Return the sizes of the crops that are sent: all, or the one that the caller has set and the nearest other."""
    if size is None:
        return SIZES
    nearest = min((other for other in SIZES if other != size), key=lambda other: abs(other - size))
    return (size, nearest)


@lru_cache(2)
def pictures_of_sizes(size: int | None) -> tuple[bytes, ...]:
    """Return a photo, the same photo again, and its crop in each size that is tried."""
    photo = _photo()
    return (photo, photo, *(_crop(photo, PHOTO, tried) for tried in sizes_tried(size)))


def size_shown(rows: NDArray[Any], size: int | None) -> int | None:
    """Return the model's size.

    Args:
        rows: The rows of `pictures_of_sizes`, NaN for a picture without one.
        size: The size that the caller has set; then it is the only one that can be shown.

    Returns:
        ``None`` if no crop is as good as the picture, or a second one is nearly as good.
    """
    tried = sizes_tried(size)
    if len(rows) != 2 + len(tried) or rows.shape[1] == 0:
        return None
    noise, *apart = _distances(rows)
    order = np.argsort(apart, kind="stable")  # which sorts NaN to the end
    best, next_best = (apart[at] for at in order[:2])
    length = float(np.linalg.norm(rows[0].astype(np.float64)))
    least_distance = max(CLEAR_RATIO * max(noise, best), LEAST_DIFFERENCE_RATIO * length)
    if not (best <= NOISE_RATIO * noise and next_best > least_distance):
        return None
    shown = tried[order[0]]
    return shown if size in (None, shown) else None


@lru_cache(2)
def pictures_of_forms(size: int) -> tuple[Any, ...]:
    """Return a photo, the same photo again, and for each other form a picture and its crop."""
    photo = _photo()
    pairs = [part for form, picture in _pictures(size).items() for part in (picture, _crop(picture, form, size))]
    return (photo, photo, *pairs)


def forms_shown(rows: NDArray[Any], size: int) -> frozenset[Form]:
    """Return the forms of which crops are as good as the pictures, by the rows of `pictures_of_forms`."""
    forms = list(_pictures(size))
    if len(rows) != 2 + 2 * len(forms) or rows.shape[1] == 0:
        return frozenset({PHOTO})
    noise = _distances(rows[:2])[0]
    apart = [_distances(rows[at : at + 2])[0] for at in range(2, len(rows), 2)]
    most = NOISE_RATIO * noise
    return frozenset({PHOTO, *(form for form, distance in zip(forms, apart, strict=True) if distance <= most)})


def _distances(rows: NDArray[Any]) -> list[float]:
    """Return the distance of each other row from the first one."""
    wide = rows.astype(np.float64)
    return [float(distance) for distance in np.linalg.norm(wide[1:] - wide[0], axis=1)]


def _crop(picture: Any, form: Form, size: int) -> bytes:
    make: Callable[..., Any] = crop_of_array if form.format == ARRAY else crop_of_bytes
    crop = make(picture, size, frozenset({form}), DecodingMemory())
    if crop is None:
        raise AssertionError(f"the canary's picture has another form than {form}")
    data: bytes = crop.data
    return data


@lru_cache(1)
def _photo() -> bytes:
    """Return a JPEG whose colours have half the resolution, like that of a camera."""
    return _file(_scene(WIDTH, HEIGHT), "JPEG", quality=QUALITY, subsampling="4:2:0")


@lru_cache(2)
def _pictures(size: int) -> dict[Form, Any]:
    """Return a picture of each form but the photo's."""
    from PIL import Image

    width, height = int(size * MARGIN_RATIO * 1.2) | 1, int(size * MARGIN_RATIO) | 1
    scene = _scene(width, height)
    grey, see_through = scene.convert("L"), scene.copy()
    see_through.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey, np.uint16) * np.uint16(2))  # most of Pillow's versions cut off at 255
    palette = scene.quantize(200)
    pixels = np.asarray(scene)
    return {
        Form("JPEG", "L"): _file(grey, "JPEG", quality=QUALITY),
        Form("JPEG", "CMYK"): _file(scene.convert("CMYK"), "JPEG", quality=QUALITY),
        Form("MPO", "RGB"): _file(scene, "MPO", quality=QUALITY, save_all=True, append_images=[scene]),
        Form("PNG", "RGB"): _file(scene, "PNG"),
        Form("PNG", "RGBA"): _file(see_through, "PNG"),
        Form("PNG", "L"): _file(grey, "PNG"),
        Form("PNG", "LA"): _file(see_through.convert("LA"), "PNG"),
        Form("PNG", "P"): _file(palette, "PNG"),
        Form("PNG", "1"): _file(grey.convert("1"), "PNG"),
        Form("PNG", "I;16"): _file(deep, "PNG"),
        Form("GIF", "P"): _file(palette, "GIF"),
        Form("WEBP", "RGB"): _file(scene, "WEBP", quality=QUALITY),
        Form("WEBP", "RGBA"): _file(see_through, "WEBP", quality=QUALITY),
        Form("BMP", "RGB"): _file(scene, "BMP"),
        Form(ARRAY, "L"): pixels[:, :, :1].copy(),
        Form(ARRAY, "RGB"): pixels,
    }


def _scene(width: int, height: int) -> Image:
    """Return a picture with edges, fine waves and shades, which is the same on every machine."""
    from PIL import Image

    across, down = np.meshgrid(np.arange(width, dtype=np.int64), np.arange(height, dtype=np.int64))
    shades = (across * 96 // width + down * 96 // height).astype(np.int64)
    waves = (across * across // (width // 4) + down * down // (height // 4)) % 128 // 32 * 24
    disc = (across - width // 2) ** 2 + (down - height // 2) ** 2 < (height // 4) ** 2
    tiles = (across * 7 // width + down * 5 // height) % 3 * 40
    planes = np.stack([shades + tiles, shades + np.where(disc, waves, 0), shades + 60 - tiles // 2], axis=2)
    planes = np.clip(planes, 0, 255).astype(np.uint8)
    return Image.fromarray(planes)


def _file(image: Image, file_format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format=file_format, **options)
    return file.getvalue()
