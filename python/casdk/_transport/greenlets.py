"""Checks that a server can be used from greenlets, which the channel on grpcio cannot."""

from __future__ import annotations

from casdk._engine.greenlets import PATCHERS, patcher
from casdk._transport.address import Endpoint, Protocols
from casdk.errors import ConfigError

__all__ = ["check_greenlets"]


def check_greenlets(endpoint: Endpoint, protocols: Protocols = None) -> None:
    """Check that a server can be used from greenlets, if there are any.

    Raises:
        ConfigError: grpcio would block all of them, and with them the process; or the error of `patcher`.
    """
    name = patcher()
    if name is not None and endpoint.channel == "grpc" and protocols == "libraries":
        raise ConfigError(
            f"{endpoint}: the threads of grpcio would stop every greenlet, as {PATCHERS[name].call} was called: leave "
            'out transport="libraries"'
        )
