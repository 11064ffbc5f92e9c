"""Calls over HTTP/2 that casdk speaks itself: what only these do; the rest is tested with all channels."""

import contextlib
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from casdk import Client, DeadlineError, Document, Retry, Timeouts, TransportError
from casdk._engine.process import engine
from casdk._transport.channels.http2 import MOST_MOVES
from casdk.testing import FaultServer, Gate, Hold, embed
from casdk.wire.jina_pb2 import DataRequestProto
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded
from h2.settings import SettingCodes

ONCE = Retry(attempts=1)
WIDTH = 8
ANSWER = [(":status", "200"), ("content-type", "application/grpc")]


def reply_to(message):
    """Return what a server answers: each text's row."""
    reply = DataRequestProto()
    reply.ParseFromString(message)
    for document in reply.data.docs.docs:
        row = embed(document.text, WIDTH)
        document.embedding.dense.buffer = row.tobytes()
        document.embedding.dense.shape.append(WIDTH)
        document.embedding.dense.dtype = "<f4"
    body = reply.SerializeToString()
    return struct.pack(">BI", 0, len(body)) + body


class Peer:
    """A server of bytes by hand, for what no library does at the moment it is wanted.

    ``act(peer, connection, number, stream)`` is called for each whole request of each connection, and returns whether
    it is to be answered; ``number`` counts the connections.
    """

    def __init__(self, act, settings=None, answered=True):
        self.act, self.settings, self.answered = act, settings or {}, answered
        self.connections, self.requests, self.texts = 0, [], []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"grpc://127.0.0.1:{self.listener.getsockname()[1]}"
        self.threads = [threading.Thread(target=self.accept)]
        self.sockets = []

    def __enter__(self):
        self.threads[0].start()
        return self

    def __exit__(self, *error):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.threads[0].join()
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads[1:]:
            thread.join()
        self.listener.close()

    def accept(self):
        try:
            while True:
                sock, _ = self.listener.accept()
                self.sockets.append(sock)
                self.threads.append(threading.Thread(target=self.talk, args=(sock, self.connections)))
                self.connections += 1
                self.threads[-1].start()
        except OSError:
            return

    def talk(self, sock, number):
        h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        h2.initiate_connection()
        h2.update_settings(self.settings)
        bodies = {}
        with sock:
            try:
                sock.sendall(h2.data_to_send())
                while data := sock.recv(1 << 16):
                    for event in h2.receive_data(data):
                        if isinstance(event, RequestReceived):
                            bodies[event.stream_id] = b""
                        elif isinstance(event, DataReceived):
                            bodies[event.stream_id] += event.data
                            h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                        elif isinstance(event, StreamEnded):
                            stream = event.stream_id
                            self.requests.append((number, stream))
                            if self.act(self, h2, number, stream):
                                h2.send_headers(stream, ANSWER)
                                h2.send_data(stream, reply_to(bodies[stream][5:]))
                                h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)
                    sock.sendall(h2.data_to_send())
            except (OSError, KeyError):
                return


def rows(texts):
    return np.stack([embed(text, WIDTH) for text in texts])


def test_an_index_moves_on_from_a_connection_that_goes_away():
    """As nginx does after a thousand requests: what it has not begun with goes to another one, at no attempt's cost."""

    def act(peer, h2, number, stream):
        if stream >= 5 and number < 3:
            if stream == 5:
                h2.close_connection(ErrorCodes.NO_ERROR, last_stream_id=3)
            return False
        return True

    with Peer(act) as peer, Client(peer.address, retry=ONCE, timeout=20, transport="own") as client:
        for number in range(10):
            stored = client.index([Document(text=f"{number}")])
            assert len(stored) == 1
        assert peer.connections == 4


def test_a_stream_that_is_refused_moves_on():
    def act(peer, h2, number, stream):
        if number == 0:
            h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
        return number > 0

    with Peer(act) as peer, Client(peer.address, retry=ONCE, timeout=20, transport="own") as client:
        client.index([Document(text="a")])
        assert [number for number, _ in peer.requests] == [0, 1]


def test_a_request_ends_after_some_connections_that_refuse_each_stream():
    def act(peer, h2, number, stream):
        h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
        return False

    with Peer(act) as peer, Client(peer.address, retry=ONCE, timeout=20, transport="own") as client:
        with pytest.raises(TransportError) as caught:
            client.index([Document(text="a")])
        assert (caught.value.sent, caught.value.retryable, list(caught.value.unconfirmed)) == (False, True, [])
        assert len(peer.requests) == MOST_MOVES


def hang_up_on_the_second(peer, h2, number, stream):
    """Close the first connection when its second request has come, without a word."""
    if (number, stream) == (0, 3):
        raise OSError
    return True


