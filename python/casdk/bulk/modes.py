"""How a run waits: on a thread or on an event loop. This is the one place where the two APIs of bulk runs differ.

`Run` calls the methods of a `Mode` for everything that takes time. `OnThread` never suspends the coroutine, so
`Run.run` can drive it with a single ``send``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from casdk.bulk.sources import AsyncSource, Block

if TYPE_CHECKING:
    from casdk.client import Client
    from casdk.models import EncodeResult

__all__ = ["Mode", "OnLoop", "OnThread"]

T = TypeVar("T")


class Mode(Protocol):
    """The steps of a run that wait, on a thread or on an event loop.

    Attributes:
        burst: Number of pieces that are written at a time.
    """

    burst: int

    def stream(self, items: Any, options: dict[str, Any]) -> Any:
        """Return the pieces of a stream of items."""
        ...

    async def next(self, pieces: Any) -> EncodeResult | None:
        """Wait for the next piece; ``None`` after the last."""
        ...

    async def close(self, pieces: Any) -> None:
        """Cancel the requests that a stream has in flight."""
        ...

    async def take(self, source: Any, most: int) -> Block:
        """Take at most so many items of a source."""
        ...

    async def encode(self, items: list[Any], options: dict[str, Any]) -> Any:
        """Encode a few items."""
        ...

    async def space(self, model_name: str | None, options: dict[str, Any]) -> str:
        """Ask the server for its vector space."""
        ...

    async def do(self, step: Callable[..., T], *arguments: Any) -> T:
        """Run a step that waits for the disk, and return its result."""
        ...


class OnThread:
    """The mode of the sync API: each method blocks the thread and never suspends the coroutine."""

    burst: int = 1

    def __init__(self, client: Client) -> None:
        self._client = client

    def stream(self, items: Any, options: dict[str, Any]) -> Any:
        return self._client.stream(items, errors="return", **options)

    async def next(self, pieces: Any) -> EncodeResult | None:
        return cast("EncodeResult | None", next(pieces, None))

    async def close(self, pieces: Any) -> None:
        pieces.close()

    async def take(self, source: Any, most: int) -> Block:
        return cast(Block, source.take(most))

    async def encode(self, items: list[Any], options: dict[str, Any]) -> Any:
        return self._client.encode(items, **options)

    async def space(self, model_name: str | None, options: dict[str, Any]) -> str:
        return self._client.space(model_name, **options)

    async def do(self, step: Callable[..., T], *arguments: Any) -> T:
        return step(*arguments)


class OnLoop:
    """The mode of the async API: the stream is awaited, and a worker thread waits for the disk."""

    burst: int = 16

    def __init__(self, client: Client) -> None:
        self._client = client

    def stream(self, items: Any, options: dict[str, Any]) -> Any:
        return self._client.astream(items, errors="return", **options)

    async def next(self, pieces: Any) -> EncodeResult | None:
        return cast("EncodeResult | None", await anext(pieces, None))

    async def close(self, pieces: Any) -> None:
        await pieces.aclose()

    async def take(self, source: Any, most: int) -> Block:
        await asyncio.sleep(0)
        taken = source.take(most)
        return cast(Block, await taken if isinstance(source, AsyncSource) else taken)

    async def encode(self, items: list[Any], options: dict[str, Any]) -> Any:
        return await self._client.aencode(items, **options)

    async def space(self, model_name: str | None, options: dict[str, Any]) -> str:
        return await self._client.aspace(model_name, **options)

    async def do(self, step: Callable[..., T], *arguments: Any) -> T:
        running = asyncio.ensure_future(asyncio.to_thread(step, *arguments))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            # A step that writes is not interrupted in the middle.
            await asyncio.wait([running])
            raise
