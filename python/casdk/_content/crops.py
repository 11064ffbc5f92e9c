"""An image -> the square of it that a CLIP model sees, as a small file: the server's first steps, done by the client.

The steps are those of clip_server, which uses Pillow, too: open, bicubic resize in the picture's own mode, centre crop
with torchvision's rounding, RGB; no rotation by Exif. Applied to the crop they change nothing, since its sides have the
model's size already; so the server gets the same pixels as from the original, bit for bit. `casdk._content.canary` has
to show that a server works like this. Written with loss, the square is smaller and has slightly other pixels;
`casdk._calls.fidelity` measures how far its row is off.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from casdk.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "ARRAY",
    "LOSSY",
    "Crop",
    "DecodingMemory",
    "Form",
    "Lossy",
    "Written",
    "check_pillow",
    "crop_of_array",
    "crop_of_bytes",
    "square_of",
    "written_again",
]

Lossy: TypeAlias = Literal["jpeg95", "webp90"]
"""The ways to write a crop with loss."""
Written: TypeAlias = Literal["exact", "jpeg95", "webp90"]
"""The ways to write a crop."""
LOSSY: Final = get_args(Lossy)
WRITERS: Final[dict[Written, dict[str, Any]]] = {
    "exact": {"format": "WEBP", "lossless": True, "quality": 0, "method": 0},
    "jpeg95": {"format": "JPEG", "quality": 95, "subsampling": "4:4:4"},
    "webp90": {"format": "WEBP", "quality": 90, "method": 0},
}
"""Pillow's options for each way. The JPEG keeps the full resolution of the colours; WebP with loss halves it."""

FORMATS: Final = ("JPEG", "PNG", "GIF", "WEBP", "BMP")
"""Formats that are opened here. A JPEG with further ones behind it, as phones make them, is an MPO for Pillow."""
ARRAY: Final = "array"
"""Stands for the format of pixels that come as an array."""
MODES: Final = {1: "L", 3: "RGB"}
"""The mode of an array's pixels, by its channels. Of four, clip_server leaves out the last before it resizes, which
Pillow does not."""
MOST_PIXELS: Final = 1 << 26
"""The most pixels of a picture that is decoded here, and of the resized picture before its middle is cut out."""
PIXEL_BYTES: Final = 12
"""The most bytes that a pixel takes while a picture is decoded, resized and converted: Pillow has four bytes for each
in most modes, the resized picture may have as many pixels, and a progressive JPEG has its coefficients."""
MOST_SCANS: Final = 64
"""The most scans of a progressive JPEG; a dozen is usual. Each scan is a pass over all pixels."""
DECODING_BYTES: Final = 1 << 30
"""Memory that one client's pictures may take while they are decoded; one that takes more is decoded alone."""


class Form(NamedTuple):
    """What decides how a server decodes and resizes a picture: it treats pictures of one form alike.

    Attributes:
        format: Pillow's name of it, or ``"array"``.
        mode: Pillow's name of the picture's mode.
    """

    format: str
    mode: str


class Crop(NamedTuple):
    """The square that the model sees.

    Attributes:
        form: The form of the picture.
        data: The square, as an image file.
    """

    form: Form
    data: bytes


class DecodingMemory:
    """Makes threads wait while the pictures being decoded take all the memory that they may take."""

    def __init__(self, most: int = DECODING_BYTES) -> None:
        self._most = most
        self._held = 0
        self._freed = threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Count memory as held, as soon as there is room for it, or no other memory is held."""
        with self._freed:
            self._freed.wait_for(lambda: self._held == 0 or self._held + size <= self._most)
            self._held += size
        try:
            yield
        finally:
            with self._freed:
                self._held -= size
                self._freed.notify_all()


def check_pillow(images: str) -> None:
    """Import Pillow, which makes the crops.

    Args:
        images: The option that asks for crops.

    Raises:
        ConfigError: Pillow is not installed.
    """
    try:
        import PIL.Image
    except ImportError as error:
        raise ConfigError(f'images="{images}" needs Pillow: pip install "casdk[image]"') from error
    PIL.Image.init()


def crop_of_bytes(
    data: bytes, size: int, forms: frozenset[Form], memory: DecodingMemory, written: Written = "exact"
) -> Crop | None:
    """Return the crop of an image file.

    Args:
        data: The file's bytes.
        size: The model's side, in pixels.
        forms: The forms of pictures that are cropped.
        memory: Counts the memory of decoding.
        written: How the crop is written.

    Returns:
        ``None`` for a picture that has to be sent as it is: it has another form, more than one frame, or more than
        `MOST_PIXELS` pixels.

    Raises:
        Exception: The error of Pillow, for broken bytes.
    """
    from PIL import Image

    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > MOST_SCANS:
        return None
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        form = Form(str(image.format), image.mode)
        # Which frame of an animation is read depends on Pillow's version. Of an MPO, the first picture is always read.
        animated = form.format != "MPO" and getattr(image, "is_animated", False)
        if form not in forms or animated:
            return None
        pixels = _pixels(image.size, size)
        if pixels > MOST_PIXELS:
            return None
        with memory.hold(pixels * PIXEL_BYTES):
            image.load()
            return Crop(form, _written(square_of(image, size), written))


def crop_of_array(
    pixels: np.ndarray[Any, Any],
    size: int,
    forms: frozenset[Form],
    memory: DecodingMemory,
    written: Written = "exact",
) -> Crop | None:
    """Return the crop of pixels ``[H, W, C]`` uint8; arguments and result are those of `crop_of_bytes`."""
    from PIL import Image

    if pixels.ndim != 3 or pixels.dtype != np.uint8 or min(pixels.shape[:2]) < 2 or pixels.shape[2] not in MODES:
        return None
    height, width, channels = pixels.shape
    form = Form(ARRAY, MODES[channels])
    count = _pixels((width, height), size)
    if form not in forms or count > MOST_PIXELS:
        return None
    with memory.hold(count * PIXEL_BYTES):
        image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
        return Crop(form, _written(square_of(image, size), written))


def written_again(crop: bytes, written: Written) -> bytes:
    """Return an exact crop, written in another way."""
    from PIL import Image

    with Image.open(BytesIO(crop), formats=("WEBP",)) as image:
        return _written(image.convert("RGB"), written)


def square_of(image: Image, size: int) -> Image:
    """Return the square that clip_server makes of a picture: ``size`` x ``size`` pixels of RGB."""
    from PIL.Image import Resampling

    width, height = resized = _resized(image.size, size)
    if resized != image.size:
        image = image.resize(resized, Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    if (width, height) != (size, size):
        image = image.crop((left, top, left + size, top + size))
    # Only RGB is left, so transparency makes no difference, and Pillow does not have to warn that it is lost.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def _resized(sides: tuple[int, int], size: int) -> tuple[int, int]:
    """Return width and height once the shorter side is ``size``, rounded as torchvision does."""
    width, height = sides
    longer = int(size * max(sides) / min(sides))
    return (size, longer) if width <= height else (longer, size)


def _pixels(sides: tuple[int, int], size: int) -> int:
    """Return the number of pixels of a picture before or after it is resized, whichever is larger."""
    width, height = _resized(sides, size)
    return max(sides[0] * sides[1], width * height)


def _written(square: Image, written: Written) -> bytes:
    file = BytesIO()
    square.save(file, **WRITERS[written])
    return file.getvalue()
