"""Servers that end connections by age or after some requests: no call fails because of that, not even an index."""

import asyncio
import logging
import shutil
import subprocess
import threading
from contextlib import contextmanager

import grpc.aio
import numpy as np
import pytest
from casdk import Client, Document, Retry, TransportError
from casdk._engine.logging import flush
from casdk._transport.channels.http2 import MOST_MOVES
from casdk.testing import FaultServer, embed
from casdk.testing._thread import reserve
from casdk.wire.jina_pb2 import DataRequestProto
from peers import keep, peer

ONCE = Retry(attempts=1)
WIDTH = 8
INDEXES = 300
EMPTY_SETTINGS = b"\0\0\0\4" + bytes(5)
GOAWAY = b"\0\0\x08\x07" + bytes(5) + bytes(8)
"""Of no error, with no stream that was begun with."""


def answer(message):
    """Return the reply with a row for each text."""
    reply = DataRequestProto.FromString(message)
    for document in reply.data.docs.docs:
        dense = document.embedding.dense
        dense.buffer, dense.dtype = embed(document.text, WIDTH).tobytes(), "<f4"
        dense.shape.append(WIDTH)
    return reply.SerializeToString()


class Service(grpc.GenericRpcHandler):
    """What jina's gateway is to a client, on grpc.aio; it keeps the texts of each `index`."""

    def __init__(self):
        self.texts = []

    def service(self, details):
        if "process_single_data" not in details.method:
            return None
        return grpc.unary_unary_rpc_method_handler(self.reply)

    async def reply(self, message, context):
        request = DataRequestProto.FromString(message)
        if request.header.exec_endpoint == "/index":
            self.texts += [document.text for document in request.data.docs.docs]
        return answer(message)


@contextmanager
def serving(**options):
    """A server of grpc.aio on a loop of its own, with gRPC's options; its address and its service."""
    service, ready, done = Service(), threading.Event(), None

    async def serve():
        nonlocal done
        done = asyncio.Event()
        server = grpc.aio.server(options=[(f"grpc.{name}", value) for name, value in options.items()])
        server.add_generic_rpc_handlers((service,))
        service.port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        ready.set()
        await done.wait()
        await server.stop(None)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        yield f"grpc://127.0.0.1:{service.port}", service
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


def check(client):
    """Index texts one after the other while others are encoded; return the texts."""
    stop, failed = threading.Event(), []

    def encode():
        while not stop.is_set():
            try:
                np.testing.assert_array_equal(client.encode(["a", "b"]), [embed(text, WIDTH) for text in "ab"])
            except BaseException as error:
                failed.append(error)
                return

    threads = [threading.Thread(target=encode) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        texts = [f"text {number}" for number in range(INDEXES)]
        for text in texts:
            client.index([Document(text=text)])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []
    return texts


@pytest.fixture
def opened(caplog):
    """A function that returns how many connections have been opened."""
    caplog.set_level(logging.INFO, "casdk.connections")

    def opened():
        assert flush(20)
        return sum(record.getMessage().endswith("is open") for record in caplog.records)

    return opened


def test_connections_of_an_age(opened):
    options = {"max_connection_age_ms": 100, "max_connection_age_grace_ms": 20_000}
    with serving(**options) as (address, service), Client(address, retry=ONCE, timeout=40, transport="own") as client:
        texts = check(client)
    assert service.texts == texts
    assert opened() > 3


def test_a_server_that_greets_and_takes_leave_at_once():
    """None of its connections has taken a request, so that even an index is known not to have arrived."""
    greetings = []

    def take_leave(connection):
        greetings.append(connection)
        connection.sendall(EMPTY_SETTINGS + GOAWAY)
        keep(connection)

    with (
        peer(take_leave) as place,
        Client(f"grpc://{place}", retry=ONCE, timeout=40, transport="own") as client,
        pytest.raises(TransportError, match="ends each connection before it begins with a request") as caught,
    ):
        client.index([Document(text="a")])
    assert not caught.value.sent
    assert len(greetings) == MOST_MOVES


NGINX = """
daemon off;
error_log stderr;
pid {folder}/pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    keepalive_requests 7;
    server {{
        listen 127.0.0.1:{port} http2;
        location / {{ grpc_pass grpc://127.0.0.1:{behind}; }}
    }}
}}
"""


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_connections_of_so_many_requests(tmp_path, opened):
    # nginx listens beside the socket that holds its port, so that nobody else gets it before.
    with reserve() as reserved, FaultServer(width=WIDTH) as server:
        port = reserved.getsockname()[1]
        settings = tmp_path / "nginx.conf"
        settings.write_text(NGINX.format(folder=tmp_path, port=port, behind=server.port("grpc")))
        process = subprocess.Popen(["nginx", "-c", settings, "-e", "stderr"])
        try:
            with Client(f"grpc://127.0.0.1:{port}", retry=Retry(attempts=50), timeout=40, transport="own") as client:
                client.encode(["it listens"])
            with Client(f"grpc://127.0.0.1:{port}", retry=ONCE, timeout=40, transport="own") as client:
                texts = check(client)
        finally:
            process.terminate()
            process.wait()
        assert [text for request in server.requests if request.endpoint == "/index" for text in request.texts] == texts
    assert opened() > INDEXES // 7
