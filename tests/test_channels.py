"""Which channel carries a scheme."""

import subprocess
import sys

import pytest
from casdk._transport.address import SCHEMES, parse_address
from casdk._transport.channels import Channel, channel_of
from casdk._transport.channels.grpc import GrpcChannel
from casdk._transport.channels.http import HttpChannel
from casdk._transport.channels.websocket import WebsocketChannel

CHANNELS = {"grpc": GrpcChannel, "http": HttpChannel, "websocket": WebsocketChannel}


def test_a_scheme_and_its_secure_one_have_the_same(scheme):
    kind = channel_of(parse_address(f"{scheme}://host:1"))
    assert issubclass(kind, Channel)
    assert kind is CHANNELS[scheme.removesuffix("s")]


@pytest.mark.parametrize("scheme", ["grpc", "https", "websocket"])
def test_only_its_own_library_is_imported(scheme):
    libraries = {"grpc": "grpc", "http": "httpcore", "websocket": "websockets"}
    script = f"""
import sys
from casdk._transport.address import parse_address
from casdk._transport.channels import channel_of
before = sys.modules.keys() & {set(libraries.values())}
channel_of(parse_address("{scheme}://host:1"))
print(sorted(before), sorted(sys.modules.keys() & {set(libraries.values())}))
"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown == f"[] {[libraries[SCHEMES[scheme].channel]]}\n"
