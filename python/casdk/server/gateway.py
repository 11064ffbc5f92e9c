"""The whole server: it makes the executors and the dispatcher, opens every port, and drains them at the end.

``python -m casdk.server`` runs a `Gateway`; tests run one in their own process.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from casdk._transport.address import SCHEMES
from casdk.server.access import Access
from casdk.server.dispatch import Dispatcher
from casdk.server.encoders import load
from casdk.server.executors import EncodeExecutor, Executor, IndexExecutor
from casdk.server.fetching import Fetcher
from casdk.server.images import ImageReader
from casdk.server.index import Index
from casdk.server.listeners import BACKLOG, HttpProtocol, Listener, SocketProtocol
from casdk.server.memory import Memory, Pressure
from casdk.server.rpc import RpcServer
from casdk.server.settings import Settings
from casdk.server.sockets import SocketApp
from casdk.server.web import WebApp

__all__ = ["Gateway", "Ready"]


@dataclass(frozen=True, slots=True)
class Ready:
    """The addresses and files of a running server.

    Attributes:
        addresses: Address of each scheme.
        ca: PEM file to trust for the secure schemes, if there are any.
        scratch: Directory that the server removes at its end; everything that a killed server leaves is in it.
    """

    addresses: dict[str, str]
    ca: Path | None
    scratch: Path


class Gateway:
    """Serves until it is asked to stop, on the running loop.

    Args:
        settings: What to serve.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._closing = asyncio.Event()
        self._resources = AsyncExitStack()

    def stop(self) -> None:
        """Begin to drain; `run` returns when it is done."""
        self._closing.set()

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Ready]:
        """Serve inside the ``async with``; leaving it drains.

        Raises:
            OSError: A port is taken.
            ValueError: The encoder, the certificate or the workspace cannot be used.
        """
        async with self._resources:
            scratch = Path(tempfile.mkdtemp(prefix="casdk-server-"))
            self._resources.callback(shutil.rmtree, scratch)
            dispatcher = self._dispatcher(scratch)
            tls = self._tls(scratch)
            listeners = _Listeners(self._settings, dispatcher, tls, self._closing)
            try:
                addresses = await listeners.open()
                yield Ready(addresses, tls[0] if tls else None, scratch)
            finally:
                self._closing.set()
                await listeners.close()

    async def stopped(self) -> None:
        """Wait for `stop`."""
        await self._closing.wait()

    def _dispatcher(self, scratch: Path) -> Dispatcher:
        settings = self._settings
        encoder = load(settings.encoder)
        workers = ThreadPoolExecutor(settings.threads, "casdk-encode")
        self._resources.push_async_callback(_end, workers)
        fetcher = Fetcher(settings.message_bytes) if settings.fetch_uris else None
        if fetcher is not None:
            self._resources.push_async_callback(fetcher.aclose)
        images = ImageReader(settings.max_pixels, Memory(settings.image_memory, "decoding images"), fetcher)
        executors: list[Executor] = [
            EncodeExecutor(
                encoder, images, workers, threads=settings.threads, indexed=settings.index, chaos=settings.chaos
            )
        ]
        if settings.index:
            workspace = settings.workspace or scratch
            indexer = IndexExecutor(Index(workspace, encoder.name, encoder.dim))
            self._resources.callback(indexer.close)
            executors.append(indexer)
        return Dispatcher(
            executors,
            workers,
            encoder.dim,
            Memory(settings.request_memory, "requests"),
            Memory(settings.reply_memory, "replies"),
            Memory(settings.little_memory, "small requests"),
        )

    def _tls(self, scratch: Path) -> tuple[Path, Path] | None:
        settings = self._settings
        if not any(SCHEMES[scheme].tls for scheme in settings.ports):
            return None
        from casdk.server.certificates import check_certificate, write_certificate

        if settings.cert is not None and settings.key is not None:
            check_certificate(settings.cert, settings.key)
            return settings.cert, settings.key
        return write_certificate(scratch, settings.host)


