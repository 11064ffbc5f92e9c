"""Scripted faults of TLS: the doctor names each, and its cure."""

from __future__ import annotations

import os
import socket
import ssl
import struct
from contextlib import contextmanager, suppress
from threading import Thread

import pytest
from casdk._transport.channels.base import Connected
from casdk.cli.handshake import unverified
from casdk.testing import (
    FaultServer,
    Shut,
    StallHandshake,
    certificates,
)


@contextmanager
def shown(certificate, **options):
    with FaultServer(certificate=certificate, **options) as server:
        yield server


def test_no_tls_there(diagnosed):
    with FaultServer() as server:
        url = f"grpcs://127.0.0.1:{server.port('grpc')}"
        diagnosed(url, "tls", "no TLS", f"use grpc://127.0.0.1:{server.port('grpc')}")


def test_an_expired_certificate(diagnosed, trusting):
    with shown(certificates.authority().expired()) as server:
        diagnosed(server.address("grpcs"), "tls", "has expired at", "renew", words=trusting(server))


def test_a_certificate_of_tomorrow(diagnosed, trusting):
    with shown(certificates.authority().premature()) as server:
        diagnosed(server.address("https"), "tls", "not valid before", "clock", words=trusting(server))


def test_a_certificate_for_another_name(diagnosed, trusting):
    with shown(certificates.authority().wrong_host()) as server:
        cure = "--server-name elsewhere.invalid"
        detail = "for elsewhere.invalid, not for 127.0.0.1"
        diagnosed(server.address("grpcs"), "tls", detail, cure, words=trusting(server))


def test_an_authority_nobody_knows(diagnosed):
    with FaultServer() as server:
        diagnosed(server.address("websockets"), "tls", "signed by CN=casdk testing authority", "--ca FILE")


def test_another_authority_than_the_one_given(diagnosed, trusting):
    with shown(certificates.Authority("another authority").server()) as server:
        detail = "another authority, which the authorities of --ca FILE do not vouch for"
        diagnosed(server.address("grpcs"), "tls", detail, "--ca FILE", words=trusting(server))


def test_a_self_signed_certificate(diagnosed):
    with shown(certificates.self_signed()) as server:
        diagnosed(server.address("grpcs"), "tls", "self-signed", "--ca FILE")


@contextmanager
def outspoken(version, client_ca=None):
    """A port of TLS that says why it refuses a client, which asyncio's servers do not."""
    context = certificates.server_context(certificates.authority().server(), ["http/1.1"], client_ca, version)
    context.sslsocket_class = Connected

    def serve():
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock, suppress(OSError), context.wrap_socket(sock, server_side=True) as secure:
                secure.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_tls_of_the_last_century(diagnosed, trusting):
    with outspoken(ssl.TLSVersion.TLSv1_1) as port:
        words = trusting(FaultServer())
        diagnosed(f"https://127.0.0.1:{port}", "tls", "no TLS newer than 1.1", "1.2", words=words)


def test_a_clients_certificate_is_wanted(diagnosed, trusting):
    with outspoken(ssl.TLSVersion.TLSv1_3, certificates.authority().pem) as port:
        url, words = f"https://127.0.0.1:{port}", trusting(FaultServer())
        diagnosed(url, "tls", "refuses this client", "--cert", words=words)


def test_a_clients_certificate_is_wanted_in_tls_1_2(diagnosed, trusting):
    with outspoken(ssl.TLSVersion.TLSv1_2, certificates.authority().pem) as port:
        url, words = f"https://127.0.0.1:{port}", trusting(FaultServer())
        diagnosed(url, "tls", "refuses this client", "--cert", words=words)


def test_a_clients_certificate_is_wanted_without_a_word(diagnosed, trusting):
    with FaultServer(client_ca=certificates.authority().pem) as server:
        words = trusting(server)
        diagnosed(server.address("https"), "tls", "right after it", "--cert", words=words)


def test_a_handshake_that_stalls(diagnosed):
    with FaultServer(connections=StallHandshake()) as server:
        diagnosed(server.address("grpcs"), "tls", "does not finish the TLS handshake", "stuck")


def test_a_handshake_that_is_cut(diagnosed):
    with FaultServer(connections=Shut(0)) as server:
        diagnosed(server.address("grpcs"), "tls", "closed in the TLS handshake", "behind")


def test_a_file_that_is_no_authority(diagnosed, tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    with FaultServer() as server:
        diagnosed(server.address("grpcs"), "tls", "ca holds no PEM block", "--ca", 2, ("--ca", tmp_path / "ca.pem"))


def test_a_reset_before_the_handshake_leaves_no_socket_open():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    number = ours.fileno()
    with pytest.raises(ConnectionResetError) as raised:
        unverified(ours, "localhost", ["h2"])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)  # while the traceback still holds what would close it some day
    assert str(raised.value) == "closed before the handshake"
