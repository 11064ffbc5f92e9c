"""Downloads one image behind an http(s) URL with limits; `loading.py` and `casdk._transport.downloads` use it.

Hosts are not trusted: a body is never decompressed, its bytes are counted while they arrive, and the body of a redirect
is not read. httpx by itself would decompress both without a limit.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from casdk._remarks import remark

if TYPE_CHECKING:
    import httpx

__all__ = ["HEADERS", "fetch", "redirected"]

HEADERS: Final = {"user-agent": "casdk", "accept": "image/*", "accept-encoding": "identity"}
SHOWN_CHARACTERS: Final = 60
"""Characters of a host's header that an error repeats."""


def redirected(response: httpx.Response, followed: int, most: int) -> httpx.Request | None:
    """Return the request that follows a redirect, or ``None`` if the body of this response is to be read.

    Raises:
        OSError: The status is an error, there were too many redirects, or the body is compressed.
    """
    if response.has_redirect_location:
        if followed == most:
            raise OSError(f"more than {most} redirects")
        return response.next_request
    if response.status_code != 200:
        raise OSError(f"HTTP {response.status_code}")
    encoding = response.headers.get("content-encoding", "")
    if encoding.strip().lower() not in ("", "identity"):
        raise OSError(f"sent with Content-Encoding {remark(encoding, SHOWN_CHARACTERS)!r}, which was not asked for")
    return None


def fetch(client: httpx.Client, url: str, max_bytes: int, redirects: int) -> bytes:
    """Return the bytes behind a URL, on the caller's thread.

    Raises:
        OSError: The host does not answer with an uncompressed body.
        ValueError: The body is larger than ``max_bytes``.
        httpx.HTTPError: The host cannot be reached, or the connection breaks.
        httpx.InvalidURL: The URL is not valid.
    """
    request: httpx.Request | None = client.build_request("GET", url)
    followed = 0
    body = bytearray()
    while request is not None:
        response = client.send(request, stream=True, follow_redirects=False)
        with contextlib.closing(response):
            request = redirected(response, followed, redirects)
            followed += 1
            if request is None:
                for piece in response.iter_raw():
                    body += piece
                    if len(body) > max_bytes:
                        raise ValueError(f"larger than {max_bytes} bytes")
    return bytes(body)
