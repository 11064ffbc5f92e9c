"""Which channel carries a scheme."""

import os
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
from casdk.testing._thread import reserve

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


ALONE = """
import os, sys

LIBRARIES = ("grpc", "httpx", "websockets")
for library in LIBRARIES:
    sys.modules[library] = None  # importing it fails from here on

import casdk

*addresses, closed = sys.argv[1:]
for address in addresses:
    with casdk.Client(address) as client:
        assert client.encode(["a"]).shape[0] == 1
for scheme in ("grpc", "http", "websocket"):
    with casdk.Client(f"{scheme}://{closed}", retry=casdk.Retry(attempts=1)) as client:
        try:
            client.encode(["a"])
        except casdk.TransportError as error:
            print(type(error).__name__)
assert [sys.modules[library] for library in LIBRARIES] == [None, None, None]
"""
WISHES = {"GRPC_EXPERIMENTS": "event_engine_client", "GRPC_VERBOSITY": "debug", "GRPC_POLL_STRATEGY": "poll"}
"""Variables that grpcio reads, which are not to bring it about."""


def test_the_default_uses_no_library_whatever_fails_or_the_environment_says(server):
    addresses = [server.address(scheme) for scheme in ("grpc", "http", "websocket")]
    with reserve() as held:
        port = held.getsockname()[1]
        ran = subprocess.run(
            [sys.executable, "-c", ALONE, *addresses, f"127.0.0.1:{port}"],
            env=os.environ | WISHES,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.split() == ["TransportError"] * 3
