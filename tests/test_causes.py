"""The error of a failed connection says why in casdk's own words, with what to do, on every scheme alike."""

import re
import socket

import pytest
from casdk import TLS, Client, Retry, TLSError, TransportError
from casdk._transport.channels import causes
from casdk._transport.channels.causes import cause_of, without_grpc
from casdk.cli.exits import for_command_line
from casdk.testing import DeadExecutor, FaultServer, Shut, certificates
from casdk.testing._thread import reserve

ONCE = Retry(attempts=1)
FOREIGN = re.compile(
    r"\[Errno|\[SSL|_ssl\.c|ipv[46]:|failed to connect|UNKNOWN|UNAVAILABLE|OPENSSL|TSI_|SSL_ERROR|http2|Stream removed",
)
SECURE = {"grpcs", "https", "websockets"}


def said_by(address, **options):
    """What a client says of an address where it gets no answer."""
    with Client(address, retry=ONCE, timeout=10, **options) as client, pytest.raises(TransportError) as caught:
        client.encode(["a"])
    assert not FOREIGN.search(str(caught.value))
    return caught.value


def test_no_server_listens(scheme):
    with reserve() as reserved:
        port = reserved.getsockname()[1]
        assert str(said_by(f"{scheme}://127.0.0.1:{port}")) == f"{scheme}://127.0.0.1:{port}: {causes.REFUSED}"


def test_a_name_without_an_address(scheme):
    assert str(said_by(f"{scheme}://nowhere.invalid:80")).endswith(str(causes.NO_ADDRESS))


def test_a_server_that_closes_at_once(scheme):
    with FaultServer(connections=Shut(0)) as server:
        said_by(server.address(scheme), **({"tls": TLS(ca=server.ca)} if scheme in SECURE else {}))


def test_a_server_that_lost_its_executor(scheme):
    with FaultServer(DeadExecutor()) as server:
        options = {"tls": TLS(ca=server.ca)} if scheme in SECURE else {}
        client = Client(server.address(scheme), retry=ONCE, timeout=10, **options)
        with client, pytest.raises(TransportError, match="the server does not reach what is behind it: ") as caught:
            client.encode(["a"])
    assert not FOREIGN.search(str(caught.value))


AUTHORITY = certificates.authority()
DISTRUSTED = {
    "expired": (AUTHORITY.expired, causes.EXPIRED),
    "premature": (AUTHORITY.premature, causes.NOT_YET_VALID),
    "wrong host": (AUTHORITY.wrong_host, causes.OTHER_NAME),
    "unknown authority": (lambda: certificates.Authority("another").server(), causes.UNKNOWN_AUTHORITY),
    "self-signed": (certificates.self_signed, causes.SELF_SIGNED),
}


@pytest.mark.parametrize("scheme", sorted(SECURE))
@pytest.mark.parametrize("kind", DISTRUSTED)
def test_a_certificate_that_is_not_trusted_comes_with_its_cure(scheme, kind, own):
    make, cause = DISTRUSTED[kind]
    if scheme == "grpcs" and kind == "self-signed" and not own:  # grpcio does not tell the two apart
        cause = causes.UNKNOWN_AUTHORITY
    with FaultServer(certificate=make()) as server:
        error = said_by(server.address(scheme), tls=TLS(ca=AUTHORITY.pem))
        assert type(error) is TLSError
        assert str(error) == f"{server.address(scheme)}: {cause}"


@pytest.mark.parametrize("kind", DISTRUSTED)
def test_the_command_line_and_the_doctor_name_the_same_cure(kind, capfd, tmp_path):
    from casdk.cli import main

    make, cause = DISTRUSTED[kind]
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.pem)
    with FaultServer(certificate=make()) as server:
        words = [server.address("https"), "--ca", str(tmp_path / "ca.pem")]
        assert main(["profile", *words]) == 4
        assert for_command_line(cause.cure) in capfd.readouterr().err
        assert "TLS(" not in for_command_line(cause.cure)
        assert main(["doctor", *words]) == 4
        if kind != "wrong host":  # of which the doctor knows the name that is in it
            assert for_command_line(cause.cure) in capfd.readouterr().out


WORDS = {
    "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required (_ssl.c:2548)": causes.CLIENT_REFUSED,
    "[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired (_ssl.c:1006)": causes.CLIENT_REFUSED,
    "SSL_ERROR_SSL: error:10000410:SSL routines:OPENSSL_internal:SSLV3_ALERT_HANDSHAKE_FAILURE": causes.CLIENT_REFUSED,
    "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca (_ssl.c:1006)": causes.CLIENT_REFUSED,
    "[SSL: UNSUPPORTED_PROTOCOL] unsupported protocol (_ssl.c:1006)": causes.OLD_TLS,
    "[SSL: TLSV1_ALERT_PROTOCOL_VERSION] tlsv1 alert protocol version (_ssl.c:1006)": causes.OLD_TLS,
    "certificate verify failed: self-signed certificate in certificate chain (_ssl.c:1006)": causes.UNKNOWN_AUTHORITY,
    "CERTIFICATE_VERIFY_FAILED: self signed certificate: OK": causes.SELF_SIGNED,
    "Hostname mismatch, certificate is not valid for 'here'. (_ssl.c:1006)": causes.OTHER_NAME,
    "Handshake read failed (Socket closed)": causes.CLOSED_IN_TLS,
    "[Errno 111] Connect call failed ('::1', 9, 0, 0); [Errno 111] Connect call failed ('1.2.3.4', 9)": causes.REFUSED,
    "[Errno 101] Network is unreachable": causes.NO_ROUTE,
    "ipv4:10.0.0.1:80: Failed to connect to remote host: No route to host": causes.NO_ROUTE,
    f"[Errno {socket.EAI_AGAIN}] Temporary failure in name resolution": causes.NO_LOOK_UP,
    "errors resolving here:80: [field:hostname lookup error: DNS query timed out]": causes.NO_LOOK_UP,
    "something nobody has seen": None,
}


@pytest.mark.parametrize("words", WORDS)
def test_words_as_they_were_seen(words):
    assert cause_of(words) is WORDS[words]


def test_addresses_that_failed_for_different_reasons_have_no_one_cause():
    said = "[Errno 111] Connect call failed ('127.0.0.1', 9); [Errno 9999] something else"
    assert cause_of(said) is None


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:9: odd words", "odd words"),
        ("failed to connect to all addresses; last error: UNAVAILABLE: ipv6:%5B::1%5D:9: odd words", "odd words"),
        ("Stream removed (recvmsg:Connection reset by peer (104))", "the connection broke"),
        ("words of the server's", "words of the server's"),
    ],
)
def test_what_is_left_without_grpcs_words(said, left):
    assert without_grpc(said) == left
