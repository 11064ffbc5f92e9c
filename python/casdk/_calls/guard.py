"""Keeps rows of different vector spaces apart: it checks the server's space before a request goes over a connection.

A session has one `Guard` if the vector space matters; `Run` passes a `SpaceCheck` to the channel with each request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from copy import copy
from typing import Final
from weakref import WeakKeyDictionary

import msgspec
import numpy as np
from numpy.typing import NDArray

from casdk._calls.batches import Batch
from casdk._calls.routes import route
from casdk._calls.space import CANARIES, Rows, Space, difference, usable
from casdk._calls.tasks import retrieve
from casdk._rust import Kind, new_id
from casdk._transport.channels.inspection import Ask, ConnectionEndedError
from casdk._transport.codecs import Packer, Reply, read_error, scan
from casdk._transport.transport import Transport
from casdk.errors import CasdkError, ModelMismatchError, ServerError, TransportError

__all__ = ["Guard", "SpaceCheck"]

KINDS: Final = {str: bytes([Kind.TEXT]), bytes: bytes([Kind.BLOB])}


class _State(msgspec.Struct, eq=False):
    """What a `Guard` knows about one model behind one connection.

    Attributes:
        passed: Whether the model's space was found to be the right one.
        asking: The task that asks for the space now, if one does.
        waiting: How many requests wait for that task.
    """

    passed: bool = False
    asking: asyncio.Task[None] | None = None
    waiting: int = 0


class Guard:
    """Compares the vector spaces of servers; runs on the engine's loop.

    The canaries are requests for ``/encode`` like the user's own: they wait for the pace, carry the credential, and
    have the timeout of a request. They go over the connection that is to be used, before any request that is guarded
    does. Telemetry does not record them, since they belong to no call.

    Args:
        expected: The space that every server must have, if the user has named one.
        alike: Whether all servers must have the space of the first one.
        wait_for_turn: Waits until a server may be sent a request of so many items; ``None`` for no wait.
    """

    def __init__(
        self,
        expected: Space | None,
        *,
        alike: bool,
        wait_for_turn: Callable[[Transport, int], Awaitable[None]] | None = None,
    ) -> None:
        self._expected = expected
        self._alike = alike
        self._wait_for_turn = wait_for_turn
        self._states: WeakKeyDictionary[object, dict[str, _State]] = WeakKeyDictionary()
        """What is known of each model, by connection."""
        self._first: dict[tuple[str, str], tuple[str, NDArray[np.float32]]] = {}
        """The server that was the first to encode a canary, and its row, by model and modality."""

    def check_for(self, batch: Batch, transport: Transport, model_name: str) -> SpaceCheck:
        """Return the check that a connection must pass before this batch goes over it.

        Args:
            batch: The items of a request.
            transport: The way to its server.
            model_name: As in the endpoint ``/encode/{model_name}``; ``""`` for none.
        """
        return SpaceCheck(self, batch, transport, model_name)

    def has_passed(self, connection: object, model_name: str) -> bool:
        """Whether this model, behind this connection, was found to have the right space."""
        state = self._states.get(connection, {}).get(model_name)
        return state is not None and state.passed

    async def ask(self, connection: object, ask: Ask, transport: Transport, model_name: str) -> None:
        """Wait until the server behind a connection is known to have the right space.

        Raises:
            ModelMismatchError: It has another space.
            CasdkError: The server could not be asked; the errors are those of `Channel.exchange`.
            ConnectionEndedError: The connection takes no more requests.
        """
        state = self._states.setdefault(connection, {}).setdefault(model_name, _State())
        if state.asking is None:
            work = self._ask(state, ask, transport, model_name)
            state.asking = asyncio.get_running_loop().create_task(work, name="casdk")
            state.asking.add_done_callback(retrieve)
        asking = state.asking
        state.waiting += 1
        try:
            await asyncio.shield(asking)
        except ConnectionEndedError:
            raise ConnectionEndedError from None
        except CasdkError as error:
            own = copy(error)  # a copy for each request, since its call adds details to the error
            if isinstance(own, TransportError | ServerError):
                own.sent = False
            raise own from error.__cause__
        finally:
            state.waiting -= 1
            if not state.waiting and not asking.done():
                state.asking = None
                asking.cancel()
                await asyncio.wait([asking])

    async def wait_for_turn(self, transport: Transport, items: int) -> None:
        """Wait until the pace lets a server be sent a request of so many items."""
        if self._wait_for_turn is not None:
            await self._wait_for_turn(transport, items)

    async def _ask(self, state: _State, ask: Ask, transport: Transport, model_name: str) -> None:
        try:
            self._compare(transport, model_name, await self._encode_canaries(ask, transport, model_name))
            state.passed = True
        finally:
            if state.asking is asyncio.current_task():
                state.asking = None

    async def _encode_canaries(self, ask: Ask, transport: Transport, model_name: str) -> Rows:
        """Return the rows of the canaries that the server encodes: some servers take only texts, or only images."""
        endpoint, parameters = route("/encode", {"model_name": model_name} if model_name else None)
        packer = Packer(transport.codec, endpoint, parameters)
        rows, refusal = {}, None
        for modality, item in CANARIES.items():
            await self.wait_for_turn(transport, 1)
            request_id = new_id()
            message = packer.pack(request_id, [item], KINDS[type(item)]).message
            try:
                row = _row_of(scan(transport.codec, await ask(request_id, message)), request_id)
            except ServerError as error:
                if not error.for_item:
                    raise
                refusal = error
            else:
                if usable(row):
                    rows[modality] = row
        if not rows:
            why = f": {refusal}" if refusal is not None else ", it answered without embeddings"
            raise ServerError(f"{transport.endpoint}: which model it holds cannot be found out{why}", sent=False)
        return rows

    def _compare(self, transport: Transport, model_name: str, rows: Rows) -> None:
        server = str(transport.endpoint)
        which = f"{server} with the model {model_name!r}" if model_name else server
        if self._expected is not None:
            found = Space.of(rows)
            if reason := found.difference(self._expected):
                message = f"{which} is not of the space that expect_space names: {reason}"
                raise ModelMismatchError(f"{message}; its own is {found}, expected was {self._expected}", (server,))
        if not self._alike:
            return
        for modality, row in rows.items():
            first, its_row = self._first.get((model_name, modality), (server, row))
            if reason := difference(row, its_row, modality):
                other = f"before, {first}" if first == server else first
                raise ModelMismatchError(
                    f"{which} holds another model than {other}: {reason}; their rows must not be mixed", (first, server)
                )
        for modality, row in rows.items():
            self._first.setdefault((model_name, modality), (server, row))


class SpaceCheck(msgspec.Struct, eq=False):
    """The `Check` of one request: a connection must have passed it before the request goes over it.

    Attributes:
        guard: Compares the spaces.
        batch: The items of the request.
        transport: The way to the server.
        model_name: The model that encodes the items.
    """

    guard: Guard
    batch: Batch
    transport: Transport
    model_name: str

    def has_passed(self, connection: object) -> bool:
        """Whether the model, behind this connection, was found to have the right space."""
        return self.guard.has_passed(connection, self.model_name)

    async def inspect(self, connection: object, ask: Ask, *, sent: bool = False) -> None:
        """Have the server behind a connection encode the canaries; then wait for the request's turn once more.

        Raises:
            CasdkError: As `Guard.ask`.
            ConnectionEndedError: As `Guard.ask`.
        """
        self.batch.sent = sent
        await self.guard.ask(connection, ask, self.transport, self.model_name)
        if not sent:
            # All requests that waited for the same answer go on now, so the pace has to space them again.
            await self.guard.wait_for_turn(self.transport, len(self.batch))
        self.batch.sent = True


def _row_of(reply: Reply, request_id: str) -> NDArray[np.float32]:
    """Return the row ``[D]`` of a reply to a request of one item, with ``D`` 0 if the server answers without one.

    Raises:
        CasdkError: The error that the server answered with.
    """
    if (error := read_error(reply)) is not None:
        raise error
    rows = np.empty((1, reply.width), np.float32)
    if not reply.width or reply.place(rows, 0, 1, request_id):
        return np.empty(0, np.float32)
    row: NDArray[np.float32] = rows[0]
    return row