def test_an_idle_connection_that_ends_before_a_byte_of_an_answer():
    """The server may have closed it before the request came, so what may be repeated is made once more at no cost."""
    with Peer(hang_up_on_the_second) as peer, Client(peer.address, retry=ONCE, timeout=20, transport="own") as client:
        for text in "ab":
            np.testing.assert_array_equal(client.encode([text]), rows([text]))
        assert peer.requests == [(0, 1), (0, 3), (1, 1)]


def test_an_index_on_such_a_connection_may_have_been_stored():
    with Peer(hang_up_on_the_second) as peer, Client(peer.address, retry=ONCE, timeout=20, transport="own") as client:
        client.index([Document(text="a")])
        with pytest.raises(TransportError) as caught:
            client.index([Document(text="b")])
        assert (caught.value.sent, list(caught.value.unconfirmed)) == (True, [0])
        assert peer.requests == [(0, 1), (0, 3)]


def test_a_request_that_ends_a_connection_each_time_is_an_error():
    def act(peer, h2, number, stream):
        if peer.requests != [(0, 1)]:
            raise OSError
        return True

    with Peer(act) as peer, Client(peer.address, retry=ONCE, timeout=20, transport="own") as client:
        client.encode(["warm"])
        with pytest.raises(TransportError, match="the connection broke") as caught:
            client.encode(["a"])
        assert caught.value.sent
        assert peer.requests == [(0, 1), (0, 3), (1, 1)]


def test_the_end_of_an_idle_connection_is_noticed_before_an_index():
    """When the call is made, the end has come and was not read yet, since the engine was blocked."""
    gate, held = threading.Event(), threading.Event()

    def hold():
        held.set()
        gate.wait()

    with Peer(lambda *_: True) as peer, Client(peer.address, retry=ONCE, timeout=20, transport="own") as client:
        client.index([Document(text="a")])
        engine().post(hold)
        held.wait()
        peer.sockets[0].shutdown(socket.SHUT_RDWR)
        with ThreadPoolExecutor(1) as pool:
            stored = pool.submit(client.index, [Document(text="b")])
            while not engine().callers:
                time.sleep(0.001)
            gate.set()
            assert len(stored.result()) == 1
        assert peer.requests == [(0, 1), (1, 1)]


def test_no_more_streams_at_once_than_the_server_takes():
    most = []

    def act(peer, h2, number, stream):
        most.append(h2.open_inbound_streams)
        return True

    texts = [f"text {number}" for number in range(200)]
    with (
        Peer(act, {SettingCodes.MAX_CONCURRENT_STREAMS: 2}) as peer,
        Client(peer.address, retry=ONCE, timeout=60, transport="own") as client,
    ):
        np.testing.assert_array_equal(client.encode(texts, batch_size=1, prefetch=32), rows(texts))
        assert max(most) <= 2
        assert peer.connections == 1


def test_a_deadline_resets_the_stream_and_the_connection_goes_on():
    gate = Gate()
    with FaultServer([Hold(gate)], width=WIDTH) as server:
        timeouts = Timeouts(read=2)
        with Client(server.address("grpc"), retry=ONCE, timeouts=timeouts, transport="own") as client:
            with ThreadPoolExecutor(1) as pool:
                late = pool.submit(client.encode, ["late"])
                gate.wait_for(1)
                np.testing.assert_array_equal(client.encode(["in time"]), rows(["in time"]))
                with pytest.raises(DeadlineError):
                    late.result()
            server.wait_for(lambda seen: seen.taken_back == 1)
            np.testing.assert_array_equal(client.encode(["again"]), rows(["again"]))


def test_a_server_may_end_a_call_at_its_deadline_first():
    """As tonic does, with CANCELLED; by its own clock it may be 0.05 s early, here at once."""

    def act(peer, h2, number, stream):
        refusal = [*ANSWER, ("grpc-status", "1"), ("grpc-message", "Timeout expired")]
        h2.send_headers(stream, refusal, end_stream=True)
        return False

    timeouts = Timeouts(read=0.04)
    with (
        Peer(act) as peer,
        Client(peer.address, retry=ONCE, timeouts=timeouts, transport="own") as client,
        pytest.raises(DeadlineError, match="sent no reply within"),
    ):
        client.encode(["a"])


def test_old_gateways_have_only_the_streaming_method():
    """It is found out once."""
    with FaultServer(width=WIDTH, unary=False) as server:
        with Client(server.address("grpc"), retry=ONCE, timeout=20, transport="own") as client:
            for text in "abc":
                np.testing.assert_array_equal(client.encode([text]), rows([text]))
        assert server.counters.requests == 3
