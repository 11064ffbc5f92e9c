"""Reads the bytes and the pixels behind a URI, for the methods of `Document` that load them."""

from __future__ import annotations

from io import BytesIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from casdk import _rust
from casdk._rust import Kind, kind_of_uri

__all__ = ["DOWNLOAD_BYTES", "read_pixels", "read_uri"]

DOWNLOAD_BYTES: Final = 64 * 1024 * 1024
"""The largest download by default, as in `casdk.Limits.max_item_bytes`."""
MISSING: Final = "reading pixels takes Pillow: pip install 'casdk[image]'"
MOST_REDIRECTS: Final = 5


def read_uri(uri: str, timeout: float, max_bytes: int) -> bytes:
    """Return the bytes behind a path, or behind a ``file://``, ``http(s)://`` or ``data:`` URI.

    Raises:
        ValueError: There is no URI, or it is broken.
        OSError: The file cannot be read, the URL cannot be fetched, or there are more than ``max_bytes``.
    """
    if not uri:
        raise ValueError("the document has no uri to load")
    if kind_of_uri(uri) == Kind.WEB_URL:
        return _download(uri, timeout, max_bytes)
    return _rust.read_uri(uri, max_bytes)


def _download(url: str, timeout: float, max_bytes: int) -> bytes:
    import httpx

    from casdk.documents.fetching import HEADERS, fetch

    try:
        with httpx.Client(timeout=timeout, headers=HEADERS) as client:
            return fetch(client, url, max_bytes, MOST_REDIRECTS)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is no URL: {error}") from error
    except httpx.TimeoutException as error:
        raise TimeoutError(f"{url} could not be fetched: silent for {timeout:g} s") from error
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise ConnectionError(f"{url} could not be fetched: {error}") from error


def read_pixels(data: bytes, width: int | None, height: int | None) -> NDArray[Any]:
    """Return the pixels ``[H, W, 3]`` uint8 of an image file's bytes.

    Raises:
        ImportError: Pillow is missing.
        ValueError: Pillow cannot read these bytes as an image, or the image has more pixels than ``PIL.Image`` allows.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(MISSING, name="PIL") from error
    try:
        with Image.open(BytesIO(data)) as image:
            _check_pixels(image.width * image.height, Image.MAX_IMAGE_PIXELS)
            if image.format == "EPS":
                raise ValueError("PostScript is a program, and is not run")
            pixels = image.convert("RGB")
    except Exception as error:  # on broken bytes, Pillow's decoders raise errors of any class
        raise ValueError(f"these {len(data)} bytes are no image that Pillow can read: {error}") from error
    if width or height:
        pixels = pixels.resize((width or pixels.width, height or pixels.height))
    return np.array(pixels, dtype=np.uint8)


def _check_pixels(count: int, most: int | None) -> None:
    # Pillow itself decodes images of up to twice as many pixels, with a warning.
    if most is not None and count > most:
        raise ValueError(f"it has {count} pixels, more than the {most} of PIL.Image.MAX_IMAGE_PIXELS")
