"""The fault server, which speaks six schemes in one process and fails as its script says."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, TypeAlias

import msgspec

from casdk._transport.address import SCHEMES as ROWS
from casdk.testing._connection import Connection, Family, Incoming
from casdk.testing._grpc import GrpcConnection
from casdk.testing._http import HttpConnection
from casdk.testing._thread import LoopThread, listen, reserve
from casdk.testing._websocket import WebsocketConnection
from casdk.testing.certificates import Certificate, authority, server_context
from casdk.testing.connections import ConnectionFault, Manner
from casdk.testing.executor import Executor
from casdk.testing.scripts import Fault, Request, Rules, planner
from casdk.wire import jina_pb2

__all__ = ["SCHEMES", "Counters", "FaultServer"]

CONNECTIONS: Final[dict[str, type[Connection]]] = {
    "grpc": GrpcConnection,
    "http": HttpConnection,
    "websocket": WebsocketConnection,
}
"""The class of the connections of each kind of channel."""
SCHEMES: Final = tuple(ROWS)
"""The schemes that it speaks."""

ConnectionRules: TypeAlias = (
    "ConnectionFault | Sequence[ConnectionFault | None] | Callable[[int, str], ConnectionFault | None] | None"
)
"""A fault for every connection, one per connection from the first, or a function of its number and scheme."""


class Counters(msgspec.Struct, kw_only=True):
    """What a server has seen so far.

    Attributes:
        accepted: Connections accepted by TCP.
        connected: Those of them that got as far as their protocol, after TLS.
        open: Connections open now.
        most_open: The most connections that were open at once.
        handshakes_failed: TLS handshakes that failed.
        requests: Requests read.
        running: Requests that are neither answered nor cancelled.
        most_running: The most requests that were running at once.
        documents: Documents in all requests.
        replies: Complete replies sent.
        taken_back: gRPC streams reset by the client.
        by_scheme: Requests of each scheme.
    """

    accepted: int = 0
    connected: int = 0
    open: int = 0
    most_open: int = 0
    handshakes_failed: int = 0
    requests: int = 0
    running: int = 0
    most_running: int = 0
    documents: int = 0
    replies: int = 0
    taken_back: int = 0
    by_scheme: dict[str, int] = msgspec.field(default_factory=dict)


class FaultServer:
    """A CLIP server in this process, on a thread of its own, that fails on purpose.

    It is a context manager, and listens on a free port of the loopback for each scheme. Its rows are those of
    `embed`, so what a client returns can be compared exactly.

    Args:
        script: What happens to requests; see `play`.
        connections: Faults of the connections, from the first.
        width: Numbers in an embedding.
        poison: Texts on which the executor fails, or a function that returns whether it fails on a text.
        token: The ``authorization`` that every request must have; ``None`` accepts all requests.
        certificate: Certificate of the secure schemes; by default one for this machine of `certificates.authority`.
        client_ca: PEM of the authority that must have signed the clients' certificates (mTLS).
        maximum_version: Newest TLS version offered.
        unary: Whether gRPC serves the unary call beside the stream; jina before 3.10 did not.
        history: How many of the latest requests `requests` keeps.
        unready: The fault that a dry run reports; ``""`` if the flow is ready, ``None`` if there is no dry run.

    Attributes:
        executor: The executor; ``executor.poison`` may be replaced.
        requests: The requests that were read, in order.
        ca: PEM of the authority of the default certificate, for ``TLS(ca=server.ca)``.
        token: As passed; may be replaced at any time.
        unready: As passed; may be replaced at any time.

    Examples:
        >>> from casdk import Client
        >>> from casdk.testing import FaultServer, Refuse
        >>> with FaultServer(script=[Refuse.unavailable()]) as server:
        ...     with Client(server.address("http")) as client:
        ...         client.encode(["a", "b"]).shape, server.counters.requests
        ((2, 512), 2)
    """

    def __init__(
        self,
        script: Rules = None,
        *,
        connections: ConnectionRules = None,
        width: int = 512,
        poison: Collection[str] | Callable[[str], bool] | None = None,
        token: str | None = None,
        certificate: Certificate | None = None,
        client_ca: bytes | None = None,
        maximum_version: ssl.TLSVersion | None = None,
        unary: bool = True,
        history: int = 100_000,
        unready: str | None = "",
    ) -> None:
        self.executor: Final = Executor(width, _predicate(poison))
        self.requests: collections.deque[Request] = collections.deque(maxlen=history)
        self.token = token
        self.unready = unready
        self.unary: Final = unary
        self.ca: Final[bytes] = authority().pem
        self.pens: Final[dict[object, list[asyncio.Future[None]]]] = {}
        self._plan = planner(script)
        self._connection_plan = _connection_planner(connections)
        self._certificate = certificate or authority().server()
        self._client_ca = client_ca
        self._maximum_version = maximum_version
        self._counters = Counters()
        self._changed = threading.Condition()
        self._numbers = 0
        self._ports: dict[str, int] = {}
        self._living: set[Connection] = set()
        self._opening: dict[asyncio.Task[None], socket.socket] = {}
        self._listeners: list[socket.socket] = []
        self._contexts: dict[Family, ssl.SSLContext] = {}
        self._thread: LoopThread | None = None

    # start and end

    def start(self) -> FaultServer:
        """Listen on every scheme."""
        if self._thread is None:
            self._thread = LoopThread("casdk-fault-server")
            self._thread.run(self._listen())
        return self

    def stop(self) -> None:
        """Reset every connection and end the server.

        Raises:
            BaseException: An error of the server itself that no code has caught.
        """
        if self._thread is not None:
            self._thread.run(self._hang_up("reset", True))
            try:
                self._thread.stop()
            finally:
                self._thread = None

    def down(self, how: Manner = "reset") -> None:
        """Stop listening and end every connection; the ports stay reserved for `up`."""
        self._running.run(self._hang_up(how, True))

    def up(self) -> None:
        """Listen again, on the same ports."""
        self._running.run(self._listen())

    def restart(self, how: Manner = "reset") -> None:
        """Call `down`, and at once `up`."""
        self._running.run(self._restart(how))

    def disconnect(self, how: Manner = "reset") -> None:
        """End every connection, and continue to listen."""
        self._running.run(self._hang_up(how, False))

    def __enter__(self) -> FaultServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _running(self) -> LoopThread:
        if self._thread is None:
            raise RuntimeError("the server does not run: use it as a context manager, or start() it")
        return self._thread

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for scheme in ROWS:
            if scheme not in self._ports and sys.platform == "linux":
                # While the server is down, another program's connection must not be given the port for its own end.
                reserved = reserve()
                self._running.sockets.add(reserved)
                self._ports[scheme] = reserved.getsockname()[1]
            sock = listen(port=self._ports.get(scheme, 0))
            self._running.sockets.add(sock)
            self._ports[scheme] = sock.getsockname()[1]
            self._listeners.append(sock)
            loop.add_reader(sock, self._accept, scheme, sock)

    async def _hang_up(self, how: Manner, listeners: bool) -> None:
        if listeners:
            closing, self._listeners = self._listeners, []
            for sock in closing:
                asyncio.get_running_loop().remove_reader(sock)
                self._forget(sock)
        for connection in tuple(self._living):
            connection.cut(how)
        # A handshake ends when its socket is closed; asyncio would leak one that is cancelled.
        opening = tuple(self._opening.items())
        for _, sock in opening:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        if opening:
            await asyncio.wait([task for task, _ in opening], timeout=1)

    async def _restart(self, how: Manner) -> None:
        await self._hang_up(how, True)
        await self._listen()

    # what tests call

    def address(self, scheme: str, host: str = "127.0.0.1") -> str:
        """Return the address for a client, e.g. ``grpc://127.0.0.1:40123``.

        Args:
            scheme: One of `SCHEMES`.
            host: The name of this machine in the address.
        """
        return f"{scheme}://{host}:{self.port(scheme)}"

    def port(self, scheme: str) -> int:
        """Return the port of a scheme."""
        return self._ports[scheme]

    @property
    def counters(self) -> Counters:
        """A copy of what was counted so far."""
        with self._changed:
            return msgspec.structs.replace(self._counters, by_scheme=dict(self._counters.by_scheme))

    def wait_for(self, met: Callable[[Counters], bool], timeout: float = 10.0) -> Counters:
        """Wait until the counters fulfil a condition.

        Raises:
            TimeoutError: They did not in time; the message has the counters.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: met(self._counters), timeout):
                raise TimeoutError(f"not within {timeout:g} s: {self._counters}")
        return self.counters

    def play(self, script: Rules) -> None:
        """Use another script from now on.

        Args:
            script: A `Fault` for every request, a list of one plan (a fault, a tuple of faults or ``None``) per request
                from now on, or a function from `Request` to a plan.
        """
        self._plan = planner(script)

    def play_connections(self, connections: ConnectionRules) -> None:
        """Use other faults of connections from now on."""
        self._connection_plan = _connection_planner(connections)

    # what connections call, on the server's thread

    def _accept(self, scheme: str, listener: socket.socket) -> None:
        # `sock_accept` would lose the connection that it has just accepted if it is cancelled at that moment.
        try:
            sock, _ = listener.accept()
        except OSError:
            return  # the client was faster
        sock.setblocking(False)
        # asyncio sets this only for sockets that name their protocol, which accepted ones do not.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._changed:
            number = self._counters.accepted
            self._counters.accepted += 1
            self._changed.notify_all()
        self._running.sockets.add(sock)
        task = self._running.loop.create_task(self._open(scheme, sock, number))
        self._opening[task] = sock
        task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[None]) -> None:
        sock = self._opening.pop(task)
        if task.cancelled():
            self._forget(sock)
        elif (error := task.exception()) is not None:
            self.failed(error)

    async def _open(self, scheme: str, sock: socket.socket, number: int) -> None:
        row = ROWS[scheme]
        kind = CONNECTIONS[row.channel]
        context = self._context(kind) if row.tls else None
        fault = self._connection_plan(number, scheme)
        loop = asyncio.get_running_loop()
        try:
            if fault is not None and await fault.accept(Incoming(sock, context)):
                self._forget(sock)
                return
            await loop.connect_accepted_socket(lambda: kind(self, scheme, number, sock, fault), sock, ssl=context)
        except (OSError, ssl.SSLError):
            with self._changed:
                self._counters.handshakes_failed += 1
                self._changed.notify_all()
            self._forget(sock)

    def _context(self, kind: type[Connection]) -> ssl.SSLContext:
        context = self._contexts.get(kind.family)
        if context is None:
            context = server_context(self._certificate, kind.alpn, self._client_ca, self._maximum_version)
            self._contexts[kind.family] = context
        return context

    def _forget(self, sock: socket.socket) -> None:
        sock.close()
        self._running_sockets().discard(sock)

    def _running_sockets(self) -> set[socket.socket]:
        return set() if self._thread is None else self._thread.sockets

    def connected(self, connection: Connection) -> None:
        """Note that a connection begins to speak its protocol."""
        self._living.add(connection)
        with self._changed:
            counters = self._counters
            counters.connected += 1
            counters.open += 1
            counters.most_open = max(counters.most_open, counters.open)
            self._changed.notify_all()

    def disconnected(self, connection: Connection, sock: socket.socket) -> None:
        """Note that a connection ended."""
        self._living.discard(connection)
        self._running_sockets().discard(sock)
        with self._changed:
            self._counters.open -= 1
            self._changed.notify_all()

    def arrived(
        self, connection: Connection, message: jina_pb2.DataRequestProto, headers: Mapping[str, str], size: int
    ) -> tuple[Request, tuple[Fault, ...]]:
        """Note that a request was read; return it as scripts see it, with its faults."""
        docs = message.data.docs.docs
        request = Request(
            self._numbers,
            connection.number,
            connection.scheme,
            message.header.request_id,
            message.header.exec_endpoint,
            headers,
            tuple(document.text for document in docs),
            size,
        )
        self._numbers += 1
        plan = tuple(self._plan(request))
        with self._changed:
            counters = self._counters
            counters.requests += 1
            counters.running += 1
            counters.most_running = max(counters.most_running, counters.running)
            counters.documents += len(docs)
            counters.by_scheme[request.scheme] = counters.by_scheme.get(request.scheme, 0) + 1
            self.requests.append(request)
            self._changed.notify_all()
        return request, plan

    def replied(self, request: Request) -> None:
        """Note that a complete reply was sent."""
        with self._changed:
            self._counters.replies += 1
            self._changed.notify_all()

    def finished(self, request: Request) -> None:
        """Note that a request is over, whether it was answered or not."""
        with self._changed:
            self._counters.running -= 1
            self._changed.notify_all()

    def taken_back(self, connection: Connection) -> None:
        """Note that a client reset a stream."""
        with self._changed:
            self._counters.taken_back += 1
            self._changed.notify_all()

    def failed(self, error: BaseException) -> None:
        """Note an exception of the server itself, or of a script."""
        if not isinstance(error, OSError):
            self._running.errors.append(error)

    def dry_run(self) -> jina_pb2.StatusProto:
        """Return whether the flow is ready, as jina's gateway does: in a status, and not by an exception."""
        status = jina_pb2.StatusProto()
        if self.unready:
            status.code = jina_pb2.StatusProto.ERROR
            status.description = self.unready
        return status

    def admits(self, request: Request) -> bool:
        """Whether a request carries the right credential."""
        return self.admits_token(request.authorization)

    def admits_token(self, token: str | None) -> bool:
        """Whether a credential is the right one."""
        return self.token is None or token == self.token


def _predicate(poison: Collection[str] | Callable[[str], bool] | None) -> Callable[[str], bool] | None:
    if poison is None or callable(poison):
        return poison
    texts = frozenset(poison)
    return texts.__contains__


def _connection_planner(rules: ConnectionRules) -> Callable[[int, str], Any]:
    if rules is None:
        return lambda number, scheme: None
    if isinstance(rules, ConnectionFault):
        return lambda number, scheme: rules
    if callable(rules):
        return rules
    left = iter(rules)
    return lambda number, scheme: next(left, None)
