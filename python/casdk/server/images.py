"""The image a document holds: decoded, and refused when it is too large."""

from __future__ import annotations

import io
from urllib.parse import urlsplit

import httpx
import numpy as np
from PIL import Image, UnidentifiedImageError

from casdk._downloads import HEADERS, fetch
from casdk.server.documents import array_of
from casdk.server.wire.docarray_pb2 import DocumentProto

__all__ = ["ImageReader"]

CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
REDIRECTS = 5
SHOWN_CHARACTERS = 200
"""Characters of a URI that an error repeats."""


class ImageReader:
    """Reads images out of documents; safe to use from several threads.

    Args:
        max_pixels: Largest image, in pixels; the header alone decides.
        max_bytes: Largest image fetched from a URL.
        fetch: Whether to fetch ``http`` and ``https`` URIs on a client's behalf. A data URI is read in any case,
            a local path never.
    """

    def __init__(self, max_pixels: int, max_bytes: int, *, fetch: bool = False) -> None:
        self.max_pixels = max_pixels
        self.max_bytes = max_bytes
        self._http = _http_client() if fetch else None

    def read(self, name: str, document: DocumentProto) -> Image.Image:
        """Return the image of a document that has a blob, a tensor or a uri.

        Raises:
            ValueError: There is no image in it, or one that is too large; the message begins with ``name``.
        """
        try:
            if document.WhichOneof("content") == "tensor":
                return self._from_tensor(document)
            return self._decode(document.blob or self._load(document.uri))
        except (ValueError, OSError, SyntaxError, httpx.HTTPError) as error:
            raise ValueError(f"{name}: {error}") from error

    def close(self) -> None:
        """Close the connections to where images were fetched from."""
        if self._http is not None:
            self._http.close()

    def _decode(self, data: bytes) -> Image.Image:
        try:
            image = Image.open(io.BytesIO(data))
        except UnidentifiedImageError:
            raise ValueError(f"the {len(data)} bytes are no image that Pillow knows") from None
        except Image.DecompressionBombError as error:
            raise ValueError(str(error)) from None
        self._check(image.width, image.height)
        image.load()
        return image

    def _from_tensor(self, document: DocumentProto) -> Image.Image:
        array = array_of(document.tensor)
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[:, :, 0]
        if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
            raise ValueError(f"a tensor of shape {array.shape} is no image; it must be [H, W], [H, W, 3] or [H, W, 4]")
        self._check(array.shape[1], array.shape[0])
        if array.size == 0:
            raise ValueError(f"a tensor of shape {array.shape} has no pixels")
        if array.dtype != np.uint8:
            if not (array.min() >= 0 and array.max() <= 255):
                raise ValueError(f"a tensor of dtype {array.dtype} has values outside 0..255")
            array = array.astype(np.uint8)
        return Image.fromarray(array)

    def _check(self, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            raise ValueError(f"an image of {width} x {height} pixels exceeds the limit of {self.max_pixels} pixels")

    def _load(self, uri: str) -> bytes:
        scheme = urlsplit(uri).scheme.lower()
        if scheme == "data":
            return _data_uri(uri)
        if scheme not in ("http", "https"):
            raise ValueError("has only a uri, and this server reads no files; send the bytes")
        if self._http is None:
            raise ValueError("has only a uri, and this server fetches none (--fetch-uris); send the bytes")
        return self._fetch(self._http, uri)

    def _fetch(self, http: httpx.Client, uri: str) -> bytes:
        try:
            return fetch(http, uri, self.max_bytes, REDIRECTS)
        except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
            raise ValueError(f"{uri[:SHOWN_CHARACTERS]!r} was not fetched: {error}") from error


def _http_client() -> httpx.Client:
    timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    return httpx.Client(timeout=timeout, headers=HEADERS)


def _data_uri(uri: str) -> bytes:
    from base64 import b64decode
    from urllib.parse import unquote_to_bytes

    header, comma, payload = uri.partition(",")
    if not comma:
        raise ValueError("the data URI has no comma")
    data = unquote_to_bytes(payload)
    return b64decode(data, validate=True) if header.lower().endswith(";base64") else data
