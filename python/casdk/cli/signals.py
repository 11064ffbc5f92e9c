"""The signals that end a command: Ctrl-C (SIGINT), SIGTERM, and SIGHUP when the terminal is closed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

__all__ = ["Stopped", "asking", "stopping", "undisturbed"]

NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP")
WORDS: Final = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "the terminal was closed"}


class Stopped(KeyboardInterrupt):
    """A signal has ended the command, which cleans up as after Ctrl-C.

    Args:
        number: The signal.

    Attributes:
        goes_on: Whether the same command continues where it was stopped.
    """

    def __init__(self, number: int) -> None:
        self.goes_on: bool = False
        self.number: signal.Signals = signal.Signals(number)
        super().__init__(WORDS[self.number.name])


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Let each of these signals raise `Stopped`, unless the program handles or ignores it already."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, _stop)
        for number in _numbers()
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def asking(ask: Callable[[Stopped], object], seconds: float) -> Iterator[None]:
    """Let the first of these signals call ``ask``, which asks the work to end.

    `Stopped` is raised if the work does not end in time, or at the next signal.

    Args:
        ask: Called with the exception that the work is to end with.
        seconds: How long the end of the work may take.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[Stopped] = []

    def handle(number: int, _: FrameType | None) -> None:
        if asked:
            raise asked[0]
        asked.append(Stopped(number))
        signal.setitimer(signal.ITIMER_REAL, seconds)
        ask(asked[0])

    before = {number: signal.signal(number, handle) for number in _numbers() if signal.getsignal(number) is _stop}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, handle)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore these signals during a clean-up that must not be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in _numbers() if signal.getsignal(number) is not None
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _numbers() -> list[signal.Signals]:
    return [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


def _stop(number: int, _: FrameType | None) -> None:
    raise Stopped(number)
