"""The whole server: where it listens, and that it answers the requests it has received when it is stopped."""

import asyncio
import contextlib
import os
import signal
import socket
from threading import Thread

import grpc
import httpx
import psutil
import pytest
from casdk.server import ServerDiedError, serve
from casdk.server.gateway import Gateway
from casdk.server.settings import Settings
from casdk.wire.jina_pb2 import DataRequestProto
from cryptography import x509
from websockets.exceptions import ConnectionClosed

SIX = ("grpc", "http", "websocket", "grpcs", "https", "websockets")


def test_addresses_and_certificate():
    with serve() as served:
        assert sorted(served.addresses) == sorted(SIX)
        assert all(served.address(scheme).startswith(f"{scheme}://127.0.0.1:") for scheme in SIX)
        with pytest.raises(ValueError, match="'ftp' is not served"):
            served.address("ftp")
        certificate = x509.load_pem_x509_certificate(served.ca.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["localhost"]
        assert [str(name) for name in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
        assert not (served.ca.parent / "key.pem").stat().st_mode & 0o077
        directory = served.ca.parent
    assert not directory.exists()


def test_only_what_is_asked_for_is_served():
    with serve(schemes=["http"], index=False) as served:
        assert list(served.addresses) == ["http"]
        with pytest.raises(ValueError, match="no secure scheme"):
            _ = served.ca


def test_ipv6(raw):
    with serve(host="::1") as served:
        assert served.address("grpc").startswith("grpc://[::1]:")
        assert httpx.get(served.address("https"), verify=raw.trust(served)).json() == {}
        for scheme in ("grpc", "grpcs"):
            with raw.channel(served, scheme) as channel:
                assert raw.single(channel, raw.request("/", {"text": "a"})).data.docs.docs
        with raw.socket(served, "websockets") as opened:
            opened.send(b"\x00")


def test_stopping_answers_what_was_asked(raw):
    with serve(chaos=True) as served, raw.channel(served) as channel, raw.socket(served) as opened:
        slow = raw.request("/", {"text": "!!sleep:1"}, request_id="slow")
        quick = raw.request("/", {"text": "a"}, request_id="quick")
        single = channel.unary_unary(raw.SINGLE, response_deserializer=DataRequestProto.FromString)
        waiting = single.future(slow.SerializeToString())
        stream = channel.stream_stream(raw.STREAM, response_deserializer=DataRequestProto.FromString)
        replies = stream(_never_ending([slow.SerializeToString(), quick.SerializeToString()]))
        assert next(replies).header.request_id == "quick"
        for message in (slow, quick):
            opened.send(message.SerializeToString())
        assert DataRequestProto.FromString(opened.recv(raw.WAIT)).header.request_id == "quick"
        directory = served.ca.parent

        os.kill(served.pid, signal.SIGTERM)
        assert waiting.result(raw.WAIT).data.docs.docs[0].HasField("embedding")
        assert next(replies).header.request_id == "slow"
        with pytest.raises(grpc.RpcError) as end:
            next(replies)
        assert end.value.code() is grpc.StatusCode.UNAVAILABLE
        assert DataRequestProto.FromString(opened.recv(raw.WAIT)).header.request_id == "slow"
        with pytest.raises(ConnectionClosed):
            opened.recv(raw.WAIT)
        assert opened.close_code == 1001
        assert served.stop() == 0
        assert not directory.exists()


def _never_ending(messages):
    """Send the messages and keep the stream open, as a client does between calls."""
    from threading import Event

    yield from messages
    Event().wait(20)


def test_a_request_under_way_over_http_is_answered(raw):
    with serve(schemes=["http"], chaos=True) as served:
        answers = []
        body = {"data": [{"text": "!!sleep:0.7"}]}
        address = served.address("http")
        asking = Thread(target=lambda: answers.append(httpx.post(f"{address}/post", json=body, timeout=raw.WAIT)))
        asking.start()
        probing = httpx.post(f"{address}/post", json={"data": [{"text": "!!sleep:0.2"}]}, timeout=raw.WAIT)
        assert probing.status_code == 200
        assert served.stop() == 0
        asking.join()
        assert answers[0].json()["data"][0]["embedding"]
        with pytest.raises(httpx.ConnectError):
            httpx.get(address)


def test_grace_is_the_end_of_patience(raw):
    with serve(schemes=["grpc"], chaos=True, grace=0.5) as served, raw.channel(served) as channel:
        single = channel.unary_unary(raw.SINGLE, response_deserializer=DataRequestProto.FromString)
        waiting = single.future(raw.request("/", {"text": "!!sleep:600"}).SerializeToString())
        assert raw.single(channel, raw.request("/", {"text": "a"})).data.docs.docs
        assert served.stop() == 0
        with pytest.raises(grpc.RpcError):
            waiting.result(raw.WAIT)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_taken_port_is_named(server, scheme):
    port = int(server.address(scheme).rpartition(":")[2])
    with pytest.raises(ServerDiedError, match=rf"(?s)code 2 .*cannot listen on 127\.0\.0\.1:{port} for {scheme}"):
        serve(schemes=[scheme], ports={scheme: port}).__enter__()


def test_more_memory_than_grpc_can_count_is_fine(raw):
    with serve(schemes=["grpc", "http"], max_memory=1 << 37) as served, raw.channel(served) as channel:
        assert raw.single(channel, raw.request("/", {"text": "a"})).header.status.code == 0


def test_two_servers_do_not_share_a_workspace(tmp_path):
    with (
        serve(schemes=["http"], workspace=tmp_path),
        pytest.raises(ServerDiedError, match="another server uses the workspace"),
    ):
        serve(schemes=["http"], workspace=tmp_path).__enter__()


def test_no_port_waits_for_a_delayed_acknowledgement():
    """A socket inherits TCP_NODELAY from the one that accepted it."""

    async def delaying():
        gateway = Gateway(Settings(ports=dict.fromkeys(SIX, 0), threads=1))
        async with gateway.run() as ready:
            ports = {
                int(address.rpartition(":")[2]) for scheme, address in ready.addresses.items() if "grpc" not in scheme
            }
            listening = [each for each in psutil.Process().net_connections() if each.laddr.port in ports]
            assert len(listening) == len(ports)
            sockets = [socket.socket(fileno=os.dup(each.fd)) for each in listening]
            with contextlib.ExitStack() as stack:
                for bound in sockets:
                    stack.enter_context(bound)
                return [bound for bound in sockets if not bound.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)]

    assert asyncio.run(delaying()) == []
