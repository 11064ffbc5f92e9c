"""The channels; each module beside this one imports exactly one of grpc, httpx and websockets."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from casdk._channels.base import Channel, Headers
from casdk._uri import SCHEMES, Endpoint
from casdk.config import TLS, Limits, Timeouts

__all__ = ["Channel", "Headers", "open_channel"]


def open_channel(endpoint: Endpoint, tls: TLS, timeouts: Timeouts, limits: Limits, proxy: str | None) -> Channel:
    """Return the channel of an endpoint; its library is imported here, connections come later."""
    module = import_module(f"casdk._channels.{SCHEMES[endpoint.scheme].channel}")
    return cast(Channel, module.CHANNEL(endpoint, tls, timeouts, limits, proxy))
