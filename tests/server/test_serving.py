import asyncio
import base64
import contextlib
import io
import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import grpc
import httpx
import numpy as np
import psutil
import pytest
from casdk.server import ServerDiedError, serve
from casdk.server.certificates import write_certificate
from casdk.server.encoders import Features
from casdk.server.gateway import Gateway
from casdk.server.settings import Settings
from casdk.wire.jina_pb2 import DataRequestProto
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus

TOKEN = "s3cret-tök3n"
SIX = ("grpc", "http", "websocket", "grpcs", "https", "websockets")


def _single(channel, doors, message, **options):
    call = channel.unary_unary(doors.SINGLE, DataRequestProto.SerializeToString, DataRequestProto.FromString)
    return call(message, **{"timeout": doors.WAIT} | options)


def _ended(pid):
    """Wait until a process of any parent is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 20)[0])
    finally:
        os.close(descriptor)


def _png(width, height):
    out = io.BytesIO()
    Image.new("1", (width, height)).save(out, "PNG")
    return out.getvalue()


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


def test_without_index_everything_encodes(doors):
    with serve(schemes=["grpc"], index=False) as served, doors.channel(served) as channel:
        for endpoint in ("/index", "/search", "/delete"):
            reply = _single(channel, doors, doors.request(endpoint, {"text": "a"}))
            assert [route.executor for route in reply.routes] == ["gateway", "encoder"]
            assert reply.data.docs.docs[0].HasField("embedding")
            assert not reply.data.docs.docs[0].matches


def test_a_certificate_of_ones_own(tmp_path):
    cert, key = write_certificate(tmp_path, "clip.example")
    with serve(schemes=["https"], cert=cert, key=key) as served:
        assert served.ca == cert
        context = ssl.create_default_context(cafile=cert)
        assert httpx.get(served.address("https"), verify=context).status_code == 200
    assert cert.exists()


def test_ipv6(doors):
    with serve(host="::1") as served:
        assert served.address("grpc").startswith("grpc://[::1]:")
        assert httpx.get(served.address("https"), verify=doors.trust(served)).json() == {}
        for scheme in ("grpc", "grpcs"):
            with doors.channel(served, scheme) as channel:
                assert _single(channel, doors, doors.request("/", {"text": "a"})).data.docs.docs
        with doors.socket(served, "websockets") as opened:
            opened.send(b"\x00")


@pytest.mark.parametrize("given", [None, "", "wrong", TOKEN[:-1], f"Bearer {TOKEN}"])
def test_the_token_guards_every_door(guarded, doors, given):
    header = {} if given is None else {"authorization": given.encode()}
    metadata = [("authorization-bin" if given is None else "authorization", _metadata(given))]
    for scheme in ("grpc", "grpcs"):
        with doors.channel(guarded, scheme) as channel:
            for method in (doors.SINGLE, "/jina.JinaGatewayDryRunRPC/dry_run", "/jina.JinaInfoRPC/_status"):
                with pytest.raises(grpc.RpcError) as failure:
                    channel.unary_unary(method)(b"", metadata=metadata, timeout=doors.WAIT)
                assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED
            replies = channel.stream_stream(doors.STREAM)(iter([b""]), metadata=metadata, timeout=doors.WAIT)
            with pytest.raises(grpc.RpcError) as failure:
                next(replies)
            assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with httpx.Client(verify=doors.trust(guarded), headers=header) as http:
        for method, path in (("POST", "/post"), ("POST", "/index"), ("GET", "/openapi.json"), ("GET", "/status")):
            assert http.request(method, guarded.address("https") + path).status_code == 401
    for path in ("/", "/dry_run"):
        with pytest.raises(InvalidStatus) as refusal:
            doors.socket(guarded, "websockets", path, additional_headers=_latin(header))
        assert refusal.value.response.status_code == 401


def _metadata(given):
    return b"" if given is None else given.encode("latin-1", "replace").decode("ascii", "replace").replace("�", "?")


def _latin(header):
    return {name: value.decode("latin-1") for name, value in header.items()}


@pytest.fixture(scope="module")
def guarded():
    with serve(token=TOKEN) as served:
        yield served


def test_the_token_opens_http_and_websocket(guarded, doors):
    header = {"authorization": TOKEN.encode()}
    with httpx.Client(verify=doors.trust(guarded), headers=header) as http:
        for scheme in ("http", "https"):
            assert http.post(guarded.address(scheme) + "/post", json={"data": []}).status_code == 200
    with doors.socket(guarded, additional_headers=_latin(header)) as opened:
        opened.send(doors.request("/", {"text": "a"}).SerializeToString())
        assert opened.recv(doors.WAIT)


def test_the_token_opens_grpc(doors):
    with serve(schemes=["grpc"], token="ascii") as served, doors.channel(served) as channel:
        reply = _single(channel, doors, doors.request("/", {"text": "a"}), metadata=[("authorization", "ascii")])
        assert reply.data.docs.docs
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"") == b"\x08\x01"


def test_the_token_is_nowhere_to_be_seen(guarded):
    command = Path(f"/proc/{guarded.pid}/cmdline").read_bytes()
    assert TOKEN.encode() not in command
    assert TOKEN not in guarded.log()
    assert TOKEN not in repr(Settings(ports={"grpc": 0}, token=TOKEN))


@pytest.fixture(scope="module")
def narrow():
    with serve(max_message=100_000, max_pixels=10_000) as served:
        yield served


def test_messages_beyond_the_limit_are_refused(narrow, doors):
    large = doors.request("/", {"blob": b"x" * 200_000})
    with doors.channel(narrow) as channel, pytest.raises(grpc.RpcError) as failure:
        _single(channel, doors, large)
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    body = json.dumps(doors.as_json(large)).encode()
    address = narrow.address("http") + "/post"
    assert httpx.post(address, content=body).status_code == 413
    assert httpx.post(address, content=iter([body[:90_000], body[90_000:]])).status_code == 413
    with doors.socket(narrow) as opened:
        opened.send(large.SerializeToString())
        with pytest.raises(ConnectionClosed):
            opened.recv(doors.WAIT)
    assert opened.close_code == 1009


def test_images_beyond_the_limit_are_named(narrow, doors):
    tensor = {"dense": {"buffer": b"\0" * 10_100, "shape": [101, 100], "dtype": "|u1"}}
    bomb = _png(10_000, 10_000)
    assert len(bomb) < 100_000
    with doors.channel(narrow) as channel:
        fine = _single(channel, doors, doors.request("/", {"blob": _png(100, 100)}))
        assert fine.header.status.code == 0
        for form, size in (
            ({"blob": _png(101, 100)}, "10100 pixels"),
            ({"tensor": tensor}, "100 x 101"),
            ({"blob": bomb}, ""),
        ):
            status = _single(channel, doors, doors.request("/", {"text": "a"}, form)).header.status
            assert status.exception.args[0].startswith("document 1: ")
            assert size in status.description
            assert "limit" in status.description
            assert status.exception.executor == "EncodeExecutor"


@contextlib.contextmanager
def _web(bodies):
    """A web server: path -> body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = bodies.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()
        thread.join()


