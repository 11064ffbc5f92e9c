"""TLS, credentials and proxies: the right typed error with its cause, one refresh, and no secret anywhere."""

import contextlib
import logging
import os
import resource
import socket
import ssl
import traceback
from concurrent.futures import ThreadPoolExecutor

import casdk
import numpy as np
import pytest
from casdk import TLS, AuthError, ConfigError, ProxyError, Retry, TLSError, TransportError
from casdk._engine.logging import flush
from casdk._transport.channels.base import Connected
from casdk.testing import ConnectProxy, certificates
from cryptography.hazmat.primitives import serialization

pytestmark = pytest.mark.tls
ONCE = Retry(attempts=1)
SECURE = ("grpcs", "https", "websockets")
secure = pytest.mark.parametrize("scheme", SECURE)


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


# TLS


@secure
@pytest.mark.parametrize("problem", ["expired", "wrong host", "self-signed", "unknown authority"])
def test_a_certificate_that_is_not_trusted(make_server, connect_to, scheme, call, problem, tally):
    authority = certificates.authority()
    options, tls = {}, TLS(ca=authority.pem)
    if problem == "unknown authority":
        tls = TLS(ca=certificates.Authority("another").pem)
    else:
        made = {"expired": authority.expired, "wrong host": authority.wrong_host}
        options["certificate"] = made.get(problem, certificates.self_signed)()
    server = make_server(**options)
    with pytest.raises(TLSError) as caught:
        call(connect_to(server, scheme, tls=tls, retry=ONCE, timeout=10), "encode", ["a"])
    assert "\n" not in str(caught.value)
    assert server.counters.requests == 0
    tally("access: bad certificates refused")


