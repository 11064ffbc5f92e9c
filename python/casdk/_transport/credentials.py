"""The credential that travels with every request: a token, or a callable that is asked for one.

A function is asked on a worker, a coroutine on a loop for such alone. Both are the caller's code, and the engine is not
to wait for them. Nor is a coroutine awaited on the loop that a call comes from: the token serves every call of the
client, from threads and from other loops, too, and may be asked for when that loop stands still or is closed.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

from casdk._engine.callers import Caller
from casdk._engine.loop import LOOKUP_THREADS
from casdk._engine.process import engine, notice_fork
from casdk._engine.threads import Workers, check_process, start
from casdk.errors import CasdkError, ConfigError

if TYPE_CHECKING:
    from casdk._transport.channels import Headers

__all__ = ["TOKEN_VARIABLE", "Credential", "authorize", "check_token"]

T = TypeVar("T")
Credential: TypeAlias = "str | Callable[[], str | Awaitable[str]]"
"""A token, or what returns one: called again when the server refuses the last one."""

TOKEN_VARIABLE: Final = "CLIP_AUTH_TOKEN"

PATIENCE: Final = 0.25
"""Seconds in which a loop has to turn. One that does not is held up by a coroutine that blocks; another takes over."""
MOST: Final = 8
"""Loops, each in a thread: so many coroutines may block for ever."""


async def authorize(credential: Credential | None) -> Headers:
    """Return the header that a request carries, if it carries any; runs on the engine.

    Raises:
        ConfigError: There is no token that can travel.
    """
    token: object = credential
    if callable(token):
        token = await _ask(token)
    if token is None:
        token = os.environ.get(TOKEN_VARIABLE)
    return () if token is None else (("authorization", check_token(token)),)


class Secret(str):
    """A token that does not show itself where the locals of a traceback are shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"


def check_token(token: object) -> Secret:
    """Return the token if it can travel in a header.

    Raises:
        ConfigError: It cannot; the message does not show it.
    """
    if not isinstance(token, str):
        raise ConfigError(f"a credential must be a str, or a callable that returns one, not {type(token).__name__}")
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError("a credential must be printable ASCII and not empty; this one is not (it is not shown here)")
    return Secret(token)


async def _ask(credential: Callable[[], object]) -> object:
    """Ask for the token.

    Raises:
        ConfigError: The callable raised something.
    """
    try:
        given = Caller.unwrap(*await engine().readers.call(credential))
        if not isawaitable(given):
            return given
        if engine().thread_model.patcher is not None:  # greenlets share one loop, the engine's
            return await given
        return await _await_apart(given)
    except CasdkError:
        raise
    except Exception as error:
        raise ConfigError(f"the credential's callable raised {type(error).__name__}") from error


class _Loop:
    """A loop for coroutines, in a thread of ours."""

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

    def leave(self) -> None:
        """Turn no more, in a child that a coroutine has forked: the sockets are the parent's."""
        self.loop.stop()
        with suppress(AttributeError):  # uvloop's
            cast(Any, self.loop)._ready.clear()

    async def outcome_of(self, given: Awaitable[T]) -> list[Any]:
        """Await what a callable returned; return what that returned, and what it raised."""
        outcome: list[Any]
        try:
            outcome = [await given, None]
        except BaseException as error:  # a SystemExit would end the loop
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            outcome = [None, error]
        if os.getpid() != self._process:
            notice_fork()
            self.leave()
            await self.loop.create_future()
        return outcome

    def knock(self) -> asyncio.Future[_Loop]:
        """Return what is done when this loop has turned."""
        here = asyncio.get_running_loop()
        answer: asyncio.Future[_Loop] = here.create_future()
        self.loop.call_soon_threadsafe(here.call_soon_threadsafe, _settle, answer, self)
        return answer


def _settle(answer: asyncio.Future[_Loop], loop: _Loop) -> None:
    if not answer.done():
        answer.set_result(loop)


_loops: Final[dict[int, list[_Loop]]] = {}
"""Those of this process, by its id, the oldest first. A child keeps its parent's, without a touch."""


def _after_fork_in_child() -> None:
    for loops in _loops.values():
        for loop in loops:
            if loop.thread == threading.get_ident():
                loop.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


async def _await_apart(given: Awaitable[T]) -> T:
    """Await on the oldest loop that turns, which is the only one as long as no coroutine has blocked."""
    turning = await _turning()
    task = asyncio.run_coroutine_threadsafe(turning.outcome_of(given), turning.loop)
    outcome = await asyncio.wrap_future(task)
    # Taken out: what an error's traceback leads to must not lead back to it.
    error, result = outcome.pop(), outcome.pop()
    try:
        return cast(T, Caller.unwrap(result, error))
    finally:
        del error


async def _turning() -> _Loop:
    loops = _loops.setdefault(os.getpid(), [])
    knocks: list[asyncio.Future[_Loop]] = []
    while True:
        if len(knocks) == len(loops) < MOST:
            loops.append(_Loop())
        knocks += [loop.knock() for loop in loops[len(knocks) :]]
        patience = PATIENCE if len(knocks) < MOST else None
        await asyncio.wait(knocks, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        for knock in knocks:
            if knock.done():
                return knock.result()
