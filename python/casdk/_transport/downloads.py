"""Downloads of images behind http(s) URLs, by httpx: concurrent, over pooled connections, within limits.

A session has one `Downloads`. The headers that are sent, and the checks of answers, are in `casdk.documents.fetching`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from casdk._engine.logging import divert
from casdk.config import Limits, Timeouts
from casdk.documents.fetching import HEADERS, redirected

if TYPE_CHECKING:
    import httpx

__all__ = ["Downloads"]

DOWNLOADS_AT_ONCE: Final = 16
"""The most downloads at a time, over all calls of a client."""
PIECES_IN_A_TURN: Final = 64
"""Pieces of a body that are read in one turn of the loop."""


class Downloads:
    """A pool of connections to image hosts.

    Args:
        timeouts: Its ``connect`` and ``download`` are used.
        limits: Its ``max_item_bytes`` and ``redirects`` are used.
    """

    def __init__(self, timeouts: Timeouts, limits: Limits) -> None:
        self._timeouts = timeouts
        self._limits = limits
        self._client: httpx.AsyncClient | None = None
        self._making = asyncio.Lock()
        self._slots = asyncio.Semaphore(DOWNLOADS_AT_ONCE)

    async def fetch(self, urls: Sequence[str]) -> tuple[dict[str, bytes], dict[str, Exception]]:
        """Return the bytes of each URL that could be fetched, and the error of each other URL."""
        if self._client is None:
            async with self._making:
                if self._client is None:  # made on a worker, since it takes long enough to delay all calls
                    self._client = await asyncio.get_running_loop().run_in_executor(None, self._make)
        results = await asyncio.gather(*(self._fetch_one(url) for url in urls), return_exceptions=True)
        fetched: dict[str, bytes] = {}
        failed: dict[str, Exception] = {}
        for url, result in zip(urls, results, strict=True):
            if isinstance(result, bytes):
                fetched[url] = result
            elif isinstance(result, Exception):
                failed[url] = result
            else:
                raise result
        return fetched, failed

    async def _fetch_one(self, url: str) -> bytes:
        async with self._slots:
            try:
                async with asyncio.timeout(self._timeouts.download):
                    return await self._get(url)
            except TimeoutError:
                raise TimeoutError(f"not there within {self._timeouts.download:g} s") from None

    async def _get(self, url: str) -> bytes:
        client = self._client
        if client is None:  # it was closed meanwhile, for a fork
            client = self._client = self._make()
        most = self._limits.max_item_bytes
        request: httpx.Request | None = client.build_request("GET", url)
        followed = 0
        body = bytearray()
        while request is not None:
            response = await client.send(request, stream=True, follow_redirects=False)
            async with contextlib.aclosing(response):
                request = redirected(response, followed, self._limits.redirects)
                followed += 1
                if request is None:
                    pieces = 0
                    async for piece in response.aiter_raw():
                        body += piece
                        pieces += 1
                        if pieces % PIECES_IN_A_TURN == 0:  # a server that sends a byte at a time would block the loop
                            await asyncio.sleep(0)
                        if len(body) > most:
                            raise ValueError(f"larger than Limits.max_item_bytes ({most})")
        return bytes(body)

    def _make(self) -> httpx.AsyncClient:
        from http.cookiejar import CookieJar

        import httpx

        class NoCookies(CookieJar):
            """Stores no cookies: they would live as long as the client, and be sent for other calls."""

            def extract_cookies(self, response: object, request: object) -> None:
                pass

        client = httpx.AsyncClient(
            timeout=httpx.Timeout(self._timeouts.download, connect=self._timeouts.connect),
            limits=httpx.Limits(max_connections=DOWNLOADS_AT_ONCE, max_keepalive_connections=DOWNLOADS_AT_ONCE),
            headers=HEADERS,
            cookies=NoCookies(),
        )
        divert("httpx", "httpcore")  # after the client is made, since that imports httpcore
        return client

    async def aclose(self) -> None:
        """Close the pool."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
