"""The channels; each module beside this one imports exactly one of grpc, httpx and websockets."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Final, cast

from casdk._channels.base import Channel, Headers
from casdk._uri import SCHEMES, Endpoint

__all__ = ["Channel", "Headers", "channel_of"]

VERBOSITY: Final = "GRPC_VERBOSITY"


def channel_of(endpoint: Endpoint) -> type[Channel]:
    """Return the kind of channel of an endpoint, whose library is imported here."""
    with _grpc_is_quiet():
        module = import_module(f"casdk._channels.{SCHEMES[endpoint.scheme].channel}")
    return cast("type[Channel]", module.CHANNEL)


@contextlib.contextmanager
def _grpc_is_quiet() -> Iterator[None]:
    """Have gRPC, if it is imported here, write nothing to standard error, unless the program says what it should.

    It writes a line for each failed handshake, of which the caller gets an error, and reads what it should write from
    the environment when it is imported, and only then.
    """
    if "grpc" in sys.modules or VERBOSITY in os.environ:
        yield
        return
    os.environ[VERBOSITY] = "NONE"
    try:
        yield
    finally:
        os.environ.pop(VERBOSITY, None)
