"""The channels; each module beside this one imports exactly one of grpc, httpx and websockets."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from casdk._transport.address import SCHEMES, Endpoint
from casdk._transport.channels.base import Channel, Headers

__all__ = ["Channel", "Headers", "channel_of"]


def channel_of(endpoint: Endpoint) -> type[Channel]:
    """Return the kind of channel of an endpoint, whose library is imported here."""
    module = import_module(f"casdk._transport.channels.{SCHEMES[endpoint.scheme].channel}")
    return cast("type[Channel]", module.CHANNEL)
