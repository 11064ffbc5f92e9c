"""Decodes the images of documents, and refuses those that would take too much memory or time.

The header of an image comes from a client, who may lie. The memory for decoding is computed from it, and reserved in
the server's memory for images until the image is closed, so that many images at once take no more than a few.
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from casdk._rust import decode_data_uri
from casdk.wire.values import array_of

if TYPE_CHECKING:
    from casdk.server.fetching import Fetcher
    from casdk.server.memory import Memory
    from casdk.wire.docarray_pb2 import DocumentProto

__all__ = ["ImageReader"]

PIXEL_BYTES = {"PNG": 9, "GIF": 9, "BMP": 9, "JPEG": 14, "MPO": 14, "TIFF": 16, "WEBP": 18, "AVIF": 20}
"""Bytes per pixel that decoding takes at most, a conversion to RGB included: measured, with every mode of each format.

Other formats are not read. These are decoded by C code in a time that goes with their pixels; others of Pillow's are
decoded in Python, or, as PostScript, by running a program.
"""
TENSOR_PIXEL_BYTES = 8
SCANS = 64
"""The most scans of a progressive JPEG; a dozen is usual. Each passes over all pixels, and a sender needs few bytes."""
PIECES = 64
"""The most pieces of a JPEG's Exif; one is usual. For each of them, Pillow copies all pieces before it."""
VALUES = 1 << 17
"""Numbers in the first directory of a TIFF: its strips are among them, of each of which Pillow makes a few objects."""
TEXTS = (1, 2, 7)
"""Types of a TIFF's values that Pillow keeps as they are: bytes, characters, anything."""
OFFSETS = (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.TILEOFFSETS)
READ_AGAIN = 4
"""How often a format may read its own bytes; all 65,535 tags of a TIFF may point to the same ones."""
SLACK = 1 << 20
LOOKS, LOOK_BYTES = 10_000, 512
"""Reads that a format may take, and one more for so many bytes: Pillow reads what stands around an image in Python, and
some formats let it have no bytes at all in each piece. An encoder's pieces have thousands."""
SHOWN_CHARACTERS = 200
"""The most characters of a URI that an error repeats."""


class ImageReader:
    """Reads images out of documents; safe to use from several threads.

    Args:
        max_pixels: Largest image, in pixels; the header alone decides.
        memory: Where the memory of an image is reserved.
        fetch: Downloads an ``http`` or ``https`` URL; without it none is downloaded. A data URI is read in
            any case, a local path never.
    """

    def __init__(self, max_pixels: int, memory: Memory, fetcher: Fetcher | None = None) -> None:
        self.max_pixels = max_pixels
        self._memory = memory
        self._fetcher = fetcher
        Image.init()
        self._formats = [name for name in PIXEL_BYTES if name in Image.OPEN]

    @contextlib.contextmanager
    def open(self, name: str, document: DocumentProto, until: float) -> Iterator[Image.Image]:
        """Decode the blob, the tensor or the uri of a document, and reserve the image's memory until the ``with`` ends.

        Args:
            name: The name of the document in errors.
            document: The document.
            until: When a download is cancelled, by ``time.monotonic()``.

        Raises:
            ValueError: It has no image, or one that takes too much memory or time; the message begins with ``name``.
        """
        with contextlib.ExitStack() as stack:
            try:
                if document.WhichOneof("content") == "tensor":
                    image = self._from_tensor(document, stack)
                else:
                    image = self._decode(document.blob or self._load(document.uri, until), stack)
            except Exception as error:  # Pillow's decoders raise errors of many classes for broken images
                raise ValueError(f"{name}: {error}") from error
            stack.callback(image.close)  # before the memory is given back
            yield image

    def _decode(self, data: bytes, stack: contextlib.ExitStack) -> Image.Image:
        _refuse_what_takes_long(data)
        try:
            image = Image.open(_Source(data), formats=self._formats)
        except UnidentifiedImageError:
            known = ", ".join(self._formats)
            raise ValueError(f"the {len(data)} bytes are no image that Pillow knows as one of {known}") from None
        if image.format == "BMP" and image.info.get("compression"):
            raise ValueError("a compressed BMP is not decoded")  # Pillow does that in Python
        pixels = max(image.width * image.height, _tile_pixels(image))
        if pixels > self.max_pixels:
            raise ValueError(
                f"an image of {image.width} x {image.height} pixels exceeds the limit of {self.max_pixels} pixels"
            )
        stack.enter_context(self._memory.hold(pixels * PIXEL_BYTES[str(image.format)]))
        image.load()
        return image

    def _from_tensor(self, document: DocumentProto, stack: contextlib.ExitStack) -> Image.Image:
        array = array_of(document.tensor)
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[:, :, 0]
        if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
            raise ValueError(f"a tensor of shape {array.shape} is no image; it must be [H, W], [H, W, 3] or [H, W, 4]")
        height, width = array.shape[:2]
        if width * height > self.max_pixels:
            raise ValueError(f"an image of {width} x {height} pixels exceeds the limit of {self.max_pixels} pixels")
        if array.size == 0:
            raise ValueError(f"a tensor of shape {array.shape} has no pixels")
        stack.enter_context(self._memory.hold(width * height * TENSOR_PIXEL_BYTES))
        if array.dtype != np.uint8:
            if not (array.min() >= 0 and array.max() <= 255):
                raise ValueError(f"a tensor of dtype {array.dtype} has values outside 0..255")
            array = array.astype(np.uint8)
        return Image.fromarray(array)

    def _load(self, uri: str, until: float) -> bytes:
        scheme = urlsplit(uri[:SHOWN_CHARACTERS]).scheme.lower()
        if scheme == "data":
            return decode_data_uri(uri)[1]
        if scheme not in ("http", "https"):
            raise ValueError("has only a uri, and this server reads no files; send the bytes")
        if self._fetcher is None:
            raise ValueError("has only a uri, and this server fetches none (--fetch-uris); send the bytes")
        try:
            return self._fetcher.fetch(uri, until)
        except Exception as error:
            raise ValueError(f"{uri[:SHOWN_CHARACTERS]!r} was not fetched: {error}") from error


