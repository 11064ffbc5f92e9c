"""One image behind an http(s) URL: the request that is made of a host, and what of its answer is accepted.

No host is believed: the body is taken as it comes, never decompressed, and counted while it arrives, and that of a
redirect is not read at all. httpx by itself would decompress both, whatever they grow to, before anybody could count.
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
    """Return the request that a redirect asks for, or None where the body of this response is the one to read.

    Raises:
        OSError: It is no success, one redirect too many, or compressed, which was not asked for.
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
    """Return what is behind a URL, on the thread that asks.

    Raises:
        OSError: The host does not answer with it as it is.
        ValueError: It is larger than ``max_bytes``.
        httpx.HTTPError: The host cannot be reached, or breaks off.
        httpx.InvalidURL: It is no URL.
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
