"""The parts of a script: the requests that the server reads, the plans for them, and gates at which they wait."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from casdk.wire import jina_pb2

if TYPE_CHECKING:
    from casdk.testing._connection import Exchange

__all__ = ["AnsweredError", "Fault", "Gate", "Mix", "Plan", "Request", "Rules", "planner"]


@dataclass(frozen=True, slots=True)
class Request:
    """What the server has read of one request.

    Attributes:
        number: Position among all requests of the server, from 0.
        connection: Number of its connection, from 0.
        scheme: The scheme of its connection.
        id: Its ``request_id``.
        endpoint: Executor endpoint, e.g. ``/encode``.
        headers: Its headers, with names in lower case; for a websocket those of the handshake.
        texts: Each document's text, ``""`` for images.
        nbytes: Length of the message in bytes.
    """

    number: int
    connection: int
    scheme: str
    id: str
    endpoint: str
    headers: Mapping[str, str]
    texts: tuple[str, ...]
    nbytes: int

    @property
    def authorization(self) -> str | None:
        """The credential that was sent with it."""
        return self.headers.get("authorization")


class AnsweredError(Exception):
    """Raised by a fault that has answered the request by itself."""


class Fault:
    """A fault of one request. Subclass it for faults of your own."""

    __slots__ = ()

    async def wait(self, exchange: Exchange) -> None:
        """Act before the request is executed; raise `AnsweredError` if the request is answered by that."""

    def change(self, reply: jina_pb2.DataRequestProto, exchange: Exchange) -> None:
        """Change the reply while it is a message."""

    def corrupt(self, payload: bytes, exchange: Exchange) -> bytes:
        """Change the bytes of the reply."""
        return payload

    async def deliver(self, exchange: Exchange, payload: bytes) -> bool:
        """Send the reply in another way; return whether it was sent."""
        return False


Plan: TypeAlias = "Fault | Sequence[Fault] | None"
"""The faults of one request."""
Rules: TypeAlias = "Plan | Sequence[Plan] | Callable[[Request], Plan]"
"""A `Fault` for every request, or a plan for each request from the first, or a function that returns the plan."""


def planner(rules: Rules) -> Callable[[Request], Sequence[Fault]]:
    """Return a function that returns the plan of each request.

    Each request uses up an entry of a list, whatever its number; requests after the end of the list have no faults.
    """
    if rules is None:
        return lambda request: ()
    if isinstance(rules, Fault):
        return lambda request: (rules,)
    if callable(rules):
        return lambda request: _listed(rules(request))
    left = iter([_listed(plan) for plan in rules])
    return lambda request: next(left, ())


def _listed(plan: Plan) -> Sequence[Fault]:
    if plan is None:
        return ()
    return (plan,) if isinstance(plan, Fault) else plan


class Mix:
    """Rules that draw each request's fault at random; the same seed and number give the same fault.

    Args:
        seed: Seed of the random numbers.
        shares: Probability of each fault, from 0 to 1, at most 1 in all.
    """

    def __init__(self, seed: int, shares: Mapping[Fault, float]) -> None:
        if sum(shares.values()) > 1:
            raise ValueError(f"the shares must not add up to more than 1, not {sum(shares.values())}")
        self.seed = seed
        self.shares: dict[Fault, float] = dict(shares)
        self.injected: int = 0

    def __call__(self, request: Request) -> Fault | None:
        drawn = random.Random(f"{self.seed}:{request.number}").random()
        for fault, share in self.shares.items():
            drawn -= share
            if drawn < 0:
                self.injected += 1
                return fault
        return None


class Gate:
    """A place where requests wait until the test lets them go on; its methods may be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._arrived = 0

    @property
    def arrived(self) -> int:
        """How many requests have arrived so far."""
        return self._arrived

    def wait_for(self, count: int, timeout: float = 10.0) -> None:
        """Wait until so many requests have arrived.

        Raises:
            TimeoutError: They did not.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._arrived >= count, timeout):
                raise TimeoutError(f"{self._arrived} of {count} requests came within {timeout:g} s")

    def open(self) -> None:
        """Let all requests go on, also those that arrive later."""
        with self._changed:
            self._open = True
        self.let(len(self._waiting))

    def let(self, count: int) -> None:
        """Let so many of the waiting requests go on, the oldest first."""
        with self._changed:
            passing, self._waiting = self._waiting[:count], self._waiting[count:]
        for loop, waiter in passing:
            loop.call_soon_threadsafe(_let_go_on, waiter)

    async def arrive(self) -> None:
        """Wait until the gate lets this request go on."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        with self._changed:
            self._arrived += 1
            self._changed.notify_all()
            if self._open:
                return
            self._waiting.append((loop, waiter))
        await waiter


def _let_go_on(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