class _Source(io.BytesIO):
    """The bytes of an image, which raise an error if they are read too often."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = READ_AGAIN * len(data) + SLACK
        self._looks = LOOKS + len(data) // LOOK_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._left -= len(data)
        self._looks -= 1
        if self._left < 0:
            raise ValueError("the image reads its own bytes over and over")
        if self._looks < 0:
            raise ValueError("the image is in too many pieces")
        return data


def _refuse_what_takes_long(data: bytes) -> None:
    """Refuse an image that would take much time or memory before Pillow has read its header.

    Raises:
        ValueError: The image is such a one.
    """
    if data.startswith(b"\xff\xd8"):
        if data.count(b"\xff\xda") > SCANS:
            raise ValueError(f"a JPEG of more than {SCANS} scans is not decoded")
        if data.count(b"Exif\0\0") > PIECES:
            raise ValueError(f"a JPEG of more than {PIECES} pieces of Exif is not decoded")
    elif data[:2] in (b"II", b"MM") and _values_of_tiff(data) > VALUES:
        raise ValueError(f"a TIFF of more than {VALUES} strips, or other numbers, is not decoded")


def _values_of_tiff(data: bytes) -> int:
    """Return how many numbers, without texts, the first directory of a TIFF or BigTIFF has."""
    order = "<" if data.startswith(b"II") else ">"
    return max(
        _values_of_directory(data, order + "L", 4, order + "H", order + "HHL4x"),
        _values_of_directory(data, order + "Q", 8, order + "Q", order + "HHQ8x"),
    )


def _values_of_directory(data: bytes, place: str, at: int, number: str, entry: str) -> int:
    """Return the same for these formats of `struct`; 0 if the bytes are not a directory."""
    try:
        (at,) = struct.unpack_from(place, data, at)
        (entries,) = struct.unpack_from(number, data, at)
    except (struct.error, OverflowError):
        return 0
    size = struct.calcsize(entry)
    table = memoryview(data)[at + struct.calcsize(number) :]
    whole = min(entries, len(table) // size) * size
    return sum(
        count for tag, kind, count in struct.iter_unpack(entry, table[:whole]) if kind not in TEXTS or tag in OFFSETS
    )


def _tile_pixels(image: Image.Image) -> int:
    """Return the pixels of a TIFF's tile, which may be larger than all of the image, and is decoded whole."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 0
    tags = image.tag_v2
    width = int(tags.get(TiffImagePlugin.TILEWIDTH, image.width))
    return width * int(tags.get(TiffImagePlugin.TILELENGTH, image.height))
