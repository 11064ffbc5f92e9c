"""One row per scheme; each module beside this one imports exactly one of grpc, httpx and websockets."""

from __future__ import annotations

from importlib import import_module
from typing import Final, Literal, cast

import msgspec

from casdk._channels.base import Channel, Headers
from casdk._uri import Endpoint
from casdk.config import TLS, Limits, Timeouts

__all__ = ["SCHEMES", "Channel", "Headers", "Scheme", "open_channel"]


class Scheme(msgspec.Struct, frozen=True):
    """How a scheme is spoken.

    Attributes:
        module: Module of this package whose ``CHANNEL`` class carries it.
        codec: Form of its messages.
    """

    module: str
    codec: Literal["proto", "json"]


SCHEMES: Final = {
    "grpc": Scheme("grpc", "proto"),
    "grpcs": Scheme("grpc", "proto"),
    "http": Scheme("http", "json"),
    "https": Scheme("http", "json"),
    "websocket": Scheme("websocket", "proto"),
    "websockets": Scheme("websocket", "proto"),
}


def open_channel(endpoint: Endpoint, tls: TLS, timeouts: Timeouts, limits: Limits, proxy: str | None) -> Channel:
    """Return the channel of an endpoint; its library is imported here, connections come later."""
    module = import_module(f"casdk._channels.{SCHEMES[endpoint.scheme].module}")
    return cast(Channel, module.CHANNEL(endpoint, tls, timeouts, limits, proxy))
