"""Whether a server can be used from greenlets, which not every channel can."""

from __future__ import annotations

from casdk._engine.greenlets import PATCHERS, patcher
from casdk._transport.address import Endpoint, Protocols, counterpart, is_own
from casdk.errors import ConfigError

__all__ = ["check_greenlets"]


def check_greenlets(endpoint: Endpoint, protocols: Protocols = None) -> None:
    """Check that a server can be used from greenlets, if there are any.

    Raises:
        ConfigError: gRPC would stop them all, and the process with them; or as `patcher` has it.
    """
    name = patcher()
    if name is not None and endpoint.channel == "grpc" and not is_own(endpoint, protocols):
        http, websocket = (counterpart(endpoint.scheme, channel=channel) for channel in ("http", "websocket"))
        raise ConfigError(
            f"{endpoint}: gRPC's threads would stop every greenlet, as {PATCHERS[name].call} was called: use the "
            f"server's {http}:// or {websocket}:// address, which work with {name}"
        )
