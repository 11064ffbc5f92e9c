"""The channels: our own, and in `libraries` those on grpcio, httpx and websockets."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from casdk._transport.address import Endpoint, Protocols, module_of
from casdk._transport.channels.base import Channel, Headers

__all__ = ["Channel", "Headers", "channel_of"]


def channel_of(endpoint: Endpoint, protocols: Protocols = None) -> type[Channel]:
    """Return the kind of channel of an endpoint, whose library is imported here."""
    return cast("type[Channel]", import_module(module_of(endpoint, protocols)).CHANNEL)
