"""Runs one call over three schemes, sync and async, and returns the outcome of each item, for tests of odd objects."""

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from casdk import CasdkError, Client
from PIL import Image

SCHEMES = ("grpc", "http", "websocket")
PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14
"""The one picture of these tests; its row is called ``picture``."""


class OwnError(Exception):
    """What the caller's own code raises."""


@functools.cache
def _names_of(expected: Callable[..., Any]) -> dict[bytes, str]:
    """Return what each row is the row of, once for all tests: an encoder takes longer to make than they take."""
    from casdk.server.encoders import Features

    names = {row.tobytes(): text for text, row in zip("abcdef", expected(list("abcdef")), strict=True)}
    picture = Features().encode_images([Image.fromarray(PIXELS)])[0]
    return {**names, picture.astype(np.float32).tobytes(): "picture"}


class Turn:
    """A client of one scheme, in one mode; a row is called by what it is the row of.

    Attributes:
        client: The client.
        threads: Where the code of odd objects ran.
    """

    def __init__(self, make: Callable[[], Client], mode: str, expected: Callable[..., Any]) -> None:
        self.make = make
        self.client = make()
        self.mode = mode
        self.expected = expected
        self.threads: set[str] = set()
        self._names = _names_of(expected)

    def __repr__(self) -> str:
        return f"{self.client!r}, {self.mode}"

    def note(self) -> None:
        """To be called by the code of odd objects."""
        self.threads.add(threading.current_thread().name)

    def again(self) -> "Turn":
        """Return another one, with a client of its own."""
        return Turn(self.make, self.mode, self.expected)

    def call(self, verb: str, *arguments: Any, **options: Any) -> Any:
        """Call a verb, or its async twin on a loop of its own; a stream is read to its end."""
        options = {"timeout": 20, **options}
        if self.mode == "sync":
            found = getattr(self.client, verb)(*arguments, **options)
            return list(found) if inspect.isgenerator(found) else found
        return asyncio.run(self._acall(f"a{verb}", *arguments, **options))

    async def _acall(self, twin: str, *arguments: Any, **options: Any) -> Any:
        found = getattr(self.client, twin)(*arguments, **options)
        return [piece async for piece in found] if inspect.isasyncgen(found) else await found

    def encode(self, content: Any, **options: Any) -> list[str]:
        """Return what became of each item: the name of its row, or of its error."""
        found = self.call("encode", content, errors="return", **options)
        errors = {error.index: error for error in found.errors}
        assert all(str(error) and repr(error) for error in found.errors)
        return [
            type(errors[at]).__name__ if at in errors else self.name_of(row) for at, row in enumerate(found.embeddings)
        ]

    def name_of(self, row: Any) -> str:
        """Return what a row is of."""
        return self._names.get(np.ascontiguousarray(row, np.float32).tobytes(), "another row")


def turns_of(connect: Callable[[str], Client], expected: Callable[..., Any]) -> Iterator[list[Turn]]:
    """Yield six turns, then see that none of the caller's code ran on the engine and that each client still works."""
    turns = [Turn(lambda s=scheme: connect(s), mode, expected) for scheme in SCHEMES for mode in ("sync", "async")]
    try:
        yield turns
        for turn in turns:
            assert not any(name.startswith("casdk-engine") for name in turn.threads), turn
            assert turn.encode(["a", "b"]) == ["a", "b"], turn
    finally:
        for turn in turns:
            turn.client.close()


def alike(turns: list[Turn], act: Callable[[Turn], Any]) -> Any:
    """Return what a call comes to, which is the same everywhere: a value, or class and index of one of our errors."""
    found = [_outcome(turn, act) for turn in turns]
    assert all(one == found[0] for one in found), list(zip(turns, found, strict=True))
    return found[0]


def _outcome(turn: Turn, act: Callable[[Turn], Any]) -> Any:
    try:
        return act(turn)
    except CasdkError as error:
        index = getattr(error, "index", None)
        name = type(error).__name__ if str(error) else "nothing said"
        return name if index is None else (name, index)
