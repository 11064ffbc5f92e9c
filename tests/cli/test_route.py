"""Scripted faults of addresses, names, ports and proxies: the doctor names each, and its cure."""

from __future__ import annotations

import socket

import pytest
from casdk.testing import (
    BlackHole,
    ConnectProxy,
    FaultServer,
    Shut,
    TcpProxy,
)


def test_a_scheme_that_does_not_exist(diagnosed):
    diagnosed("gprc://127.0.0.1:51000", "address", "must begin with one of these schemes", "command line", 2)


def test_tls_options_without_tls(diagnosed):
    diagnosed("grpc://127.0.0.1:51000", "address", "grpcs://", "command line", 2, ("--insecure",))


def test_a_name_without_an_address(diagnosed):
    diagnosed("grpc://no-such-host.invalid:51000", "dns", "no-such-host.invalid has no address", "check")


def test_nothing_listens(diagnosed, free_port):
    diagnosed(f"grpc://127.0.0.1:{free_port}", "tcp", "nothing listens on 127.0.0.1", "start the server")


def test_no_port_was_given(diagnosed):
    with socket.socket() as sock:
        if sock.connect_ex(("127.0.0.1", 80)) == 0:
            pytest.skip("something listens on port 80 of this machine")
    diagnosed("http://127.0.0.1", "tcp", "nothing listens on 127.0.0.1 port 80", "http://127.0.0.1:51000")


def test_a_firewall_that_drops(diagnosed):
    with BlackHole() as hole:
        diagnosed(hole.address("grpc"), "tcp", "no answer from 127.0.0.1", "firewall")


def test_nothing_behind_the_port(diagnosed):
    with FaultServer(connections=Shut(0)) as server:
        diagnosed(server.address("grpc"), "protocol", "closes them without a word", "behind what accepts")


def test_a_port_that_resets(diagnosed, free_port):
    with TcpProxy(free_port) as proxy:
        proxy.refuse()
        diagnosed(proxy.address("grpc"), "tcp or protocol", "", "behind what accepts")


# proxies


def test_a_proxy_that_wants_a_password(diagnosed):
    with FaultServer() as server, ConnectProxy("user", "s3cret-pass") as proxy:
        environment = {"http_proxy": proxy.url()}
        diagnosed(server.address("grpc"), "proxy", "407", "user and password", environment=environment)


def test_a_proxy_that_refuses_the_target(diagnosed):
    with FaultServer() as server, ConnectProxy(status=403) as proxy:
        environment = {"http_proxy": proxy.url("user:s3cret-pass")}
        diagnosed(server.address("websocket"), "proxy", "403", "NO_PROXY", environment=environment)


def test_a_proxy_that_is_gone(diagnosed, free_port):
    with FaultServer() as server:
        environment = {"https_proxy": f"http://127.0.0.1:{free_port}"}
        diagnosed(server.address("grpcs"), "tcp", "the proxy 127.0.0.1", "HTTPS_PROXY", environment=environment)


def test_a_proxy_that_says_nothing(diagnosed):
    with FaultServer() as server, ConnectProxy(silent=True) as proxy:
        environment = {"all_proxy": proxy.url()}
        diagnosed(server.address("grpc"), "proxy", "does not answer within", "NO_PROXY", environment=environment)