@secure
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
def test_nothing_older_than_tls_1_2_is_spoken(connect_to, scheme, call, tmp_path):
    """By a server in a thread: asyncio's closes without the alert that says what is wrong."""
    authority = certificates.authority()
    cert, key = authority.server(["localhost", "127.0.0.1"]).write(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.load_cert_chain(cert, key)
    context.sslsocket_class = Connected
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        class Place:
            def address(self, scheme):
                return f"{scheme}://localhost:{listener.getsockname()[1]}"

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    context.wrap_socket(connection, server_side=True)

        serving = pool.submit(serve)
        try:
            with pytest.raises(TLSError):
                call(connect_to(Place(), scheme, tls=TLS(ca=authority.pem), retry=ONCE, timeout=10), "encode", ["a"])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            serving.result(10)


@secure
def test_a_private_authority_and_a_name(make_server, connect_to, scheme, call, rows):
    authority = certificates.authority()
    server = make_server(certificate=authority.server(["clip.example"]))
    tls = TLS(ca=authority.pem, server_name="clip.example")
    np.testing.assert_array_equal(call(connect_to(server, scheme, tls=tls, timeout=20), "encode", ["a"]), rows(["a"]))


@secure
def test_mutual_tls(make_server, connect_to, scheme, call, rows, tmp_path):
    authority = certificates.authority()
    server = make_server(client_ca=authority.pem)
    cert, key = authority.client().write(tmp_path)
    tls = TLS(ca=authority.pem, cert=cert, key=key)
    np.testing.assert_array_equal(call(connect_to(server, scheme, tls=tls, timeout=20), "encode", ["a"]), rows(["a"]))
    with pytest.raises(TransportError):
        call(connect_to(server, scheme, tls=TLS(ca=authority.pem), retry=ONCE, timeout=10), "encode", ["a"])


@secure
def test_a_full_disk_is_no_fault_of_the_certificate(make_server, connect_to, scheme, call):
    """A client's own goes through a file on the way to OpenSSL."""
    authority = certificates.authority()
    own = authority.client()
    client = connect_to(make_server(), scheme, tls=TLS(ca=authority.pem, cert=own.pem, key=own.key), timeout=10)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(ConfigError, match=r"cert and key go through files in .*: File too large"):
            call(client, "encode", ["a"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


UNVERIFIED = {
    "self-signed for another host": lambda authority: certificates.self_signed(["elsewhere.invalid"]),
    "of an unknown authority": lambda authority: authority.server(["elsewhere.invalid", "clip.example"]),
    "for any host of a domain": lambda authority: authority.server(["*.example"]),
    "for an address": lambda authority: authority.server(["192.0.2.7"]),
}


@secure
@pytest.mark.parametrize("kind", UNVERIFIED)
def test_any_certificate_will_do_where_nothing_is_verified(make_server, connect_to, scheme, call, rows, kind):
    server = make_server(certificate=UNVERIFIED[kind](certificates.Authority("another")))
    client = connect_to(server, scheme, tls=TLS(verify=False), timeout=20)
    np.testing.assert_array_equal(call(client, "encode", ["a"]), rows(["a"]))


@secure
def test_nothing_is_verified_by_name_through_a_proxy_nor_with_a_client_certificate(
    make_server, connect_to, scheme, rows, tmp_path
):
    authority = certificates.Authority("another")
    server = make_server(certificate=authority.server(["clip.example", "elsewhere.invalid"]), client_ca=authority.pem)
    cert, key = authority.client().write(tmp_path)
    tls = TLS(cert=cert, key=key, server_name="elsewhere.invalid", verify=False)
    with ConnectProxy("user", "p@ss") as proxy:
        client = connect_to(server, scheme, tls=tls, proxy=proxy.url("user:p%40ss"), timeout=20)
        np.testing.assert_array_equal(client.encode(["a"]), rows(["a"]))
        assert set(proxy.targets) == {f"127.0.0.1:{server.port(scheme)}"}
        client.close()


@secure
@pytest.mark.parametrize("kind", ["expired", "premature"])
def test_without_verification_any_certificate_will_do(make_server, connect_to, scheme, call, rows, kind, own):
    """But for grpcio, which says so."""
    server = make_server(certificate=getattr(certificates.Authority("another"), kind)())
    client = connect_to(server, scheme, tls=TLS(verify=False), retry=ONCE, timeout=10)
    if scheme == "grpcs" and not own:
        with pytest.raises(TLSError, match="not even with verify=False"):
            call(client, "encode", ["a"])
    else:
        np.testing.assert_array_equal(call(client, "encode", ["a"]), rows(["a"]))


def encrypted(pem):
    key = serialization.load_pem_private_key(pem, None)
    seal = serialization.BestAvailableEncryption(b"a pass phrase")
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, seal)


def nonsense(kind):
    return f"-----BEGIN {kind}-----\nxx\n-----END {kind}-----\n".encode()


UNUSABLE = {
    "an encrypted key": ("key", lambda: encrypted(certificates.authority().client().key), "key is encrypted"),
    "another's key": ("key", lambda: certificates.authority().client().key, "mismatch"),
    "a key that is none": ("key", lambda: nonsense("PRIVATE KEY"), "cannot be used"),
    "an authority that is none": ("ca", lambda: nonsense("CERTIFICATE"), "cannot be used"),
    "a file that is not there": ("ca", lambda: "/no/such.pem", "No such file"),
}


@secure
@pytest.mark.parametrize("case", UNUSABLE)
def test_what_cannot_be_used_is_said_alike(make_server, connect_to, scheme, call, case):
    """OpenSSL would ask the terminal for a pass phrase, and everything would wait."""
    field, make, says = UNUSABLE[case]
    authority = certificates.authority()
    client = authority.client()
    tls = TLS(**{"ca": authority.pem, "cert": client.pem, "key": client.key, field: make()})
    with pytest.raises(ConfigError, match=says):
        call(connect_to(make_server(), scheme, tls=tls, retry=ONCE, timeout=10), "encode", ["a"])


# credentials


@pytest.mark.parametrize("kind", ["callable", "async callable"])
def test_a_credential_is_asked_for_once_more(make_server, connect_to, scheme, call, rows, kind):
    server = make_server(token="second")
    given = []

    def token():
        given.append("first" if not given else "second")
        return given[-1]

    async def token_async():
        return token()

    client = connect_to(server, scheme, credential=token if kind == "callable" else token_async, timeout=20)
    np.testing.assert_array_equal(call(client, "encode", ["a"]), rows(["a"]))
    np.testing.assert_array_equal(call(client, "encode", ["b"]), rows(["b"]))
    assert given == ["first", "second"]
    server.token = "third"
    with pytest.raises(AuthError):
        call(client, "encode", ["c"])
    assert len(given) == 3


def test_a_static_credential(make_server, connect_to, scheme, call, rows):
    server = make_server(token="right")
    np.testing.assert_array_equal(
        call(connect_to(server, scheme, credential="right", timeout=20), "encode", ["a"]), rows(["a"])
    )
    with pytest.raises(AuthError):
        call(connect_to(server, scheme, credential="wrong", timeout=20), "encode", ["a"])


def test_no_secret_is_shown(make_server, connect_to, scheme, call, caplog, tally):
    secret = "s3cret-token"
    caplog.set_level(logging.DEBUG)
    for log in ("hpack", "websockets.server"):  # the fault server's own
        caplog.set_level(logging.WARNING, log)
    client = connect_to(make_server(token="other"), scheme, credential=secret, timeout=20)
    with pytest.raises(AuthError) as caught:
        call(client, "encode", ["a"])
    assert flush(20)
    shown = "".join(traceback.format_exception(caught.value))
    assert secret not in shown + repr(client) + repr(client._settings) + repr(vars(caught.value)) + caplog.text
    assert secret not in locals_of(caught.value)
    tally("access: refused calls that show no secret")


def locals_of(error):
    """Return what a debugger, or a service that collects errors, would show of casdk's own frames."""
    shown = []
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if os.path.dirname(casdk.__file__) in frame.f_code.co_filename:
                shown += [f"{name}={value!r}" for name, value in list(frame.f_locals.items())]
        error = error.__cause__ or error.__context__
    assert shown
    return "\n".join(shown)


# proxies


def test_a_proxy(make_server, connect_to, scheme, call, rows):
    server = make_server()
    with ConnectProxy() as proxy:
        client = connect_to(server, scheme, proxy=proxy.url(), timeout=20)
        np.testing.assert_array_equal(call(client, "encode", ["a"]), rows(["a"]))
        assert f"127.0.0.1:{server.port(scheme)}" in proxy.targets
        client.close()


@pytest.mark.parametrize("exempt", [False, True])
def test_a_proxy_of_the_environment(make_server, connect_to, scheme, rows, monkeypatch, exempt):
    server = make_server()
    with ConnectProxy() as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url())
        if exempt:
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        before = dict(os.environ)
        client = connect_to(server, scheme, timeout=20)
        np.testing.assert_array_equal(client.encode(["a"]), rows(["a"]))
        assert bool(proxy.targets) is not exempt
        assert dict(os.environ) == before
        client.close()


def test_a_proxy_that_wants_a_password(make_server, connect_to, scheme, call, rows, caplog):
    caplog.set_level(logging.DEBUG)
    with ConnectProxy("user", "s3cret") as proxy:
        client = connect_to(make_server(), scheme, proxy=proxy.url("user:s3cret"), timeout=20)
        np.testing.assert_array_equal(call(client, "encode", ["a"]), rows(["a"]))
        client.close()
        refused = connect_to(make_server(), scheme, proxy=proxy.url("user:wr0ng"), retry=ONCE, timeout=10)
        with pytest.raises(ProxyError) as caught:
            call(refused, "encode", ["a"])
        refused.close()
    assert type(caught.value) is ProxyError
    assert caught.value.code == "407"
    assert flush(20)
    shown = "".join(traceback.format_exception(caught.value)) + repr(client) + caplog.text
    assert "s3cret" not in shown
    assert "wr0ng" not in shown


def test_the_servers_credential_is_not_asked_for_by_a_proxy(make_server, connect_to, scheme):
    """Another one of the server's would not open the proxy."""
    asked = []

    def credential():
        asked.append("token")
        return "token"

    server = make_server()
    with ConnectProxy(status=407) as proxy:
        client = connect_to(server, scheme, credential=credential, proxy=proxy.url(), retry=ONCE, timeout=10)
        with pytest.raises(ProxyError, match="407"):
            client.encode(["a"])
        client.close()
        assert len(proxy.targets) == 1
    assert len(asked) == 1
