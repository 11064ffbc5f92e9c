"""The fault server, as other clients see it: it answers, counts, stops and starts again."""

import socket

import pytest
from casdk.testing import SCHEMES, Fault, FaultServer, Shut, embed
from casdk.wire.values import array_of


def test_it_answers_every_library_and_counts(ask, request_for):
    with FaultServer(width=8) as server:
        reply = ask(server, request_for("a", "b"))
        assert [(document.id, document.text) for document in reply.data.docs.docs] == [
            ("id of a", "a"),
            ("id of b", "b"),
        ]
        counters = server.wait_for(lambda counters: counters.running == 0)
    assert (counters.requests, counters.replies, counters.documents) == (1, 1, 2)
    (seen,) = server.requests
    assert (seen.number, seen.endpoint, seen.texts) == (0, "/encode", ("a", "b"))
    assert counters.by_scheme == {seen.scheme: 1}


def test_rows_are_those_that_anyone_can_compute(request_for):
    with FaultServer(width=8) as server:
        reply = server.executor.answer(request_for("a"))
    assert array_of(reply.data.docs.docs[0].embedding).tolist() == embed("a", 8).tolist()


def test_each_scheme_has_its_port_and_keeps_it():
    with FaultServer() as server:
        ports = {scheme: server.port(scheme) for scheme in SCHEMES}
        assert len(set(ports.values())) == len(SCHEMES)
        assert server.address("http", "localhost") == f"http://localhost:{ports['http']}"
        server.down()
        for port in ports.values():
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
        server.up()
        assert {scheme: server.port(scheme) for scheme in SCHEMES} == ports
        for port in ports.values():
            socket.create_connection(("127.0.0.1", port)).close()
    for port in ports.values():
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_connections_are_ended_and_others_taken():
    with FaultServer() as server:
        with socket.create_connection(("127.0.0.1", server.port("http"))) as first:
            first.settimeout(20)
            server.wait_for(lambda counters: counters.open == 1)
            server.disconnect("close")
            assert first.recv(1) == b""
        server.wait_for(lambda counters: counters.open == 0)
        with socket.create_connection(("127.0.0.1", server.port("http"))):
            assert server.wait_for(lambda counters: counters.open == 1).accepted == 2


def test_what_did_not_happen_in_time_shows_what_did():
    with FaultServer() as server, pytest.raises(TimeoutError, match=r"not within 0\.01 s: Counters\(accepted=0"):
        server.wait_for(lambda counters: counters.requests > 0, timeout=0.01)


def test_it_must_run_to_be_stopped_or_asked():
    server = FaultServer()
    server.stop()
    with pytest.raises(RuntimeError, match="use it as a context manager, or start"):
        server.down()


def test_an_error_of_a_script_is_raised_at_the_end(request_for, ask):
    class Broken(Fault):
        async def wait(self, exchange):
            raise LookupError("of the script")

    server = FaultServer(Broken()).start()
    with pytest.raises(Exception):  # noqa: B017, PT011, of three libraries whose connection was cut
        ask(server, request_for("a"))
    with pytest.raises(LookupError, match="of the script"):
        server.stop()


def test_a_token_guards_it(ask, request_for):
    with FaultServer(token="right") as server:
        assert ask(server, request_for("a"), authorization="right").data.docs.docs
        server.wait_for(lambda counters: counters.replies == 1)
        server.token = None
        assert ask(server, request_for("a")).data.docs.docs


@pytest.mark.parametrize("poison", [["b"], "b".__eq__])
def test_a_text_may_be_poison(ask, request_for, poison):
    with FaultServer(poison=poison) as server:
        assert ask(server, request_for("a")).header.status.code == 0
        assert ask(server, request_for("b")).header.status.code == 1


def test_no_more_requests_are_kept_than_wanted(ask, request_for):
    with FaultServer(history=2) as server:
        for text in "abc":
            ask(server, request_for(text))
        assert [request.texts for request in server.requests] == [("b",), ("c",)]


def test_connections_fare_as_they_were_told():
    with FaultServer(connections=[Shut(), None]) as server:
        with socket.create_connection(("127.0.0.1", server.port("http"))) as first:
            first.settimeout(20)
            assert first.recv(1) == b""
        with socket.create_connection(("127.0.0.1", server.port("http"))):
            server.wait_for(lambda counters: counters.connected == 1)
        server.play_connections(lambda number, scheme: Shut() if scheme == "http" else None)
        with socket.create_connection(("127.0.0.1", server.port("http"))) as third:
            third.settimeout(20)
            assert third.recv(1) == b""


def test_a_dry_run_says_whether_the_flow_is_ready():
    assert FaultServer().dry_run().code == 0
    said = FaultServer(unready="no executor").dry_run()
    assert (said.code, said.description) == (1, "no executor")