def test_uris_are_fetched_when_the_server_may(doors):
    picture = _png(50, 40)
    with (
        _web({"/a.png": picture, "/large": b"x" * 200_000}) as web,
        serve(schemes=["grpc"], fetch_uris=True, max_message=100_000) as served,
        doors.channel(served) as channel,
    ):
        reply = _single(channel, doors, doors.request("/", {"uri": f"{web}/a.png"})).data.docs.docs[0]
        expected = Features().encode_images([Image.open(io.BytesIO(picture))])[0]
        assert np.array_equal(doors.row(reply), expected)
        assert (reply.uri, reply.blob) == (f"{web}/a.png", b"")
        for uri, words in (
            (f"{web}/none", "404"),
            (f"{web}/large", "exceeds the limit"),
            ("http://127.0.0.1:1/", "connection attempts failed"),
            ("file:///etc/hostname", "reads no files"),
        ):
            status = _single(channel, doors, doors.request("/", {"uri": uri})).header.status
            assert words in status.description


def test_the_index_survives_being_killed_after_the_reply(tmp_path, doors):
    texts = [f"text number {at}" for at in range(50)]
    with serve(schemes=["grpc"], workspace=tmp_path) as served, doors.channel(served) as channel:
        forms = [{"text": text, "id": text, "tags": {"n": float(at)}} for at, text in enumerate(texts)]
        assert _single(channel, doors, doors.request("/index", *forms)).header.status.code == 0
        os.kill(served.pid, signal.SIGKILL)
        assert served.stop() == -signal.SIGKILL
    with serve(schemes=["grpc"], workspace=tmp_path) as served, doors.channel(served) as channel:
        (status,) = _single(channel, doors, doors.request("/status")).data.docs.docs
        assert status.tags["total_docs"] == 50
        reply = _single(channel, doors, doors.request("/search", {"text": texts[7]}, limit=1))
        (best,) = reply.data.docs.docs[0].matches
        assert (best.id, best.text, dict(best.tags)) == (texts[7], texts[7], {"n": 7.0})


