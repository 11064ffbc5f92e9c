"""Keeps rows of different vector spaces apart: a server shows its space before it gets the first request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from copy import copy
from typing import Final
from weakref import WeakKeyDictionary

import msgspec
import numpy as np
from numpy.typing import NDArray

from casdk._calls.routes import route
from casdk._calls.space import CANARIES, Rows, Space, difference, usable
from casdk._calls.tasks import retrieve
from casdk._rust import Kind, new_id
from casdk._transport.codecs import Packer, read_error
from casdk._transport.transport import InterruptedByForkError, Transport
from casdk.errors import CasdkError, ModelMismatchError, ServerError, TransportError

__all__ = ["Guard"]

KINDS: Final = {str: bytes([Kind.TEXT]), bytes: bytes([Kind.BLOB])}


class _State(msgspec.Struct, eq=False):
    """What is known of one model of one server.

    Attributes:
        connections: How many connections had been opened to the server by the time that its space was last found right;
            behind the next one there may be another server.
        asking: The task that asks for its space now, if one does.
        waiting: How many requests wait for that task.
    """

    connections: int = -1
    asking: asyncio.Task[None] | None = None
    waiting: int = 0


class Guard:
    """Compares the vector spaces of servers; lives on the engine's loop, and knows one server or many.

    The canaries are requests for ``/encode`` that the user's own could be: they wait for their turn, carry the
    credential, and have the time that a request has. Telemetry does not see them, as they are part of no call.

    Args:
        expected: The space that every server has to be of, if the user has named one.
        alike: Whether all servers have to be of the space of the first one.
        wait_for_turn: Waits until the pace lets a request of so many items be sent; ``None`` if none does.
    """

    def __init__(
        self, expected: Space | None, *, alike: bool, wait_for_turn: Callable[[int], Awaitable[None]] | None = None
    ) -> None:
        self._expected = expected
        self._alike = alike
        self._wait_for_turn = wait_for_turn
        self._states: WeakKeyDictionary[Transport, dict[str, _State]] = WeakKeyDictionary()
        self._first: dict[tuple[str, str], tuple[str, NDArray[np.float32]]] = {}
        """The server that was the first to encode a canary, and its row, by model and modality."""

    async def check(
        self, transport: Transport, model_name: str, *, repeatable: bool = True, sent: bool = False
    ) -> None:
        """Return when the server that the next request goes to is known to be of the right space.

        It is asked with the first request for a model and after every new connection. Requests that come meanwhile wait
        for the same answer.

        Args:
            transport: The way to the server.
            model_name: As in the endpoint ``/encode/{model_name}``; ``""`` for none.
            repeatable: Whether the request may be sent again. If not, it must not be what opens a connection, since the
                server would have taken it before anybody can ask.
            sent: Whether the request has been sent and answered, by the server that is to be asked now.

        Raises:
            ModelMismatchError: It is of another space.
            CasdkError: It could not be asked, as `Transport.exchange` has it.
            InterruptedByForkError: A fork took the canaries back.
        """
        state = self._states.setdefault(transport, {}).setdefault(model_name, _State())
        if state.connections == transport.connections and (repeatable or transport.is_connected):
            return
        if state.asking is None:
            state.asking = asyncio.get_running_loop().create_task(self._ask(transport, model_name, state), name="casdk")
            state.asking.add_done_callback(retrieve)
        asking = state.asking
        state.waiting += 1
        try:
            await asyncio.shield(asking)
        except InterruptedByForkError:
            raise InterruptedByForkError from None
        except CasdkError as error:
            own = copy(error)  # one for each request, since the call adds to it
            if isinstance(own, TransportError | ServerError):
                own.sent = sent
            raise own from error.__cause__
        finally:
            state.waiting -= 1
            if not state.waiting and not asking.done():
                state.asking = None
                asking.cancel()
                await asyncio.wait([asking])

    async def _ask(self, transport: Transport, model_name: str, state: _State) -> None:
        before = transport.connections
        try:
            self._compare(transport, model_name, await self._encode_canaries(transport, model_name))
            # Of two connections that were opened meanwhile, the canaries have not seen one.
            state.connections = min(transport.connections, before + 1)
        finally:
            if state.asking is asyncio.current_task():
                state.asking = None

    async def _encode_canaries(self, transport: Transport, model_name: str) -> Rows:
        """Return the rows of those canaries that the server encodes: some take texts only, or images only."""
        endpoint, parameters = route("/encode", {"model_name": model_name} if model_name else None)
        packer = Packer(transport.codec, endpoint, parameters)
        rows, refusal = {}, None
        for modality, item in CANARIES.items():
            if self._wait_for_turn is not None:
                await self._wait_for_turn(1)
            request_id = new_id()
            message = packer.pack(request_id, [item], KINDS[type(item)]).message
            try:
                row = await _row_of(transport, request_id, message)
            except ServerError as error:
                if not error.for_item:
                    raise
                refusal = error
            else:
                if usable(row):
                    rows[modality] = row
        if not rows:
            said = f": {refusal}" if refusal is not None else ", it answered without embeddings"
            raise ServerError(f"{transport.endpoint}: which model it holds cannot be found out{said}", sent=False)
        return rows

    def _compare(self, transport: Transport, model_name: str, rows: Rows) -> None:
        server = str(transport.endpoint)
        which = f"{server} with the model {model_name!r}" if model_name else server
        if self._expected is not None:
            found = Space.of(rows)
            if reason := found.difference(self._expected):
                said = f"{which} is not of the space that expect_space names: {reason}"
                raise ModelMismatchError(f"{said}; its own is {found}, expected was {self._expected}", (server,))
        if not self._alike:
            return
        for modality, row in rows.items():
            first, its_row = self._first.get((model_name, modality), (server, row))
            if reason := difference(row, its_row, modality):
                said = f"before, {first}" if first == server else first
                raise ModelMismatchError(
                    f"{which} holds another model than {said}: {reason}; their rows must not be mixed", (first, server)
                )
        for modality, row in rows.items():
            self._first.setdefault((model_name, modality), (server, row))


async def _row_of(transport: Transport, request_id: str, message: bytes) -> NDArray[np.float32]:
    """Send a request of one item; return its row ``[D]``, with ``D`` 0 if the server answers without one.

    Raises:
        CasdkError: As `Transport.exchange`, or what the server answered with.
    """
    reply = (await transport.exchange(request_id, message)).reply
    if (error := read_error(reply)) is not None:
        transport.hide_token(error)
        raise error
    rows = np.empty((1, reply.width), np.float32)
    if not reply.width or reply.place(rows, 0, 1, request_id):
        return np.empty(0, np.float32)
    row: NDArray[np.float32] = rows[0]
    return row
