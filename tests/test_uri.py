import pytest
from casdk._uri import ALIASES, DEFAULT_PORTS, Endpoint, parse_address
from casdk.errors import ConfigError


@pytest.mark.parametrize("scheme", DEFAULT_PORTS)
def test_address_with_port(scheme):
    endpoint = parse_address(f"{scheme}://clip.example:1234")
    assert endpoint == Endpoint(scheme, "clip.example", 1234)
    assert endpoint.tls is (scheme in ("grpcs", "https", "websockets"))
    assert str(endpoint) == f"{scheme}://clip.example:1234"


@pytest.mark.parametrize(("scheme", "port"), DEFAULT_PORTS.items())
def test_default_port(scheme, port):
    assert parse_address(f"{scheme}://clip.example").port == port == (443 if scheme.endswith("s") else 80)


@pytest.mark.parametrize(("alias", "scheme"), ALIASES.items())
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
