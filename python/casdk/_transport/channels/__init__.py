"""The channels; each module beside this one imports exactly one of grpc, httpx and websockets."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from casdk._engine.greenlets import PATCHERS, patcher
from casdk._transport.address import SCHEMES, Endpoint, counterpart
from casdk._transport.channels.base import Channel, Headers
from casdk.errors import ConfigError

__all__ = ["Channel", "Headers", "channel_of", "check_greenlets"]


def channel_of(endpoint: Endpoint) -> type[Channel]:
    """Return the kind of channel of an endpoint, whose library is imported here."""
    module = import_module(f"casdk._transport.channels.{SCHEMES[endpoint.scheme].channel}")
    return cast("type[Channel]", module.CHANNEL)


def check_greenlets(endpoint: Endpoint) -> None:
    """Check that a server can be used from greenlets, if there are any.

    Raises:
        ConfigError: gRPC would stop them all, and the process with them; or as `patcher` has it.
    """
    name = patcher()
    if name is not None and endpoint.channel == "grpc":
        http, websocket = (counterpart(endpoint.scheme, channel=channel) for channel in ("http", "websocket"))
        raise ConfigError(
            f"{endpoint}: gRPC's threads would stop every greenlet, as {PATCHERS[name].call} was called: use the "
            f"server's {http}:// or {websocket}:// address, which work with {name}"
        )
