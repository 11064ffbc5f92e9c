"""Which channel carries a scheme."""

import json
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
from casdk.testing.certificates import Authority

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
import json, sys
from pathlib import Path

LIBRARIES = ("grpc", "httpx", "websockets")
given = json.loads(sys.argv[1])
if given["out of reach"]:
    for library in LIBRARIES:
        sys.modules[library] = None  # importing it fails from here on

import casdk
from casdk import TLS, Client, Retry

def connect(address, ca):
    return Client(address, retry=Retry(attempts=1), tls=TLS(ca=Path(ca)) if ca else None)

for address, ca in given["served"]:
    with connect(address, ca) as client:
        assert client.encode(["a"]).shape[0] == 1
for address, ca in given["failing"]:
    with connect(address, ca) as client:
        try:
            client.encode(["a"])
        except casdk.TransportError as error:
            print(type(error).__name__)
assert [library for library in LIBRARIES if sys.modules.get(library)] == []
"""
WISHES = {"GRPC_EXPERIMENTS": "event_engine_client", "GRPC_VERBOSITY": "debug", "GRPC_POLL_STRATEGY": "poll"}
"""Variables that grpcio reads, which are not to bring it about."""
PLAIN = {"grpcs": "grpc", "https": "http", "websockets": "websocket"}
"""Of each secure scheme, the one whose port speaks no TLS."""
OTHER = {"grpc": "http", "http": "grpc", "websocket": "http", "grpcs": "https", "websockets": "https"}
"""Of schemes, one whose port speaks another protocol, and says so or something else."""


@pytest.mark.parametrize("out_of_reach", [False, True], ids=["installed", "out-of-reach"])
def test_the_default_uses_no_library_whatever_fails_or_the_environment_says(server, tmp_path, out_of_reach):
    """Nobody listens, a certificate is not trusted, a port speaks no TLS, or another protocol."""
    ca, other_ca = str(server.ca), tmp_path / "other.pem"
    other_ca.write_bytes(Authority("another authority").pem)
    trusted = {scheme: ca if scheme in PLAIN else "" for scheme in (*PLAIN.values(), *PLAIN)}

    def at(scheme, place):
        return f"{scheme}://{place.rpartition('/')[2]}"

    with reserve() as held:
        unserved = f"127.0.0.1:{held.getsockname()[1]}"
        failing = {
            "TransportError": [
                *((at(scheme, unserved), ca) for scheme, ca in trusted.items()),
                (at("https", server.address("grpcs")), ca),  # gRPC's server closes it, since HTTP/2 was not offered
            ],
            "TLSError": [(server.address(scheme), str(other_ca)) for scheme in PLAIN],
            "ProtocolMismatchError": [
                *((at(scheme, server.address(plain)), ca) for scheme, plain in PLAIN.items()),
                *((at(scheme, server.address(other)), trusted[scheme]) for scheme, other in OTHER.items()),
            ],
        }
        given = {
            "out of reach": out_of_reach,
            "served": [(server.address(scheme), ca) for scheme, ca in trusted.items()],
            "failing": [place for places in failing.values() for place in places],
        }
        ran = subprocess.run(
            [sys.executable, "-c", ALONE, json.dumps(given)],
            env=os.environ | WISHES,
            capture_output=True,
            text=True,
            timeout=240,
        )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.split() == [name for name, places in failing.items() for _ in places]