async def _end(workers: ThreadPoolExecutor) -> None:
    """Wait for the threads on another thread, because their work may be waiting for the loop."""
    await asyncio.to_thread(workers.shutdown, cancel_futures=True)


class _Listeners:
    """All ports of a server: it opens them, and drains and closes them at the end."""

    def __init__(
        self, settings: Settings, dispatcher: Dispatcher, tls: tuple[Path, Path] | None, closing: asyncio.Event
    ) -> None:
        access = Access(settings.token, settings.host, settings.allow_hosts)
        self._settings = settings
        self._tls = tls
        self._pressure = Pressure(settings.max_memory)
        self._rpc = RpcServer(dispatcher, access, settings.message_bytes, closing, self._pressure)
        self._web = WebApp(dispatcher, access, settings.message_bytes, self._pressure)
        self._socket = SocketApp(dispatcher, access, closing)
        self._serving: dict[Listener, asyncio.Task[None]] = {}
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> dict[str, str]:
        """Listen on every port and return the addresses."""
        ports = {scheme: self._bind(scheme, port) for scheme, port in self._settings.ports.items()}
        if any(SCHEMES[scheme].channel == "grpc" for scheme in ports):
            await self._rpc.start()
        for listener, serving in self._serving.items():
            ready = asyncio.ensure_future(listener.ready.wait())
            await asyncio.wait((ready, serving), return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                ready.cancel()
                await serving
            self._pressure.relieved_by(listener.turn_away)
        self._watching = asyncio.ensure_future(self._pressure.watch())
        return {scheme: f"{scheme}://{_authority(self._settings.host, port)}" for scheme, port in ports.items()}

    async def close(self) -> None:
        """Answer the requests that were received, within the grace, and close."""
        grace = self._settings.grace
        # uvicorn closes websockets at once, so their listeners have to wait until the connections are drained.
        for listener in self._serving:
            if listener.config.ws == "none":
                listener.stop()
        draining = asyncio.gather(self._rpc.stop(grace), self._socket.drained())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(draining, grace)
        for listener in self._serving:
            listener.stop()
        await asyncio.gather(*self._serving.values())
        if self._watching is not None:
            self._watching.cancel()

    def _bind(self, scheme: str, port: int) -> int:
        row = SCHEMES[scheme]
        tls = self._tls if row.tls else None
        host = self._settings.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            bound = socket.create_server((host, port), family=family, backlog=BACKLOG)
            if row.channel == "grpc":
                bound.close()  # grpc binds the port itself; this attempt only finds out why it could not
                return self._rpc.bind(_authority(host, port), tls)
        except (OSError, RuntimeError) as error:
            raise _no_listening(scheme, _authority(host, port), error) from None
        listener = Listener(self._config(scheme, tls), bound)
        self._serving[listener] = asyncio.ensure_future(listener.serve())
        return int(bound.getsockname()[1])

    def _config(self, scheme: str, tls: tuple[Path, Path] | None) -> uvicorn.Config:
        sockets = SCHEMES[scheme].channel == "websocket"
        config = uvicorn.Config(
            self._socket if sockets else self._web,
            lifespan="off",
            interface="asgi3",
            http=HttpProtocol,
            ws=SocketProtocol if sockets else "none",
            ws_max_size=self._settings.message_bytes,
            ws_per_message_deflate=False,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=max(1, round(self._settings.grace)),
        )
        if tls is not None:
            config.ssl_certfile, config.ssl_keyfile = tls
            config.ssl_version = ssl.PROTOCOL_TLS_SERVER
        return config


def _no_listening(scheme: str, authority: str, error: OSError | RuntimeError) -> OSError:
    reason = str(error)
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        reason = f"{os.strerror(errno.EADDRINUSE)} (--port {scheme}=PORT names another, --free-ports takes free ones)"
    return OSError(f"cannot listen on {authority} for {scheme}: {reason}")


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
