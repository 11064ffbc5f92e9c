"""Several servers behind one client: every row is right, even if servers fail."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from casdk import (
    Client,
    ConfigError,
    DeadlineError,
    Limits,
    ModelMismatchError,
    OverloadedError,
    Pool,
    RejectedError,
    Retry,
    Server,
    ServerError,
    Telemetry,
    Timeouts,
    TransportError,
)
from casdk.testing import Cut, Delay, FaultServer, Gate, Hold, Never, Refuse, embed

TEXTS = [f"text {number}" for number in range(400)]
IMPATIENT = Retry(backoff=60, max_backoff=60, jitter=0)
"""What waits before it sends again waits longer than a test may take."""
UNGUARDED = Pool(check_space=False)
"""For those who count requests: there are none to see which model a server holds."""


def states(client):
    """The state of each server; one that is returning was left out, and its first pause of 0.1 s is over."""
    return ["away" if server.state == "returning" else server.state for server in client.servers]


@pytest.mark.parametrize("schemes", [("grpc", "http", "websocket"), ("grpcs", "https", "websockets")], ids="-".join)
def test_schemes_may_be_mixed(make_servers, pool_of, rows, schemes, call):
    servers = make_servers(None, None, None)
    client = pool_of(servers, *schemes, pool=UNGUARDED)
    np.testing.assert_array_equal(call(client, "encode", TEXTS, batch_size=4), rows(TEXTS))
    assert all(server.counters.requests for server in servers)
    assert sum(server.counters.requests for server in servers) == len(TEXTS) / 4
    assert states(client) == ["ready"] * 3
    assert sum(server.share for server in client.servers) == pytest.approx(1)
    assert [server.address for server in client.servers] == [
        server.address(scheme) for server, scheme in zip(servers, schemes, strict=True)
    ]


def test_what_fails_on_one_server_goes_to_another_without_a_wait(make_servers, pool_of, rows):
    bad, good = make_servers(lambda request: Cut("after"), None)
    client = pool_of([bad, good], retry=IMPATIENT, timeout=20)
    np.testing.assert_array_equal(client.encode(TEXTS, batch_size=4), rows(TEXTS))
    assert states(client) == ["away", "ready"]
    assert "TransportError: " in client.servers[0].last_error
    assert client.servers[1].last_error is None


@pytest.mark.parametrize("refusal", [Refuse.unavailable(), Refuse.overloaded(50), Refuse.gateway()], ids=repr)
@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_what_one_server_refuses_another_gets_at_once(make_servers, pool_of, rows, scheme, refusal):
    bad, good = make_servers(lambda request: refusal, None)
    client = pool_of([bad, good], scheme, scheme, retry=IMPATIENT, timeout=20)
    for text in TEXTS[:20]:
        np.testing.assert_array_equal(client.encode([text]), rows([text]))
    assert bad.counters.requests < 5


def test_a_server_that_is_slow_is_noticed_without_a_guard(make_servers, pool_of):
    quick, slow = make_servers(None, lambda request: Delay(0.05))
    client = pool_of([quick, slow], pool=UNGUARDED)
    for text in TEXTS[:50]:
        client.encode([text])
    assert slow.counters.requests < 5


def test_a_server_that_is_not_there_costs_nothing(make_servers, pool_of, rows):
    gone, *others = make_servers(None, None, None)
    gone.down()
    client = pool_of([gone, *others], retry=IMPATIENT, timeout=20)
    for text in TEXTS[:20]:
        np.testing.assert_array_equal(client.encode([text]), rows([text]))
    assert states(client) == ["away", "ready", "ready"]
    assert "nothing listens there" in client.servers[0].last_error
    assert client.servers[0].share < 0.1


def test_a_server_that_comes_back_is_used_again(make_servers, pool_of, rows):
    first, second = make_servers(None, None)
    client = pool_of([first, second], timeout=20)
    client.encode(TEXTS[:8], batch_size=1)
    first.down()
    client.encode(TEXTS[:8], batch_size=1)
    assert states(client) == ["away", "ready"]
    first.up()
    before, end = first.counters.requests, time.monotonic() + 20
    while states(client) != ["ready", "ready"] and time.monotonic() < end:
        np.testing.assert_array_equal(client.encode(TEXTS[:2]), rows(TEXTS[:2]))
    assert states(client) == ["ready", "ready"]
    assert first.counters.requests > before


def test_all_servers_are_away_and_back(make_servers, pool_of, rows):
    servers = make_servers(None, None)
    client = pool_of(servers, retry=Retry(max_backoff=0.2), timeout=20)
    client.encode(["warm"])
    began = threading.Event()

    def texts():
        for number, text in enumerate(TEXTS):
            if number == 100:
                for server in servers:
                    server.down()
                threading.Timer(0.3, lambda: [server.up() for server in servers]).start()
                began.set()
            yield text

    np.testing.assert_array_equal(client.encode(texts(), batch_size=4), rows(TEXTS))
    assert began.is_set()


def test_if_all_servers_are_gone_the_error_is_that_of_one(make_servers, pool_of):
    servers = make_servers(None, None)
    for server in servers:
        server.down()
    client = pool_of(servers, retry=Retry(attempts=3, backoff=0.001, max_backoff=0.001))
    with pytest.raises(TransportError, match="nothing listens there") as failed:
        client.encode(["a"])
    assert failed.value.server in [server.address("grpc") for server in servers]


def test_attempts_of_one_never_send_again(make_servers, pool_of):
    servers = make_servers(lambda request: Cut("after"), lambda request: Cut("after"))
    client = pool_of(servers, retry=Retry(attempts=1))
    with pytest.raises(TransportError) as failed:
        client.encode(["a"])
    assert failed.value.attempts == 1
    assert sum(server.counters.requests for server in servers) == 1


def test_a_poisoned_item_leaves_no_server_out(make_servers, pool_of, rows):
    servers = make_servers(None, None, poison={"text 77"})
    client = pool_of(servers, retry=Retry(attempts=1))
    found = client.encode(TEXTS, batch_size=16, errors="return")
    [error] = found.errors
    assert isinstance(error, RejectedError)
    assert error.index == 77
    good = [number for number in range(len(TEXTS)) if number != 77]
    np.testing.assert_array_equal(found.embeddings[good], rows([TEXTS[number] for number in good]))
    assert states(client) == ["ready", "ready"]


def test_a_request_under_which_servers_go_away_is_not_sent_for_ever(make_servers, pool_of):
    def kill(request):
        return Cut("after") if "culprit" in request.texts else None

    servers = make_servers(kill, kill, kill)
    client = pool_of(servers, retry=Retry(backoff=0.01, max_backoff=0.01, patience=0.5), timeout=30)
    client.encode(["warm"])
    with pytest.raises(TransportError):
        client.encode(["good", "culprit"], batch_size=1)


def test_an_index_lives_on_one_server(make_servers, pool_of):
    servers = make_servers(None, None)
    client = pool_of(servers)
    for verb in (client.index, client.search):
        with pytest.raises(ConfigError, match=r'lives on one server: .* say which by .*Pool\(index_on="ADDRESS"\)'):
            verb(["a"])
    chosen = pool_of(servers, pool=Pool(index_on=servers[1].address("grpc")))
    chosen.index(TEXTS[:40], batch_size=4)
    assert servers[0].counters.requests == 0
    assert servers[1].counters.requests >= 10


def test_an_index_that_may_have_arrived_goes_nowhere_else(make_servers, pool_of):
    servers = make_servers(lambda request: Cut("after"), None)
    client = pool_of(servers, pool=Pool(index_on=servers[0].address("grpc"), check_space=False))
    with pytest.raises(TransportError) as failed:
        client.index(TEXTS[:4])
    assert failed.value.server == servers[0].address("grpc")
    assert list(failed.value.unconfirmed) == [0, 1, 2, 3]
    assert [server.counters.requests for server in servers] == [1, 0]


def test_the_index_may_be_on_another_server(make_servers, pool_of):
    *servers, other = make_servers(None, None, None)
    client = pool_of(servers, pool=Pool(index_on=other.address("http")))
    client.index(TEXTS[:4])
    assert other.counters.by_scheme["http"] >= 1
    assert [server.counters.requests for server in servers] == [0, 0]


def test_a_call_whose_time_runs_out_leaves_no_server_out(make_servers, pool_of):
    client = pool_of(make_servers(lambda request: Never(), lambda request: Never()))
    for _ in range(4):
        with pytest.raises(DeadlineError):
            client.encode(["a"], timeout=0.1)
    assert states(client) == ["ready", "ready"]


def test_a_server_that_sends_nothing_in_time_is_left_out(make_servers, pool_of, rows):
    silent, good = make_servers(lambda request: Never(), None)
    client = pool_of([silent, good], timeouts=Timeouts(read=2))
    with pytest.raises(DeadlineError) as late:
        client.encode(["a"])
    assert late.value.server == silent.address("grpc")
    assert states(client) == ["away", "ready"]
    np.testing.assert_array_equal(client.encode(["a"]), rows(["a"]))


def test_a_call_is_cancelled_as_with_one(make_servers, pool_of):
    servers = make_servers(lambda request: Never(), lambda request: Never())
    client = pool_of(servers)

    async def main():
        call = asyncio.create_task(client.aencode(TEXTS, batch_size=4))
        await asyncio.to_thread(lambda: [server.wait_for(lambda counters: counters.running) for server in servers])
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(main())
    for server in servers:
        server.wait_for(lambda counters: not counters.running)
    assert states(client) == ["ready", "ready"]


def test_a_client_is_closed_in_the_middle(make_servers, pool_of):
    gate = Gate()
    servers = make_servers(lambda request: Hold(gate), lambda request: Hold(gate))
    client = pool_of(servers)
    failed = []

    def encode():
        try:
            client.encode(TEXTS, batch_size=4)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=encode)
    thread.start()
    for server in servers:
        server.wait_for(lambda counters: counters.running)
    client.close()
    thread.join(20)
    assert [type(error).__name__ for error in failed] == ["ClosedError"]
    for server in servers:
        server.wait_for(lambda counters: not counters.open)


def test_an_error_names_the_server_that_answered(make_servers, pool_of):
    bad, good = make_servers(lambda request: Refuse.internal(), None)
    client = pool_of([bad, good], "http", "http")
    with pytest.raises(ServerError, match="500") as failed:
        client.encode(["a"])
    assert failed.value.server == bad.address("http")


def test_too_much_at_all_servers_is_waited_for(make_servers, pool_of, rows):
    once = [[Refuse.overloaded()], [Refuse.overloaded()]]
    client = pool_of(make_servers(*once), retry=Retry(backoff=0.01, max_backoff=0.2), timeout=20)
    np.testing.assert_array_equal(client.encode(TEXTS[:8], batch_size=1), rows(TEXTS[:8]))
    always = pool_of(make_servers(*[lambda request: Refuse.overloaded()] * 2), retry=Retry(attempts=3, backoff=0.01))
    with pytest.raises(OverloadedError):
        always.encode(["a"])


def test_a_server_has_a_credential_and_a_pace_of_its_own(make_servers, rows):
    [private], [public] = make_servers(None, token="s3cret"), make_servers(None)
    servers = [Server(private.address("grpc"), credential="s3cret"), Server(public.address("grpc"), items_per_second=1)]
    with Client(servers, credential="other", timeout=20, pool=UNGUARDED) as client:
        np.testing.assert_array_equal(client.encode(TEXTS[:40], batch_size=4), rows(TEXTS[:40]))
    assert public.counters.requests <= 2
    assert {request.authorization for request in public.requests} == {"other"}


def test_an_index_by_a_name_has_what_its_server_has(make_servers):
    [server] = make_servers(None, token="s3cret")
    address = server.address("grpc")
    pool = Pool(index_on=address, resolve=True)
    with Client([Server(address, credential="s3cret")], credential="other", pool=pool) as client:
        client.index(TEXTS[:4])
    assert server.executor.indexed == 4


def test_a_forked_child_and_its_parent_go_on(make_servers, pool_of, rows):
    servers = make_servers(None, None)
    client = pool_of(servers, "grpc", "http", limits=Limits(prefetch=4))
    np.testing.assert_array_equal(client.encode(TEXTS[:40], batch_size=4), rows(TEXTS[:40]))
    servers[0].down()
    client.encode(TEXTS[:40], batch_size=4)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            status = not np.array_equal(client.encode(TEXTS[:40], batch_size=4), rows(TEXTS[:40]))
        finally:
            os._exit(status)
    np.testing.assert_array_equal(client.encode(TEXTS, batch_size=4), rows(TEXTS))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_each_attempt_is_told_with_its_server(make_servers, pool_of):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    servers = make_servers(lambda request: Cut("after"), None)
    client = pool_of(servers, "grpc", "http", pool=UNGUARDED, telemetry=Telemetry(tracer_provider=provider))
    client.encode(["a"])
    ports = [
        int(server.address(scheme).rpartition(":")[2]) for server, scheme in zip(servers, ("grpc", "http"), strict=True)
    ]
    spans = exporter.get_finished_spans()
    attempts = [span for span in spans if "casdk.request.attempt" in span.attributes]
    assert [span.attributes["server.port"] for span in attempts] == ports
    assert [span.attributes["rpc.system.name"] for span in attempts] == ["grpc", "jina"]
    [whole] = [span for span in spans if span.name == "embeddings"]
    assert "server.port" not in whole.attributes


def test_rows_of_two_models_are_never_mixed(make_servers, pool_of, other_model):
    servers = make_servers(None, other_model)
    client = pool_of(servers, "grpc", "http")
    with pytest.raises(ModelMismatchError, match="holds another model than") as mixed:
        client.encode(TEXTS, batch_size=4)
    addresses = {servers[0].address("grpc"), servers[1].address("http")}
    assert set(mixed.value.servers) == addresses
    unguarded = pool_of(servers, "grpc", "http", pool=UNGUARDED)
    assert unguarded.encode(TEXTS, batch_size=4).shape == (len(TEXTS), 8)


def test_a_restart_with_another_model_is_noticed(make_servers, pool_of, rows, other_model):
    servers = make_servers(None, None)
    client = pool_of(servers, timeout=20)
    client.encode(TEXTS, batch_size=4)
    servers[1].play(other_model)
    servers[1].restart()

    def encode():
        end = time.monotonic() + 20
        while time.monotonic() < end:
            np.testing.assert_array_equal(client.encode(TEXTS[:40], batch_size=4), rows(TEXTS[:40]))

    with pytest.raises(ModelMismatchError, match=servers[1].address("grpc")):
        encode()


class Names:
    """A name whose addresses the test says, in the record of a look-up.

    Attributes:
        hosts: Its addresses; none if the name is unknown.
        looked_up: How often it was looked up.
    """

    def __init__(self, monkeypatch, *hosts):
        self.hosts, self.looked_up, real = list(hosts), 0, socket.getaddrinfo

        def getaddrinfo(host, port, *arguments, **options):
            if host != "clip.test":
                return real(host, port, *arguments, **options)
            self.looked_up += 1
            if not self.hosts:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.hosts]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture(scope="module")
def twins():
    """Real servers at two addresses and the same port of each scheme."""
    from casdk.server import serve

    with serve(schemes=("grpc", "https"), host="127.0.0.1", index=False) as first:
        ports = {scheme: int(address.rpartition(":")[2]) for scheme, address in first.addresses.items()}
        with serve(schemes=("grpc", "https"), host="127.0.0.2", ports=ports, index=False) as second:
            yield first, second


def test_each_address_of_a_name_is_a_server(monkeypatch, twins):
    names = Names(monkeypatch, "127.0.0.1", "127.0.0.2")
    port = twins[0].address("grpc").rpartition(":")[2]
    with (
        Client(twins[0].address("grpc")) as single,
        Client(f"grpc://clip.test:{port}", pool=Pool(resolve=True), timeout=20) as client,
    ):
        np.testing.assert_array_equal(client.encode(TEXTS, batch_size=8), single.encode(TEXTS, batch_size=8))
        assert [(server.address, server.state) for server in client.servers] == [
            (f"grpc://127.0.0.1:{port}", "ready"),
            (f"grpc://127.0.0.2:{port}", "ready"),
        ]
        assert min(server.share for server in client.servers) > 0
        assert names.looked_up == 1


def test_servers_come_and_go_with_their_addresses(monkeypatch, twins):
    names = Names(monkeypatch, "127.0.0.1")
    port = twins[0].address("grpc").rpartition(":")[2]
    pool = Pool(resolve=True, resolve_seconds=0.05)
    with Client(f"grpc://clip.test:{port}", pool=pool, timeout=20) as client:
        expected = client.encode(TEXTS[:40])

        def until(hosts):
            end = time.monotonic() + 20
            while [server.address for server in client.servers] != [f"grpc://{host}:{port}" for host in hosts]:
                np.testing.assert_array_equal(client.encode(TEXTS[:40], batch_size=4), expected)
                assert time.monotonic() < end

        for hosts in (["127.0.0.1", "127.0.0.2"], ["127.0.0.2"], ["127.0.0.2", "127.0.0.1"]):
            names.hosts = hosts
            until(hosts)
        looked_up, names.hosts = names.looked_up, []
        while names.looked_up < looked_up + 2:
            np.testing.assert_array_equal(client.encode(TEXTS[:40], batch_size=4), expected)
        assert len(client.servers) == 2


def test_a_name_is_looked_up_before_the_first_call_after_a_pause(monkeypatch, twins):
    names = Names(monkeypatch, "127.0.0.1")
    port = twins[0].address("grpc").rpartition(":")[2]
    with Client(f"grpc://clip.test:{port}", pool=Pool(resolve=True, resolve_seconds=0.01), timeout=20) as client:
        client.encode(["a"])
        names.hosts = ["127.0.0.2"]
        time.sleep(0.05)  # the pause
        client.encode(["a"])
        [now] = [server for server in client.servers if server.state != "draining"]
        assert now.address == f"grpc://127.0.0.2:{port}"
        assert now.share > 0


def test_tls_holds_the_addresses_of_a_name_to_the_name(monkeypatch, twins):
    from casdk import TLS, TLSError

    Names(monkeypatch, "127.0.0.1", "127.0.0.2")
    port = twins[0].address("https").rpartition(":")[2]
    with (
        Client(
            f"https://clip.test:{port}", tls=TLS(ca=twins[0].ca), pool=Pool(resolve=True), retry=Retry(attempts=1)
        ) as client,
        pytest.raises(TLSError, match="is for another name"),
    ):
        client.encode(["a"])


def test_an_unknown_name_is_the_error_that_it_is_with_one_server(monkeypatch):
    Names(monkeypatch)
    client = Client("grpc://clip.test:1", pool=Pool(resolve=True), retry=Retry(attempts=1))
    with client, pytest.raises(TransportError, match="the name has no address"):
        client.encode(["a"])


def test_a_server_whose_address_vanished_finishes_what_it_has(monkeypatch):
    names, gate = Names(monkeypatch, "127.0.0.1"), Gate()
    with FaultServer(lambda request: Hold(gate) if "held" in request.texts else None, width=8) as server:
        address = server.address("grpc").replace("127.0.0.1", "clip.test")
        with Client(address, pool=Pool(resolve=True, resolve_seconds=0.01), timeout=20) as client:
            client.encode(["a"])
            found = []
            thread = threading.Thread(target=lambda: found.append(client.encode(["held"])))
            thread.start()
            server.wait_for(lambda counters: counters.running)
            names.hosts = ["127.0.0.3"]
            end = time.monotonic() + 20
            while client.servers[0].state != "draining" and time.monotonic() < end:
                with suppress(TransportError):  # once nobody listens there
                    client.encode(["b"], timeout=5)
            gate.open()
            thread.join(20)
            np.testing.assert_array_equal(found[0], [embed("held", 8)])
            assert [server.address for server in client.servers] == [address.replace("clip.test", "127.0.0.3")]
