"""The callbacks of a call, and the responses that it returns: what its caller learns of each request."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any, TypeAlias

from casdk._calls.answers import read_apart_if_large
from casdk._calls.batches import Batch
from casdk._calls.options import Options
from casdk._engine.callers import Caller
from casdk._transport.codecs import read_response
from casdk._transport.transport import Received
from casdk._wording import class_name, message_of
from casdk.documents import DocumentArray
from casdk.errors import CallbackError, CasdkError
from casdk.models import Header, Response, Status

__all__ = ["Callbacks"]

Callback: TypeAlias = Callable[[Response], Any]


class Callbacks:
    """Calls one call's ``on_done``, ``on_error`` and ``on_always``, and collects its responses if it returns them.

    Args:
        options: The call's.
    """

    def __init__(self, options: Options) -> None:
        self._on_done: Callback | None = options.on_done
        self._on_error: Callback | None = options.on_error
        self._on_always: Callback | None = options.on_always
        self._returns_responses: bool = options.return_responses
        self._responses: list[tuple[int, Response]] = []

    async def report(
        self, caller: Caller[Any], batch: Batch, request_id: str, received: Received, error: CasdkError | None
    ) -> None:
        """Call the callbacks for a request that was answered.

        Args:
            caller: The thread or loop that the callbacks run on.
            batch: The items of the request.
            request_id: The request's id.
            received: The reply.
            error: The error that the reply reports, if it reports one.

        Raises:
            CallbackError: A callback raised.
        """
        stamps = (
            batch.read_at,
            batch.taken_at,
            batch.packed_at,
            received.sent_at,
            received.received_at,
            perf_counter(),
        )
        response = await read_apart_if_large(
            partial(read_response, received.reply, request_id, stamps, received.connecting), received, caller
        )
        if self._returns_responses:
            self._responses.append((batch.indices[0], response))
        await _call(caller, self._on_done if error is None else self._on_error, response)
        await _call(caller, self._on_always, response)

    async def report_lost(self, caller: Caller[Any], request_id: str, error: CasdkError) -> None:
        """Call the callbacks for a request that failed for good without an answer; the error becomes the status.

        Raises:
            CallbackError: A callback raised.
        """
        status = Status(code=1, description=str(error), name=type(error).__name__)
        response = Response(header=Header(request_id=request_id), status=status, docs=DocumentArray())
        await _call(caller, self._on_error, response)
        await _call(caller, self._on_always, response)

    def responses(self) -> list[Response] | None:
        """Return the responses in input order, if the call returns them."""
        if not self._returns_responses:
            return None
        return [response for _, response in sorted(self._responses, key=_start_of)]


def _start_of(start_and_response: tuple[int, Response]) -> int:
    return start_and_response[0]


async def _call(caller: Caller[Any], callback: Callback | None, response: Response) -> None:
    if callback is None:
        return
    try:
        await caller.call(partial(callback, response))
    except Exception as error:
        if isinstance(error.__cause__, StopIteration):  # Python turns that into a RuntimeError in a coroutine
            error = error.__cause__
        raise CallbackError(f"a callback raised {class_name(error)}: {message_of(error)}") from error