def test_stopping_answers_what_was_asked(doors):
    with serve(chaos=True) as served, doors.channel(served) as channel, doors.socket(served) as opened:
        slow = doors.request("/", {"text": "!!sleep:1"}, request_id="slow")
        quick = doors.request("/", {"text": "a"}, request_id="quick")
        single = channel.unary_unary(doors.SINGLE, response_deserializer=DataRequestProto.FromString)
        waiting = single.future(slow.SerializeToString())
        stream = channel.stream_stream(doors.STREAM, response_deserializer=DataRequestProto.FromString)
        replies = stream(_never_ending([slow.SerializeToString(), quick.SerializeToString()]))
        assert next(replies).header.request_id == "quick"
        for message in (slow, quick):
            opened.send(message.SerializeToString())
        assert DataRequestProto.FromString(opened.recv(doors.WAIT)).header.request_id == "quick"
        directory = served.ca.parent

        os.kill(served.pid, signal.SIGTERM)
        assert waiting.result(doors.WAIT).data.docs.docs[0].HasField("embedding")
        assert next(replies).header.request_id == "slow"
        with pytest.raises(grpc.RpcError) as end:
            next(replies)
        assert end.value.code() is grpc.StatusCode.UNAVAILABLE
        assert DataRequestProto.FromString(opened.recv(doors.WAIT)).header.request_id == "slow"
        with pytest.raises(ConnectionClosed):
            opened.recv(doors.WAIT)
        assert opened.close_code == 1001
        assert served.stop() == 0
        assert not directory.exists()


def _never_ending(messages):
    """Send the messages and keep the stream open, as a client does between calls."""
    from threading import Event

    yield from messages
    Event().wait(20)


def test_a_request_under_way_over_http_is_answered(doors):
    with serve(schemes=["http"], chaos=True) as served:
        answers = []
        body = {"data": [{"text": "!!sleep:0.7"}]}
        address = served.address("http")
        asking = Thread(target=lambda: answers.append(httpx.post(f"{address}/post", json=body, timeout=doors.WAIT)))
        asking.start()
        probing = httpx.post(f"{address}/post", json={"data": [{"text": "!!sleep:0.2"}]}, timeout=doors.WAIT)
        assert probing.status_code == 200
        assert served.stop() == 0
        asking.join()
        assert answers[0].json()["data"][0]["embedding"]
        with pytest.raises(httpx.ConnectError):
            httpx.get(address)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(number):
    with serve() as served:
        os.kill(served.pid, number)
        assert served.stop() == 0
        assert served.log().endswith("finishing what was asked\n")


def test_grace_is_the_end_of_patience(doors):
    with serve(schemes=["grpc"], chaos=True, grace=0.5) as served, doors.channel(served) as channel:
        single = channel.unary_unary(doors.SINGLE, response_deserializer=DataRequestProto.FromString)
        waiting = single.future(doors.request("/", {"text": "!!sleep:600"}).SerializeToString())
        assert _single(channel, doors, doors.request("/", {"text": "a"})).data.docs.docs
        assert served.stop() == 0
        with pytest.raises(grpc.RpcError):
            waiting.result(doors.WAIT)


