"""Which channel carries a scheme."""

import subprocess
import sys

import pytest
from casdk._transport.address import SCHEMES, parse_address
from casdk._transport.channels import Channel, channel_of
from casdk._transport.channels.http1 import HttpChannel as Http1Channel
from casdk._transport.channels.http2 import Http2Channel
from casdk._transport.channels.libraries.grpc import GrpcChannel
from casdk._transport.channels.libraries.http import HttpChannel
from casdk._transport.channels.libraries.websocket import WebsocketChannel as LibraryWebsocketChannel
from casdk._transport.channels.websocket import WebsocketChannel

CHANNELS = {
    "libraries": {"grpc": GrpcChannel, "http": HttpChannel, "websocket": LibraryWebsocketChannel},
    "own": {"grpc": Http2Channel, "http": Http1Channel, "websocket": WebsocketChannel},
}
LIBRARIES = {"grpc": "grpc", "http": "httpx", "websocket": "websockets"}


@pytest.mark.parametrize("protocols", CHANNELS)
def test_a_scheme_and_its_secure_one_have_the_same(scheme, protocols):
    kind = channel_of(parse_address(f"{scheme}://host:1"), protocols)
    assert issubclass(kind, Channel)
    assert kind is CHANNELS[protocols][scheme.removesuffix("s")]


@pytest.mark.parametrize("protocols", CHANNELS)
@pytest.mark.parametrize("scheme", ["grpc", "https", "websocket"])
def test_only_its_own_library_is_imported(scheme, protocols):
    library = LIBRARIES[SCHEMES[scheme].channel]
    imported = [] if protocols == "own" else [library]
    script = f"""
import sys
from casdk._transport.address import parse_address
from casdk._transport.channels import channel_of
before = sys.modules.keys() & {set(LIBRARIES.values())}
channel_of(parse_address("{scheme}://host:1"), "{protocols}")
print(sorted(before), sorted(sys.modules.keys() & {set(LIBRARIES.values())}))
"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown == f"[] {imported}\n"
