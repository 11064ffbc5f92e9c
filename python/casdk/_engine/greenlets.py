"""Finds out, without importing them, whether gevent or eventlet has replaced threads and sockets."""

from __future__ import annotations

import sys
import threading
from typing import Final, NamedTuple

from casdk.errors import ConfigError

__all__ = ["PATCHERS", "ThreadModel", "patcher"]


class Patcher(NamedTuple):
    """A library that replaces Python's modules by its own.

    Attributes:
        call: The call that replaces them, for messages.
        module: The library's module that knows which modules are patched.
        question: The function in it that says whether a module is patched.
        needed: Modules of which either all have to be patched, or none.
    """

    call: str
    module: str
    question: str
    needed: tuple[str, ...]


PATCHERS: Final = {
    "gevent": Patcher(
        "gevent.monkey.patch_all()", "gevent.monkey", "is_module_patched", ("threading", "queue", "socket", "select")
    ),
    "eventlet": Patcher(
        "eventlet.monkey_patch()", "eventlet.patcher", "is_monkey_patched", ("thread", "socket", "select")
    ),
}


def patcher() -> str | None:
    """Return the name of the library that has replaced threads by greenlets, if one has.

    Raises:
        ConfigError: It has patched some of the needed modules and not the others.
    """
    for name, row in PATCHERS.items():
        is_patched = getattr(sys.modules.get(row.module), row.question, None)
        if is_patched is None:
            continue
        left = [module for module in row.needed if not is_patched(module)]
        if not left:
            return name
        if len(left) < len(row.needed):
            raise ConfigError(
                f"{name} has patched a part of Python, and not {' and '.join(left)}: a call would stop every greenlet, "
                f"or never end. {row.call} with its defaults works"
            )
    return None


class ThreadModel:
    """Whether `threading.Thread` made threads of the system, or greenlets within one, when the engine was started.

    The engine asks it before it starts, and before a caller waits for it: a greenlet cannot wait for another thread.

    Attributes:
        patcher: The library that had replaced threads by greenlets, if one had.
    """

    def __init__(self) -> None:
        self.patcher: Final = patcher()
        self._native: Final = threading.get_native_id()

    def check_start(self) -> None:
        """Check that the engine's loop can be run.

        Raises:
            ConfigError: Its greenlet would be in the thread of another loop that runs.
        """
        # Imported here, since `import casdk` should not import asyncio; the engine has it by now.
        from asyncio import _get_running_loop

        if self.patcher is not None and _get_running_loop() is not None:
            raise ConfigError(f"with {self.patcher}, the first call cannot be made while an asyncio loop is running")

    def check_caller(self) -> None:
        """Check that the engine can wake the caller, who is about to wait for it.

        Raises:
            ConfigError: One of the two is a greenlet, and the other belongs to another thread.
        """
        name = patcher()
        if name is not None and name != self.patcher:
            raise ConfigError(f"{PATCHERS[name].call} was called after casdk's first call: call it before")
        if self.patcher is not None and threading.get_native_id() != self._native:
            raise ConfigError(f"with {self.patcher}, all calls have to come from greenlets of one thread")
