"""The bytes and the pixels behind a Document's URI, for the methods that load them here and now."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_pixels", "read_uri"]

MISSING: Final = "reading pixels takes Pillow: pip install 'casdk[image]'"


def read_uri(uri: str, timeout: float) -> bytes:
    """Return what a path, a ``file:``, ``http(s):`` or ``data:`` URI leads to.

    Raises:
        ValueError: There is no URI, or it is broken.
        OSError: The file cannot be read, or the URL not be fetched.
    """
    if not uri:
        raise ValueError("the document has no uri to load")
    scheme = uri[:8].lower()
    if scheme.startswith("data:"):
        from casdk._rust import decode_data_uri

        return decode_data_uri(uri)[1]
    if scheme.startswith(("http://", "https://")):
        return _download(uri, timeout)
    if scheme.startswith("file:"):
        return Path(url2pathname(urlsplit(uri).path)).read_bytes()
    return Path(os.path.expanduser(uri)).read_bytes()


def _download(url: str, timeout: float) -> bytes:
    import httpx

    try:
        answer = httpx.get(url, timeout=timeout, follow_redirects=True, headers={"user-agent": "casdk"})
        answer.raise_for_status()
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is no URL: {error}") from error
    except httpx.HTTPStatusError as error:
        raise ConnectionError(f"{url} could not be fetched: HTTP {error.response.status_code}") from error
    except httpx.TimeoutException as error:
        raise TimeoutError(f"{url} could not be fetched: silent for {timeout:g} s") from error
    except httpx.HTTPError as error:
        raise ConnectionError(f"{url} could not be fetched: {error}") from error
    return answer.content


def read_pixels(data: bytes, width: int | None, height: int | None) -> NDArray[Any]:
    """Return the pixels ``[H, W, 3]`` uint8 of an image file's bytes.

    Raises:
        ImportError: Pillow is missing.
        ValueError: These bytes are no image that Pillow can read.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImportError(MISSING, name="PIL") from error
    try:
        with Image.open(BytesIO(data)) as image:
            pixels = image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"these {len(data)} bytes are no image that Pillow can read: {error}") from error
    if width or height:
        pixels = pixels.resize((width or pixels.width, height or pixels.height))
    return np.array(pixels, dtype=np.uint8)
