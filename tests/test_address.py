"""Addresses of servers: their schemes, ports and hosts, and what is refused."""

import msgspec
import pytest
from casdk import Client, Telemetry
from casdk._transport.address import SCHEMES, Endpoint, counterpart, parse_address
from casdk.cli.access import Access
from casdk.cli.doctor import examine
from casdk.errors import ConfigError
from casdk.testing import FaultServer, embed
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider


@pytest.mark.parametrize("scheme", SCHEMES)
def test_address_with_port(scheme):
    endpoint = parse_address(f"{scheme}://clip.example:1234")
    assert endpoint == Endpoint(scheme, "clip.example", 1234)
    assert endpoint.tls is (scheme in ("grpcs", "https", "websockets"))
    assert str(endpoint) == f"{scheme}://clip.example:1234"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_default_port(scheme):
    assert parse_address(f"{scheme}://clip.example").port == (443 if scheme.endswith("s") else 80)


@pytest.mark.parametrize(("scheme", "row"), SCHEMES.items())
def test_counterpart(scheme, row):
    other = counterpart(scheme, tls=not row.tls)
    assert {scheme, other} in ({"grpc", "grpcs"}, {"http", "https"}, {"websocket", "websockets"})
    assert counterpart(scheme, channel="http") == ("https" if row.tls else "http")
    assert counterpart(scheme) == scheme


@pytest.mark.parametrize(("alias", "scheme"), [("ws", "websocket"), ("wss", "websockets")])
def test_alias(alias, scheme):
    assert parse_address(f"{alias.upper()}://h:1").scheme == scheme


def test_ipv6_literal():
    endpoint = parse_address("grpc://[::1]:51000")
    assert (endpoint.host, endpoint.port, endpoint.authority) == ("::1", 51000, "[::1]:51000")


def test_trailing_slash_is_no_path():
    assert parse_address("http://h:1/") == Endpoint("http", "h", 1)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("", "begin with one of these schemes"),
        ("127.0.0.1:51000", "begin with one of these schemes"),
        ("ftp://h:1", "begin with one of these schemes"),
        ("grpc:/h:1", "begin with one of these schemes"),
        ("grpc://", "no host"),
        ("grpc://:51000", "no host"),
        ("grpc://h:0", "port 0"),
        ("grpc://h:65536", "bad host or port"),
        ("grpc://h:x", "bad host or port"),
        ("grpc://[::1:51000", "bad host or port"),
        ("http://h:1/post", "without path, query or fragment"),
        ("http://h:1?x=1", "without path, query or fragment"),
        ("http://h:1#x", "without path, query or fragment"),
        ("grpc://h :1", "white space"),
        ("grpc://h\x00:1", "control characters"),
        ("grpc://\ud800:1", "control characters"),
        ("http://a..b:1", "host that no name can be"),
        (f"websocket://{'a' * 64}.example:1", "host that no name can be"),
    ],
)
def test_refused(address, says):
    with pytest.raises(ConfigError, match=says):
        parse_address(address)


@pytest.mark.parametrize("address", ["grpc://me:s3cret@h:1", "https://s3cret@h", "https://me:s3cret@h:notaport"])
def test_user_info_is_refused_and_never_shown(address):
    with pytest.raises(ConfigError) as caught:
        parse_address(address)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_not_a_str():
    with pytest.raises(ConfigError, match="must be a str"):
        parse_address(51000)


@pytest.mark.parametrize("like", SCHEMES)
def test_a_row_is_all_that_a_scheme_needs(monkeypatch, like):
    """Client, telemetry, the doctor and the scripted server take a scheme of its own name by its row alone."""
    monkeypatch.setitem(SCHEMES, "clip", msgspec.structs.replace(SCHEMES[like], alias="c", port=4711))
    assert parse_address("c://clip.example") == Endpoint("clip", "clip.example", 4711)
    telemetry = Telemetry(tracer_provider=TracerProvider(), meter_provider=MeterProvider())
    with FaultServer() as server:
        address = server.address("clip", "localhost")
        access = Access(ca=server.ca if SCHEMES[like].tls else None)
        with Client(address, tls=access.tls(), telemetry=telemetry) as client:
            assert (client.encode(["a"])[0] == embed("a")).all()
        assert [finding.detail for finding in examine(address, access) if not finding.ok] == []
    assert server.counters.by_scheme["clip"] >= 1
