"""Runs that are stopped when a certain request comes to the server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from casdk import Client
from casdk.bulk import BulkResult
from casdk.bulk.call import make_run
from casdk.bulk.run import Run
from casdk.testing import FaultServer, Request


class StoppedRuns:
    """Runs with a server of their own, each of which may be asked to stop by `SystemExit` when a request comes.

    Attributes:
        server: The server.
        client: Its client.
    """

    server: FaultServer
    client: Client

    def __init__(self) -> None:
        self._run: Run
        self._left = 0
        self._text: str | None = None

    @contextmanager
    def served(self, width: int) -> Iterator[Self]:
        """Run the server, whose rows have so many numbers."""
        with FaultServer(self, width=width) as self.server, Client(self.server.address("grpc")) as self.client:
            yield self

    def __call__(self, request: Request) -> None:
        """Stop the run if this is the request that it is to be stopped at."""
        self._left -= 1
        if not self._left or self._text in request.texts:
            self._run.stop(SystemExit(7))

    def run(
        self,
        target: Any,
        content: Any,
        options: Mapping[str, Any],
        *,
        requests: int = 0,
        text: str | None = None,
        mode: str = "sync",
    ) -> BulkResult:
        """Make a run.

        Args:
            target: The target.
            content: The items.
            options: The options of ``encode_to``.
            requests: The run is stopped at the last of so many requests; 0 for never.
            text: The run is stopped at the first request with this text.
            mode: Whether the sync or the async API makes it.
        """
        self._run = make_run(self.client, target, content, options)
        self._left, self._text = requests, text
        return self._run.run() if mode == "sync" else asyncio.run(self._run.arun())