def test_it_ends_with_a_killed_parent():
    script = """
import signal
from casdk.server import serve
with serve() as served:
    print(served.pid, served.ca, flush=True)
    signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        pid, certificate = parent.stdout.readline().split()
        parent.kill()
        parent.wait()
    assert _ended(int(pid))
    assert not Path(certificate).parent.exists()


def test_a_killed_server_leaves_nothing_behind():
    with serve(schemes=["https"]) as served:
        directory = served.ca.parent
        assert directory.parent == Path(tempfile.gettempdir())
        os.kill(served.pid, signal.SIGKILL)
        assert served.stop() == -signal.SIGKILL
    assert not directory.exists()


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_taken_port_is_named(server, scheme):
    port = int(server.address(scheme).rpartition(":")[2])
    with pytest.raises(ServerDiedError, match=rf"(?s)code 2 .*cannot listen on 127\.0\.0\.1:{port} for {scheme}"):
        serve(schemes=[scheme], ports={scheme: port}).__enter__()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schemes": ["ftp"]}, "no scheme 'ftp'"),
        ({"schemes": ["http"], "ports": {"grpc": 1}}, "not among those served"),
        ({"cert": "/nowhere/cert.pem", "key": "/nowhere/key.pem"}, "No such file"),
        ({"cert": "/nowhere/cert.pem"}, "come together"),
        ({"encoder": "onnx:/nowhere"}, "/nowhere"),
        ({"threads": 0}, "at least 1"),
        ({"grace": -1}, "grace must be a number of seconds from 0 to 86400"),
        ({"grace": float("nan")}, "grace must be"),
        ({"grace": float("inf")}, "grace must be"),
        ({"host": ""}, "no host to listen on"),
        ({"token": " s3cret"}, "no client can send a token with white space"),
        ({"token": "s3\ncret"}, "no client can send a token"),
    ],
)
def test_what_cannot_be_served_is_said(options, words):
    with pytest.raises(ServerDiedError, match=words) as death:
        serve(**options).__enter__()
    assert "Traceback" not in str(death.value)


def _keys(directory):
    """Two certificates with their keys, the first key once more under a password, and a file that is none of it."""
    for name in ("one", "other"):
        (directory / name).mkdir()
        write_certificate(directory / name)
    one = serialization.load_pem_private_key((directory / "one/key.pem").read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"password")
    pem = serialization.Encoding.PEM
    (directory / "secret.pem").write_bytes(one.private_bytes(pem, serialization.PrivateFormat.PKCS8, secret))
    (directory / "none.pem").write_text("no certificate")
    return directory


@pytest.mark.parametrize(
    ("cert", "key", "words"),
    [
        ("none.pem", "one/key.pem", "no certificate in PEM and its key"),
        ("one/cert.pem", "none.pem", "no certificate in PEM and its key"),
        ("one/cert.pem", "other/key.pem", "no certificate in PEM and its key"),
        ("one/key.pem", "one/cert.pem", "no certificate in PEM and its key"),
        ("one/cert.pem", "secret.pem", "secret.pem is encrypted, and there is nobody to ask"),
        ("one", "one", "Is a directory"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_named_on_every_scheme(tmp_path, cert, key, words):
    """gRPC said that it failed to bind, and OpenSSL asked for a password."""
    directory = _keys(tmp_path)
    for scheme in ("grpcs", "https"):
        settings = Settings(ports={scheme: 0}, cert=directory / cert, key=directory / key)
        with pytest.raises(ValueError, match=words) as refusal:
            asyncio.run(_started(settings))
        assert str(directory / key) in str(refusal.value)


async def _started(settings):
    async with Gateway(settings).run() as ready:
        return ready.addresses


def test_more_memory_than_grpc_can_count_is_fine(doors):
    with serve(schemes=["grpc", "http"], max_memory=1 << 37) as served, doors.channel(served) as channel:
        assert _single(channel, doors, doors.request("/", {"text": "a"})).header.status.code == 0


def test_a_terminal_that_is_closed_ends_it_cleanly():
    """It left a directory behind, with a key in it."""
    with serve(schemes=["https"]) as served:
        directory = served.ca.parent
        os.kill(served.pid, signal.SIGHUP)
        assert served.stop() == 0
    assert not directory.exists()


def test_a_hangup_that_is_ignored_stays_ignored():
    command = ["nohup", sys.executable, "-m", "casdk.server", "--free-ports", "--schemes=http", "--ready-json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        address = json.loads(process.stdout.readline())["addresses"]["http"]
        process.send_signal(signal.SIGHUP)
        assert httpx.get(address).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--encoder", "onnx"], "--encoder onnx and --model DIR come together"),
        (["--model", "models"], "--encoder onnx and --model DIR come together"),
        (["--port", "http=²"], "'http=²' is not of the form SCHEME=PORT"),
        (["--port", "http=٣"], "'http=٣' is not of the form SCHEME=PORT"),
    ],
)
def test_options_that_say_nothing_are_refused(options, words):
    command = [sys.executable, "-m", "casdk.server", "--free-ports", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_address_of_ipv6_may_stand_in_brackets():
    command = [sys.executable, "-m", "casdk.server", "--free-ports", "--schemes=http", "--ready-json", "--host=[::1]"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        address = json.loads(process.stdout.readline())["addresses"]["http"]
        assert address.startswith("http://[::1]:")
        assert httpx.get(address).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_two_servers_do_not_share_a_workspace(tmp_path):
    with (
        serve(schemes=["http"], workspace=tmp_path),
        pytest.raises(ServerDiedError, match="another server uses the workspace"),
    ):
        serve(schemes=["http"], workspace=tmp_path).__enter__()


def test_help_and_versions_of_the_command():
    command = [sys.executable, "-m", "casdk.server"]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    assert "it is not CLIP" in " ".join(shown.split())
    assert "51443" in shown
    wrong = subprocess.run([*command, "--port", "grpc"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "SCHEME=PORT" in wrong.stderr


def test_the_ready_line_is_all_that_stdout_gets():
    command = [sys.executable, "-m", "casdk.server", "--free-ports", "--schemes=http", "--ready-json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        ready = json.loads(process.stdout.readline())
        assert ready["pid"] == process.pid
        assert httpx.get(ready["addresses"]["http"]).status_code == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (out, process.returncode) == ("", 0)
    assert ready["addresses"]["http"] in err


def test_a_data_uri_is_no_fetch(server, doors):
    picture = _png(9, 9)
    uri = "data:image/png;base64," + base64.b64encode(picture).decode()
    with doors.channel(server) as channel:
        for form, ok in (({"uri": uri}, True), ({"uri": uri[:-3] + "!"}, False), ({"uri": "data:image/png"}, False)):
            assert (_single(channel, doors, doors.request("/", form)).header.status.code == 0) is ok


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
