"""The credential that is sent with every request: a token, or a callable that returns one.

A function is called on a worker, and a coroutine is awaited on a loop of its own thread: both are the caller's code,
which the engine must not wait for. A coroutine is not awaited on the loop that a call comes from, since the token is
for all calls of the client, from threads and from other loops, too, and that loop may be blocked or closed.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from inspect import CORO_CREATED, getcoroutinestate, isawaitable, iscoroutine
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

from casdk._engine.callers import Caller
from casdk._engine.loop import LOOKUP_THREADS
from casdk._engine.process import engine, notice_fork
from casdk._engine.threads import Workers, check_process, start
from casdk._transport.tokens import check_token
from casdk.errors import CasdkError, ConfigError

if TYPE_CHECKING:
    from casdk._transport.channels import Headers

__all__ = ["TOKEN_VARIABLE", "Credential", "authorize"]

T = TypeVar("T")
Credential: TypeAlias = "str | Callable[[], str | Awaitable[str]]"
"""A token, or a callable that returns one, which is called again when the server refuses the last token."""

TOKEN_VARIABLE: Final = "CLIP_AUTH_TOKEN"

TURN_SECONDS: Final = 0.25
"""A loop that runs nothing within this time is blocked by a coroutine, and another loop takes its place."""
MOST_LOOPS: Final = 8
"""The most loops, each in a thread: so many coroutines may block for ever."""


async def authorize(credential: Credential | None) -> Headers:
    """Return the header with the credential, if there is one; runs on the engine.

    Raises:
        ConfigError: The token cannot be sent in a header, or the callable failed.
    """
    token: object = credential
    if callable(token):
        token = await _ask(token)
    if token is None:
        token = os.environ.get(TOKEN_VARIABLE)
    return () if token is None else (("authorization", check_token(token)),)


async def _ask(credential: Callable[[], object]) -> object:
    """Call the credential's callable, and return its token.

    Raises:
        ConfigError: The callable raised an error.
    """
    made: list[object] = []
    is_given_up = threading.Event()

    def ask() -> object:
        made.append(credential())
        if is_given_up.is_set():
            _close_unbegun(made[0])
        return made[0]

    try:
        try:
            token = Caller.unwrap(*await engine().readers.call(ask))
        except asyncio.CancelledError:
            # Cancelled before the worker has returned a coroutine, or before this has awaited it.
            is_given_up.set()
            for one in made:
                _close_unbegun(one)
            raise
        if not isawaitable(token):
            return token
        if engine().thread_model.patcher is not None:  # greenlets share one loop, the engine's
            return await token
        return await _await_off_engine(token)
    except CasdkError:
        raise
    except Exception as error:
        raise ConfigError(f"the credential's callable raised {type(error).__name__}") from error


class _Loop:
    """A loop in a thread of its own, which awaits the coroutines of credentials."""

    def __init__(self) -> None:
        self.loop: Final = asyncio.new_event_loop()
        self.loop.set_default_executor(Workers(LOOKUP_THREADS, "casdk-credential-work"))
        self.thread: int | None = None
        self._process: Final = os.getpid()
        try:
            start(self._run, "casdk-credential", ours=True)
        except BaseException:
            self.loop.close()
            raise

    def _run(self) -> None:
        self.thread = threading.get_ident()
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            check_process(self._process)

    def stop(self) -> None:
        """Stop the loop in a child that a coroutine has forked, since its sockets belong to the parent."""
        self.loop.stop()
        with suppress(AttributeError):  # a loop of uvloop has no such attribute
            cast(Any, self.loop)._ready.clear()

    async def outcome_of(self, awaitable: Awaitable[T]) -> list[Any]:
        """Await the result of a callable; return its outcome, a result and an error, one of them ``None``."""
        outcome: list[Any]
        try:
            outcome = [await awaitable, None]
        except BaseException as error:  # returned, since a SystemExit would end the loop
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            outcome = [None, error]
        if os.getpid() != self._process:
            notice_fork()
            self.stop()
            await self.loop.create_future()
        return outcome

    def next_turn(self) -> asyncio.Future[_Loop]:
        """Return a future of the current loop that is done when this loop has run once more."""
        here = asyncio.get_running_loop()
        answer: asyncio.Future[_Loop] = here.create_future()
        self.loop.call_soon_threadsafe(here.call_soon_threadsafe, _set_answer, answer, self)
        return answer


def _set_answer(answer: asyncio.Future[_Loop], loop: _Loop) -> None:
    if not answer.done():
        answer.set_result(loop)


_loops: Final[dict[int, list[_Loop]]] = {}
"""The loops of this process, by its id, the oldest first. A child neither uses nor deallocates its parent's loops."""


def _after_fork_in_child() -> None:
    for loops in _loops.values():
        for loop in loops:
            if loop.thread == threading.get_ident():
                loop.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


async def _await_off_engine(awaitable: Awaitable[T]) -> T:
    """Await on the oldest loop that is not blocked, which is the only one as long as no coroutine has blocked."""
    try:
        turning = await _turning()
    except BaseException:
        _close_unbegun(awaitable)
        raise
    task = asyncio.run_coroutine_threadsafe(turning.outcome_of(awaitable), turning.loop)
    # If this is cancelled before the loop awaits the coroutine, the coroutine is closed, on that loop.
    task.add_done_callback(lambda _: turning.loop.call_soon_threadsafe(_close_unbegun, awaitable))
    outcome = await asyncio.wrap_future(task)
    # Popped, since the traceback of the error will refer to this frame, and so to the list: a reference cycle.
    error, result = outcome.pop(), outcome.pop()
    try:
        return cast(T, Caller.unwrap(result, error))
    finally:
        del error


def _close_unbegun(awaitable: object) -> None:
    """Close a coroutine that will never be awaited, about which Python would warn; none of its code runs."""
    if iscoroutine(awaitable) and getcoroutinestate(awaitable) == CORO_CREATED:
        awaitable.close()


async def _turning() -> _Loop:
    """Return the first loop that is not blocked; start another one each time that all are for `TURN_SECONDS`."""
    loops = _loops.setdefault(os.getpid(), [])
    turns: list[asyncio.Future[_Loop]] = []
    while True:
        if len(turns) == len(loops) < MOST_LOOPS:
            loops.append(_Loop())
        turns += [loop.next_turn() for loop in loops[len(turns) :]]
        seconds = TURN_SECONDS if len(turns) < MOST_LOOPS else None
        await asyncio.wait(turns, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for turn in turns:
            if turn.done():
                return turn.result()
