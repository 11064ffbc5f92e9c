"""Hedging: a request that is late is sent to a second server as well, and the first answer counts."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from casdk._calls.tasks import retrieve
from casdk._engine.logging import logger_of
from casdk._transport.codecs import read_error
from casdk._transport.transport import InterruptedByForkError, Received
from casdk.errors import CasdkError, ModelMismatchError

if TYPE_CHECKING:
    from casdk._calls.batches import Request
    from casdk._calls.run import Run

__all__ = ["race"]

LOG: Final = logger_of("casdk.calls")


async def race(run: Run, request: Request, message: bytes | memoryview) -> Received:
    """Send a request to its server and, once it is late, to a second one; return the first answer.

    As long as one server may still answer, an error of the other one does not count. In the end the request has the
    transport of the server that has answered, and the request to the other server has been cancelled.

    Args:
        run: The call, whose way has a `Hedging`.
        request: The request, which may be repeated.
        message: The packed request.

    Raises:
        CasdkError: The error of the first server, if neither has answered.
        InterruptedByForkError: A fork took the request back.
    """
    hedging, now = run.way.hedging, asyncio.get_running_loop().time
    assert hedging is not None
    verb, size, sent_at = run.verb.endpoint, len(message), now()
    late_after = hedging.send(verb, size)
    if late_after is None:
        received = await run.exchange(request, message)
    else:
        received = await _raced(run, request, message, late_after)
    if not received.reply.failed:
        hedging.answer(verb, size, now() - sent_at)
    return received


async def _raced(run: Run, request: Request, message: bytes | memoryview, late_after: float) -> Received:
    way, hedge, winner = run.way, None, None
    tries = {_begin(run.exchange(request, message)): request}
    try:
        done, _ = await asyncio.wait(tries, timeout=late_after)
        if not done and (hedge := way.hedge_for(request, len(message))) is not None:
            tries[_begin(_exchange_too(run, hedge, message))] = hedge
        winner = await _first_answer(run, tries)
        if hedge is not None and tries[winner] is hedge:
            way.leave(request)
            request.transport, request.assignment, hedge.assignment = hedge.transport, hedge.assignment, None
        return winner.result()
    finally:
        for task in tries:
            task.cancel()
        if hedge is not None:
            way.leave(hedge)
        await asyncio.wait(tries)
        # The error's traceback refers to this frame, which must not refer to the tasks that have it.
        tries.clear()
        winner = None


async def _exchange_too(run: Run, hedge: Request, message: bytes | memoryview) -> Received:
    """Send a request to a second server, when the client's pace allows it."""
    if run.session.pace.slows:
        await run.session.wait_for_turn(len(hedge.batch))
    return await run.exchange(hedge, message)


async def _first_answer(run: Run, tries: dict[asyncio.Task[Received], Request]) -> asyncio.Task[Received]:
    """Return the first try that has an answer, or the first server's if none has one; report the others that failed."""
    first, waiting = next(iter(tries)), dict(tries)
    while waiting:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in [task for task in waiting if task in done]:
            request, error = waiting.pop(task), _error_of(task)
            if error is None:
                return task
            if waiting or task is not first:  # otherwise the call reports the error
                _report(run, request, error)
    return first


def _error_of(task: asyncio.Task[Received]) -> CasdkError | InterruptedByForkError | None:
    """Return the error of a try, be it raised or reported in the reply; ``None`` if the try succeeded.

    Raises:
        BaseException: An error that ends the call: it is no failure of a request, or the server has another space.
    """
    error = task.exception()
    if error is None:
        reply = task.result().reply
        return read_error(reply) if reply.failed else None
    if not isinstance(error, CasdkError | InterruptedByForkError) or isinstance(error, ModelMismatchError):
        raise error
    return error


def _report(run: Run, request: Request, error: CasdkError | InterruptedByForkError) -> None:
    """Report a failed try to the pool, while the call waits for the other try, or reports the other one's error."""
    if isinstance(error, InterruptedByForkError):
        run.way.leave(request)
        return
    assert request.transport is not None
    request.transport.hide_token(error)
    run.way.failed(request, error, run.exchange_options.answer_by)
    LOG.debug("request %s failed at one of its two servers, %s: %s", request.id, error.server, error)


def _begin(work: Coroutine[Any, Any, Received]) -> asyncio.Task[Received]:
    task = asyncio.get_running_loop().create_task(work, name="casdk")
    task.add_done_callback(retrieve)
    return task
