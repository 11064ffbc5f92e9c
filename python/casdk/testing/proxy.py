"""Proxies between a client and a server: one breaks connections, one speaks CONNECT, and one drops everything."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from itertools import cycle
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import h11
import msgspec

from casdk.testing._thread import LoopThread, end_socket, listen
from casdk.testing.connections import Manner

__all__ = ["BlackHole", "ConnectProxy", "ProxyCounters", "TcpProxy"]

PIECE_BYTES: Final = 65536
"""Bytes that are passed on at a time."""


class ProxyCounters(msgspec.Struct, kw_only=True):
    """What a proxy has seen so far.

    Attributes:
        accepted: Connections accepted.
        open: Connections open now.
        to_server: Bytes passed on towards the server.
        to_client: Bytes passed on towards the client.
    """

    accepted: int = 0
    open: int = 0
    to_server: int = 0
    to_client: int = 0


class _Proxy:
    """The base class of the proxies: a thread with a loop, a listening socket, and counters."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: LoopThread | None = None
        self._listener: socket.socket | None = None
        self._counters = ProxyCounters()
        self._changed = threading.Condition()
        self._clients: set[socket.socket] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._forgotten: set[socket.socket] = set()
        self.port: int = 0

    def start(self) -> Self:
        """Listen."""
        if self._thread is None:
            self._thread = LoopThread(self._name)
            self._thread.run(self._listen())
        return self

    def stop(self) -> None:
        """End every connection, and stop listening."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.run(self._end_listening())
            thread.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def counters(self) -> ProxyCounters:
        """A copy of what was counted so far."""
        with self._changed:
            return msgspec.structs.replace(self._counters)

    def wait_for(self, met: Callable[[ProxyCounters], bool], timeout: float = 10.0) -> ProxyCounters:
        """Wait until the counters fulfil a condition.

        Raises:
            TimeoutError: They did not in time; the message has the counters.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: met(self._counters), timeout):
                raise TimeoutError(f"not within {timeout:g} s: {self._counters}")
        return self.counters

    def _count(self, **changes: int) -> None:
        with self._changed:
            for name, change in changes.items():
                setattr(self._counters, name, getattr(self._counters, name) + change)
            self._changed.notify_all()

    async def _listen(self) -> None:
        assert self._thread is not None
        sock = listen(port=self.port)
        self._thread.sockets.add(sock)
        self._listener = sock
        self.port = int(sock.getsockname()[1])
        asyncio.get_running_loop().add_reader(sock, self._accept, sock, self._thread)

    async def _end_listening(self) -> None:
        """Stop accepting: a connection that is accepted while the loop ends would never be closed."""
        assert self._listener is not None
        asyncio.get_running_loop().remove_reader(self._listener)

    def _accept(self, listener: socket.socket, thread: LoopThread) -> None:
        # `sock_accept` would lose the connection that it has just accepted if it is cancelled at that moment.
        try:
            client, _ = listener.accept()
        except OSError:
            return  # the client was faster
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        thread.sockets.add(client)
        self._clients.add(client)
        self._count(accepted=1, open=1)
        task = asyncio.get_running_loop().create_task(self._attend(client, thread))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _attend(self, client: socket.socket, thread: LoopThread) -> None:
        try:
            with contextlib.suppress(OSError):
                await self._serve(client, thread)
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):
                thread.errors.append(error)
            raise
        finally:
            self._clients.discard(client)
            self._forgotten.discard(client)
            thread.sockets.discard(client)
            client.close()
            self._count(open=-1)

    async def _serve(self, client: socket.socket, thread: LoopThread) -> None:
        raise NotImplementedError

    async def _join(self, client: socket.socket, server: socket.socket) -> None:
        """Pass bytes on in both directions until both sides have ended, or one side fails."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(client, server, "to_server"))
                group.create_task(self._pass_on(server, client, "to_client"))
        except* OSError:
            end_socket(client, "reset")

    async def _pass_on(self, source: socket.socket, sink: socket.socket, direction: str) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(source, PIECE_BYTES):
            await self._before_passing(direction)
            if self._forgotten.isdisjoint((source, sink)):
                await loop.sock_sendall(sink, data)
                self._count(**{direction: len(data)})
        if self._forgotten.isdisjoint((source, sink)):
            end_socket(sink, "close")

    async def _before_passing(self, direction: str) -> None:
        return


class TcpProxy(_Proxy):
    """Passes TCP connections on to a server, until a test cuts or delays them.

    Args:
        port: The server's port.
        host: The server's host.

    Attributes:
        port: The proxy's own port.
        delay: Seconds that each piece waits, in both directions; may be changed at any time.

    Examples:
        >>> with FaultServer() as server, TcpProxy(server.port("grpc")) as proxy:  # doctest: +SKIP
        ...     client = Client(proxy.address("grpc"))
        ...     proxy.cut("reset")
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        super().__init__("casdk-tcp-proxy")
        self.delay: float = 0.0
        self._host = host
        self._ports = cycle([port])
        self._flows = asyncio.Event()
        self._flows.set()
        self._refusing = False

    def address(self, scheme: str, host: str = "127.0.0.1") -> str:
        """Return the address that a client uses instead of the server's."""
        return f"{scheme}://{host}:{self.port}"

    def cut(self, how: Manner = "reset") -> None:
        """End all connections; new ones are accepted."""
        if self._thread is not None:
            self._thread.run(self._cut(how))

    def blackhole(self) -> None:
        """Pass nothing on any more; connections stay open, and new ones are accepted."""
        self._post(self._flows.clear)

    def forget(self) -> None:
        """Drop all bytes of the present connections without ending them, as a NAT does that has lost its table.

        New connections are passed on.
        """
        self._post(lambda: self._forgotten.update(self._clients))

    def flow(self) -> None:
        """Pass bytes on again."""
        self._post(self._flows.set)

    def route(self, *ports: int) -> None:
        """Pass new connections on to these ports in turn, as a load balancer does; present ones are not moved."""
        self._ports = cycle(ports)

    def refuse(self, refusing: bool = True) -> None:
        """Reset every new connection at once, or stop doing so."""
        self._refusing = refusing

    def _post(self, action: Callable[[], None]) -> None:
        async def act() -> None:
            action()

        if self._thread is not None:
            self._thread.run(act())

    async def _cut(self, how: Manner) -> None:
        for client in tuple(self._clients):
            end_socket(client, how)
            if how == "half-close":
                continue
            self._clients.discard(client)
            # Ending the reading direction wakes the two tasks that pass bytes on, which then close the socket.
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RD)

    async def _serve(self, client: socket.socket, thread: LoopThread) -> None:
        if self._refusing:
            end_socket(client, "reset")
            return
        with _socket_on(thread) as server:
            try:
                await asyncio.get_running_loop().sock_connect(server, (self._host, next(self._ports)))
            except OSError:
                end_socket(client, "reset")
                raise
            await self._join(client, server)

    async def _before_passing(self, direction: str) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        await self._flows.wait()


