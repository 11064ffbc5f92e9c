"""Images behind http(s) URLs: fetched by the client, pooled and concurrent, within limits (httpx)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from casdk.config import Limits, Timeouts

if TYPE_CHECKING:
    import httpx

__all__ = ["Downloads"]

AT_ONCE: Final = 16
"""Downloads at once, over all calls of a client."""


class Downloads:
    """A pool of connections to image hosts.

    Args:
        timeouts: ``connect`` and ``download``.
        limits: ``max_item_bytes`` and ``redirects``.
    """

    def __init__(self, timeouts: Timeouts, limits: Limits) -> None:
        self._timeouts = timeouts
        self._limits = limits
        self._client: httpx.AsyncClient | None = None
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def fetch(self, urls: Sequence[str]) -> tuple[dict[str, bytes], dict[str, Exception]]:
        """Return the bytes of each URL that could be fetched, and what was wrong with each other one."""
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
        client = self._open()
        most = self._limits.max_item_bytes
        body = bytearray()
        async with client.stream("GET", url) as response:
            if response.status_code != 200:
                raise OSError(f"HTTP {response.status_code}")
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > most:
                    raise ValueError(f"larger than Limits.max_item_bytes ({most})")
        return bytes(body)

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            import httpx

            self._client = httpx.AsyncClient(
                follow_redirects=True,
                max_redirects=self._limits.redirects,
                timeout=httpx.Timeout(self._timeouts.download, connect=self._timeouts.connect),
                limits=httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE),
                headers={"user-agent": "casdk", "accept": "image/*"},
            )
        return self._client

    async def aclose(self) -> None:
        """Close the pool."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def forget(self) -> None:
        """Drop the pool: it belongs to the process this one was forked from."""
        self._client = None
        self._slots = asyncio.Semaphore(AT_ONCE)
