"""http and https: one POST per request, on connections that are used again."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from casdk._rust import Message, first_id_of, http1_head
from casdk._transport.channels.base import LOG, TICK_SECONDS, Headers, Hidden, proxy_headers
from casdk._transport.channels.http1_connection import Answer, Connection
from casdk._transport.channels.inspection import MOST_CONNECTIONS, Check, ConnectionEndedError, ends_each
from casdk._transport.channels.options import DEFAULTS, ExchangeOptions
from casdk._transport.channels.pairing import HEADERS, IDLE_SECONDS, Asked, PairingChannel
from casdk._transport.channels.refusals import NO_SUCH_PATH, refusal_of
from casdk._transport.connecting import Connector
from casdk.errors import CasdkError, DeadlineError, TransportError

__all__ = ["CHANNEL"]


class HttpChannel(PairingChannel):
    """JSON bodies to ``/post``, on at most ``limits.connections`` connections, the last one used first.

    A server may close an idle connection at any time, even while the next request is on its way. So if a connection
    that was used before ends without a byte of an answer, a request that may be repeated is sent once more on a new
    one.
    """

    has_waiters = True

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        tls = self.endpoint.tls
        # A proxy passes plain requests on itself, so it needs the whole URL, and no tunnel.
        self._connector = Connector(self.endpoint, self.tls, self.proxy, self.timeouts.connect, tunnel=tls)
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []
        self._connecting: set[asyncio.Future[None]] = set()
        self._waiting: dict[Connection, float] = {}
        """The deadline of each connection's request, the soonest first, since all wait equally long."""
        self._timer: asyncio.TimerHandle | None = None
        # Waiting for a free connection is not waiting for the server, so it has no timeout.
        self._free = asyncio.Semaphore(self.limits.connections)
        self._origin = f"http://{self.host}" if self.proxy is not None and not tls else ""
        passed_on = proxy_headers(urlsplit(self.proxy)) if self.proxy is not None and self._origin else {}
        self._fields = (("host", self.host), *HEADERS, *passed_on.items())
        self._written: tuple[Headers, Hidden] | None = None
        self._is_single = False
        """Whether the server has closed a connection right after the requests of its check."""

    @property
    def is_connected(self) -> bool:
        return any(connection.open for connection in self._idle)

    async def exchange(
        self,
        request_id: str,
        message: bytes | memoryview,
        headers: Headers,
        options: ExchangeOptions = DEFAULTS,
    ) -> bytes | Message:
        context = options.context
        if self._written is None or self._written[0] is not headers or context:
            self._written = (headers, self._head("POST", "/post", (*headers, *context)))
        head = Hidden(b"%bcontent-length: %d\r\n\r\n" % (self._written[1], len(message)))
        if context:  # the head has the trace context of this request, so it is not used again
            self._written = None
        asked = Asked(request_id, first_id_of(message))
        answer = await self._ask(head, message, asked, options, headers)
        if answer.status != 200:
            raise self._refusal(answer)
        return answer.body

    async def dry_run(self, headers: Headers) -> bytes | None:
        answer = await self._ask(Hidden(self._head("GET", "/dry_run", headers) + b"\r\n"), b"", None)
        if answer.status in NO_SUCH_PATH:
            return None
        if answer.status != 200:
            raise self._refusal(answer)
        return bytes(answer.body)

    def _refusal(self, answer: Answer) -> CasdkError:
        return refusal_of(answer.status, bytes(answer.body), answer.retry_after, str(self.endpoint))

    def _head(self, method: str, path: str, headers: Headers) -> Hidden:
        return Hidden(http1_head(method, self._origin + path, (*self._fields, *headers)))

    async def _ask(
        self,
        head: Hidden,
        message: bytes | memoryview,
        asked: Asked | None,
        options: ExchangeOptions = DEFAULTS,
        headers: Headers = (),
    ) -> Answer:
        loop, repeatable, check = asyncio.get_running_loop(), options.repeatable, options.check
        await self._free.acquire()
        try:
            connection = await self._connection_for(asked, repeatable)
            if check is not None:
                connection = await self._checked(connection, check, headers)
            began = loop.time()
            try:
                try:
                    answer = await self._ask_on(connection, head, message)
                except TransportError:
                    if not connection.stale or not repeatable:
                        raise
                    connection = await self._connect()
                    if check is not None:
                        connection = await self._checked(connection, check, headers)
                    answer = await self._ask_on(connection, head, message)
                named = asked is not None and answer.status == 200 and self.pair(connection.pairing, asked, answer.body)
            except BaseException as error:
                connection.end()
                given_up = isinstance(error, asyncio.CancelledError) and self.had_time(began, options.answer_by)
                if given_up or isinstance(error, DeadlineError):
                    for silent in self.take_silent(self._idle, began):
                        silent.end()
                raise
            if asked is not None and named and self.trusted and connection.open:
                connection.pairing.note_answer(asked, loop.time())
                self._idle.append(connection)
            else:
                connection.end()
            return answer
        finally:
            self._free.release()

    async def _connection_for(self, asked: Asked | None, repeatable: bool) -> Connection:
        oldest = asyncio.get_running_loop().time() - IDLE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            pairing = connection.pairing
            usable = asked is not None and self.trusted and pairing.answered_at > oldest and pairing.can_pair(asked)
            if usable and not repeatable:
                # Two turns of the loop, so that an end that has come already is noticed: one polls, one handles it.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            if usable and connection.open:
                return connection
            connection.end()
            if asked is None:
                break
        return await self._connect()

    async def _checked(self, connection: Connection, check: Check, headers: Headers) -> Connection:
        """Return a connection that has passed a check: this one or a new one. The others are closed."""
        for _ in range(MOST_CONNECTIONS):
            if check.has_passed(connection):
                return connection
            is_single = False
            try:
                await check.inspect(connection, partial(self._ask_check, connection, headers))
                if is_single := not (connection.keep_alive and self.trusted):
                    self._note_single()
                if connection.open:
                    return connection
            except ConnectionEndedError:
                pass
            except BaseException:
                connection.end()
                raise
            connection.end()
            connection = await self._connect()
            if is_single:
                return connection
        connection.end()
        raise ends_each(self.endpoint)

    async def _ask_check(
        self, connection: Connection, headers: Headers, request_id: str, message: bytes | memoryview
    ) -> bytes | Message:
        """Send a request of a check over a connection; over a new one, if the server closes each after one reply."""
        head = Hidden(b"%bcontent-length: %d\r\n\r\n" % (self._head("POST", "/post", headers), len(message)))
        asked = Asked(request_id, first_id_of(message))
        is_own = not (connection.keep_alive and self.trusted)
        if is_own:
            connection = await self._connect()
        try:
            answer = await self._ask_on(connection, head, message)
            if answer.status == 200:
                connection.keep_alive &= self.pair(connection.pairing, asked, answer.body)
            connection.pairing.note_answer(asked, asyncio.get_running_loop().time())
        except TransportError:
            if connection.stale:
                raise ConnectionEndedError from None
            raise
        finally:
            if is_own:
                connection.end()
        if answer.status != 200:
            raise self._refusal(answer)
        return answer.body

    def _note_single(self) -> None:
        if not self._is_single:
            self._is_single = True
            LOG.warning(
                "%s keeps no connection for a second request: its vector space is asked for over others than those "
                "of the requests, which a load balancer may pass on to another server",
                self.endpoint,
            )

    async def _connect(self) -> Connection:
        done = asyncio.get_running_loop().create_future()
        self._connecting.add(done)
        try:
            connection = await self._connector.connect(lambda: Connection(self.endpoint, self._forget))
        finally:
            self._connecting.discard(done)
            done.set_result(None)
        if not connection.lost.done():
            self._open.add(connection)
        self.connected()
        return connection

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    async def _ask_on(self, connection: Connection, head: Hidden, message: bytes | memoryview) -> Answer:
        loop = asyncio.get_running_loop()
        deadline = self._waiting[connection] = loop.time() + self.timeouts.read
        # One timer for all requests, since a timer for each would cost more than most other steps of a request.
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._expire)
        try:
            return await connection.ask(head, message, self.limits.max_reply_bytes)
        finally:
            del self._waiting[connection]

    def _expire(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        for connection, deadline in self._waiting.items():
            if deadline > loop.time() + TICK_SECONDS:
                self._timer = loop.call_at(deadline, self._expire)
                return
            connection.fail(self.late())

    async def aclose(self) -> None:
        # First the connections that are being opened, which are not in `_open` yet.
        self._connector.close()
        if self._connecting:
            await asyncio.wait(self._connecting)
        if self._timer is not None:
            self._timer.cancel()
        connections = tuple(self._open)
        for connection in connections:
            connection.fail(self.was_closed(sent=True))
            connection.end()
        if connections:
            await asyncio.wait([connection.lost for connection in connections])
            LOG.info("the connections to %s are closed", self.endpoint)


CHANNEL = HttpChannel