class ConnectProxy(_Proxy):
    """An HTTP proxy that opens tunnels by CONNECT, and forwards plain requests to an absolute URL.

    Args:
        user: User that clients must name by basic authorization; by default they need none.
        password: The user's password.
        status: A status that every request is answered with, such as 403 or 502.
        silent: Whether it reads requests and never answers.

    Attributes:
        port: Its port.
        targets: ``host:port`` of each request, in order.
        authorizations: ``Proxy-Authorization`` of each request, or ``None``.
    """

    def __init__(
        self, user: str | None = None, password: str = "", *, status: int | None = None, silent: bool = False
    ) -> None:
        super().__init__("casdk-connect-proxy")
        self.targets: list[str] = []
        self.authorizations: list[str | None] = []
        self._status = status
        self._silent = silent
        self._user = user
        self._expected: str | None = None
        if user is not None:
            self._expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def url(self, userinfo: str = "") -> str:
        """Return the URL for a client's ``proxy=``.

        Args:
            userinfo: ``user:password``.
        """
        return f"http://{userinfo}{'@' if userinfo else ''}127.0.0.1:{self.port}"

    async def _serve(self, client: socket.socket, thread: LoopThread) -> None:
        loop = asyncio.get_running_loop()
        talk = h11.Connection(h11.SERVER)
        while True:
            request = await _next(talk, client, h11.Request)
            if request is None:
                return
            target, refused = self._judge(request)
            if self._silent:
                await loop.create_future()
            if refused is not None:
                await _respond(talk, client, refused)
                return
            host, _, port = target.rpartition(":")
            with _socket_on(thread) as server:
                try:
                    await loop.sock_connect(server, (host.strip("[]"), int(port)))
                except OSError:
                    await _respond(talk, client, 502)
                    return
                if request.method == b"CONNECT":
                    await loop.sock_sendall(client, b"HTTP/1.1 200 Connection established\r\n\r\n")
                    await loop.sock_sendall(server, talk.trailing_data[0])
                    await self._join(client, server)
                    return
                if not await self._forward(request, talk, client, server):
                    return
            talk.start_next_cycle()

    def _judge(self, request: h11.Request) -> tuple[str, int | None]:
        headers = {bytes(name): bytes(value).decode("latin-1") for name, value in request.headers}
        credential = headers.get(b"proxy-authorization")
        asked = bytes(request.target).decode()
        target = asked if request.method == b"CONNECT" else urlsplit(asked).netloc
        self.targets.append(target)
        self.authorizations.append(credential)
        if self._expected is not None and credential != self._expected:
            return target, 407
        return target, self._status

    async def _forward(
        self, request: h11.Request, talk: h11.Connection, client: socket.socket, server: socket.socket
    ) -> bool:
        """Pass one plain request on, and its response back; return whether another request may follow."""
        loop = asyncio.get_running_loop()
        upstream = h11.Connection(h11.CLIENT)
        parts = urlsplit(bytes(request.target).decode())
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        headers = [(name, value) for name, value in request.headers if name != b"proxy-authorization"]
        await loop.sock_sendall(server, upstream.send(h11.Request(method=request.method, target=path, headers=headers)))
        for talker, listener, source, sink in ((talk, upstream, client, server), (upstream, talk, server, client)):
            while True:
                event = talker.next_event()
                if event is h11.NEED_DATA:
                    talker.receive_data(await loop.sock_recv(source, PIECE_BYTES))
                    continue
                if isinstance(event, h11.ConnectionClosed):
                    return False
                if isinstance(event, h11.Response | h11.Data | h11.EndOfMessage):
                    await loop.sock_sendall(sink, listener.send(event) or b"")
                if isinstance(event, h11.EndOfMessage):
                    break
        return talk.our_state is h11.DONE and talk.their_state is h11.DONE


