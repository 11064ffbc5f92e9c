"""Downloads the images behind the URIs of documents, if the server was started with ``--fetch-uris``."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time

from casdk._transport.downloads import Downloads
from casdk.config import Limits, Timeouts

__all__ = ["REQUEST_SECONDS", "Fetcher"]

REQUEST_SECONDS = 60.0
"""For all URIs of one request together, so that a host that answers slowly does not keep a thread from others."""


class Fetcher:
    """Downloads images for the threads that encode; the downloads run on the server's loop, as those of a client do.

    Args:
        max_bytes: Largest image.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._loop = asyncio.get_running_loop()
        self._downloads = Downloads(Timeouts(), Limits(max_item_bytes=max_bytes))
        self._under_way: set[asyncio.Task[bytes]] = set()
        self._closed = False

    def fetch(self, uri: str, until: float) -> bytes:
        """Return the image behind a URI; called by a thread that is not the loop's.

        Args:
            uri: The URI.
            until: When to give up, by ``time.monotonic()``.

        Raises:
            OSError: It cannot be downloaded, or not in time (TimeoutError).
            ValueError: It is too large.
        """
        seconds = until - time.monotonic()
        try:
            return asyncio.run_coroutine_threadsafe(self._fetch(uri, seconds), self._loop).result()
        except concurrent.futures.CancelledError:
            raise OSError("the server is shutting down") from None

    async def _fetch(self, uri: str, seconds: float) -> bytes:
        task = asyncio.ensure_future(self._get(uri))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        if self._closed:
            task.cancel()
        try:
            async with asyncio.timeout(seconds):
                return await task
        except TimeoutError as error:
            raise TimeoutError(str(error) or f"the {REQUEST_SECONDS:g} s of a request for its URIs are over") from None

    async def _get(self, uri: str) -> bytes:
        fetched, failed = await self._downloads.fetch([uri])
        error = failed.get(uri)
        if isinstance(error, ValueError):  # which names the option of a client
            raise ValueError(f"what is there exceeds the limit of {self._max_bytes} bytes")
        if error is not None:
            raise error
        return fetched[uri]

    async def aclose(self) -> None:
        """Cancel the downloads under way, and close the connections."""
        self._closed = True
        for task in self._under_way:
            task.cancel()
        await self._downloads.aclose()
