"""The modules that calls need, which the first client imports and not ``import casdk``."""

from __future__ import annotations

from importlib import import_module
from threading import get_ident
from typing import Any, Final

from casdk._extras import missing_extra
from casdk._transport.address import Endpoint, Protocols, module_of
from casdk.errors import ConfigError

__all__ = ["Late", "load"]

MODULES: Final = (
    "casdk._calls.direct",
    "casdk._calls.merging",
    "casdk._calls.profiles",
    "casdk._calls.session",
    "casdk._calls.verbs",
    "casdk._engine.waiting",
    "casdk._transport.proxy",
)
_loading: Final[set[int]] = set()
"""Threads that import what the first client of a scheme needs."""
_loaded: Final[set[str]] = set()


class Late:
    """A module that the first client imports: asyncio and what else a call needs take longer than the rest."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        value = getattr(import_module(self._name), name)
        setattr(self, name, value)
        return value


def load(endpoint: Endpoint, protocols: Protocols = None) -> None:
    """Import all that calls to a server need, so that no call imports anything.

    An import on the engine would wait for logging's lock, and a signal's handler may make a call at any line.

    Raises:
        ConfigError: A signal's handler or a finalizer makes a client in the middle of this, or a module cannot be read,
            or a library is not installed.
    """
    thread, channel = get_ident(), module_of(endpoint, protocols)
    if channel in _loaded:
        return
    if thread in _loading:
        raise ConfigError("a client cannot be made while the code that this interrupts makes the first one")
    try:
        _loading.add(thread)
        for module in (*MODULES, channel):
            import_module(module)
        _loaded.add(channel)
    except ImportError as error:
        missing = missing_extra(f'{endpoint.scheme}:// with transport="libraries"', "libraries", error)
        if missing is error:
            raise
        raise ConfigError(str(missing)) from error
    except OSError as error:  # for example, because no file descriptors are left
        raise ConfigError(f"what a client needs cannot be imported: {error}") from error
    finally:
        _loading.discard(thread)