@contextlib.contextmanager
def _socket_on(thread: LoopThread) -> Iterator[socket.socket]:
    """Yield a socket for a connection to a server; it is always closed, even if connecting fails."""
    with socket.socket() as server:
        server.setblocking(False)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        thread.sockets.add(server)
        try:
            yield server
        finally:
            thread.sockets.discard(server)


async def _next(talk: h11.Connection, sock: socket.socket, kind: type[h11.Request]) -> h11.Request | None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            event = talk.next_event()
        except h11.RemoteProtocolError:
            return None
        if event is h11.NEED_DATA:
            talk.receive_data(await loop.sock_recv(sock, PIECE_BYTES))
        elif isinstance(event, kind):
            return event
        else:
            return None


async def _respond(talk: h11.Connection, sock: socket.socket, status: int) -> None:
    headers = [("content-length", "0"), ("connection", "close")]
    if status == 407:
        headers.append(("proxy-authenticate", 'Basic realm="casdk testing"'))
    head = talk.send(h11.Response(status_code=status, headers=headers)) or b""
    await asyncio.get_running_loop().sock_sendall(sock, head + (talk.send(h11.EndOfMessage()) or b""))
    # The client of a CONNECT may wait for the end of the connection before it reports the refusal.
    end_socket(sock, "close")


class BlackHole:
    """A port that drops SYNs, so connecting to it hangs, as to a host behind a firewall that drops packets.

    Its queue of connections is full, and it accepts none.

    Args:
        host: Its address on this machine: on Linux, any of 127.0.0.0/8.
        port: Its port; 0 takes a free one.

    Attributes:
        host: Its address.
        port: Its port.

    Raises:
        RuntimeError: This system does not drop SYNs for a full queue (Linux does).
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host: Final = host
        self._listener = socket.create_server((host, port), backlog=0)
        self.port: int = self._listener.getsockname()[1]
        self._queued: list[socket.socket] = []
        for _ in range(16):
            sock = socket.socket()
            sock.settimeout(0.1)
            self._queued.append(sock)
            try:
                sock.connect((host, self.port))
            except TimeoutError:
                return
        self.close()
        raise RuntimeError("this system accepts connections beyond a listener's queue")

    def address(self, scheme: str) -> str:
        """Return its address for a client."""
        return f"{scheme}://{self.host}:{self.port}"

    def close(self) -> None:
        """Close the port."""
        for sock in (*self._queued, self._listener):
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
