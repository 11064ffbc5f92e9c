"""What OpenTelemetry's own SDK exports of real calls: spans, metrics, and the context at the server."""

import asyncio
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
from casdk import TLS, Client, ConfigError, Document, NoEmbeddingError, Retry, ServerError, Telemetry
from casdk.testing import ExecutorError, FaultServer, Gate, Hold, NoEmbedding, Refuse
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

QUICK = Retry(backoff=0.001, max_backoff=0.01)
TEXTS = [f"text {number}" for number in range(10)]


class Watched:
    """A FaultServer, a client of it, and what the SDK exports of the client."""

    def __init__(self, rules, scheme="grpc", **options):
        self.exporter = InMemorySpanExporter()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = tracers.get_tracer("test")
        self.reader = InMemoryMetricReader()
        self.server = FaultServer(rules, width=32).start()
        self.client = Client(
            self.server.address(scheme),
            tls=TLS(ca=self.server.ca) if scheme.endswith("s") else None,
            telemetry=Telemetry(tracer_provider=tracers, meter_provider=MeterProvider([self.reader])),
            retry=QUICK,
            **options,
        )

    def spans(self, name):
        return sorted((s for s in self.exporter.get_finished_spans() if s.name == name), key=lambda s: s.start_time)

    @property
    def attempts(self):
        return [span for span in self.exporter.get_finished_spans() if "rpc.method" in span.attributes]

    def points(self, name):
        metrics = [
            metric
            for resource in self.reader.get_metrics_data().resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]

    def total(self, name):
        return sum(point.value for point in self.points(name))


@pytest.fixture
def watch():
    made = []

    def watch(rules=None, scheme="grpc", **options):
        made.append(Watched(rules, scheme, **options))
        return made[-1]

    yield watch
    for watched in made:
        watched.client.close()
        watched.server.stop()


def parent_of(span, spans):
    return next(other for other in spans if other.context.span_id == span.parent.span_id)


def test_a_call_its_batches_and_their_attempts(watch, scheme, call):
    watched = watch(scheme=scheme)
    call(watched.client, "encode", TEXTS, batch_size=4, parameters={"model_name": "ViT-B-32"})
    [whole] = watched.spans("embeddings ViT-B-32")
    assert whole.kind is SpanKind.CLIENT
    assert whole.parent is None
    port = int(watched.server.address(scheme).rpartition(":")[2])
    assert dict(whole.attributes) == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "clip-as-service",
        "gen_ai.request.model": "ViT-B-32",
        "gen_ai.embeddings.dimension.count": 32,
        "server.address": "127.0.0.1",
        "server.port": port,
        "casdk.endpoint": "/encode/ViT-B-32",
        "casdk.items": 10,
        "casdk.rows": 10,
    }
    batches = watched.spans("casdk.batch")
    assert {(b.attributes["casdk.batch.first_index"], b.attributes["casdk.batch.items"]) for b in batches} == {
        (0, 4),
        (4, 4),
        (8, 2),
    }
    assert all(batch.parent.span_id == whole.context.span_id for batch in batches)
    assert {parent_of(attempt, batches).context.span_id for attempt in watched.attempts} == {
        batch.context.span_id for batch in batches
    }
    assert {span.attributes["casdk.request.id"] for span in watched.attempts} == {
        request.id for request in watched.server.requests
    }
    assert {span.context.trace_id for span in watched.exporter.get_finished_spans()} == {whole.context.trace_id}


@pytest.mark.parametrize(
    ("scheme", "says"),
    [
        ("grpc", {"rpc.system.name": "grpc", "rpc.response.status_code": "OK"}),
        ("http", {"http.request.method": "POST", "http.response.status_code": 200}),
        ("websocket", {"network.protocol.name": "websocket"}),
    ],
)
def test_an_attempt_says_how_it_travelled(watch, scheme, says):
    watched = watch(scheme=scheme)
    watched.client.encode(["a"])
    [attempt] = watched.attempts
    assert attempt.kind is SpanKind.CLIENT
    assert says.items() <= attempt.attributes.items()
    assert attempt.attributes["casdk.request.bytes"] == watched.server.requests[0].nbytes


def test_the_server_is_sent_the_attempts_context(watch, scheme):
    watched = watch([Refuse.overloaded()], scheme)
    watched.client.encode(["a"])
    watched.client.encode(["b"])
    sent = [request.headers["traceparent"].rpartition("-")[0] for request in watched.server.requests]
    attempts = sorted(watched.attempts, key=lambda span: span.start_time)
    expected = [f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}" for span in attempts]
    assert len(expected) == 3
    if scheme.startswith("websocket"):  # headers belong to the handshake: one context for a socket's life
        connections = [request.connection for request in watched.server.requests]
        assert sent == [expected[connections.index(number)] for number in connections]
    else:
        assert sent == expected


def test_without_telemetry_nothing_is_sent(scheme):
    with FaultServer(width=8) as server:
        tls = TLS(ca=server.ca) if scheme.endswith("s") else None
        with Client(server.address(scheme), tls=tls) as client:
            client.encode(["a"])
        assert not {"traceparent", "tracestate", "baggage"} & set(server.requests[0].headers)


def test_without_an_sdk_nothing_is_made_up(connect, client, scheme):
    watched = connect(scheme, telemetry=True)
    np.testing.assert_array_equal(watched.encode(TEXTS, batch_size=4), client.encode(TEXTS))
    with FaultServer(width=8) as server, Client(server.address("grpc"), telemetry=True) as watched:
        watched.encode(["a"])
        assert "traceparent" not in server.requests[0].headers


def test_the_callers_span_is_the_parent(watch, call):
    watched = watch()
    with watched.tracer.start_as_current_span("request") as span:
        call(watched.client, "encode", ["a"])
        assert trace.get_current_span() is span
    [whole] = watched.spans("embeddings")
    assert whole.parent.span_id == span.get_span_context().span_id


def test_what_is_sent_again_stays_one_batch(watch):
    watched = watch([Refuse.unavailable(), Refuse.unavailable()])
    watched.client.encode(["a"])
    [batch] = watched.spans("casdk.batch")
    assert batch.status.status_code is StatusCode.UNSET
    assert batch.attributes["casdk.batch.outcome"] == "done"
    assert [event.name for event in batch.events] == ["casdk.retry", "casdk.retry"]
    assert batch.events[1].attributes["casdk.retry.wait"] > 0
    attempts = sorted(watched.attempts, key=lambda span: span.start_time)
    assert [span.attributes["casdk.request.attempt"] for span in attempts] == [1, 2, 3]
    assert [span.status.status_code for span in attempts] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    assert attempts[0].attributes["rpc.response.status_code"] == "UNAVAILABLE"
    assert attempts[0].attributes["error.type"] == "TransportError"
    assert watched.total("casdk.client.retries") == 2


def test_a_refusal_over_a_websocket_has_its_close_code(watch):
    watched = watch([Refuse.overloaded()], "websocket")
    watched.client.encode(["a"])
    first, second = sorted(watched.attempts, key=lambda span: span.start_time)
    assert (first.attributes["rpc.response.status_code"], first.attributes["error.type"]) == ("1013", "OverloadedError")
    assert "rpc.response.status_code" not in second.attributes


def test_a_refusal_over_http_has_its_status(watch):
    watched = watch([Refuse.overloaded()], "http")
    watched.client.encode(["a"])
    first, second = sorted(watched.attempts, key=lambda span: span.start_time)
    assert first.attributes["http.response.status_code"] == 429
    assert second.attributes["http.response.status_code"] == 200
    assert [span.attributes.get("http.request.resend_count") for span in (first, second)] == [None, 1]


def test_a_batch_that_is_halved(watch):
    watched = watch(lambda request: ExecutorError() if "bad" in request.texts else None)
    result = watched.client.encode(["a", "b", "bad", "c"], errors="return")
    assert [error.index for error in result.errors] == [2]
    batches = watched.spans("casdk.batch")
    assert [batch.attributes["casdk.batch.outcome"] for batch in batches].count("done") >= 2
    split = [batch for batch in batches if batch.attributes["casdk.batch.outcome"] == "split"]
    assert split
    assert all(batch.status.status_code is StatusCode.ERROR for batch in split)
    [whole] = watched.spans("embeddings")
    assert whole.attributes["casdk.rows"] == 3
    assert whole.status.status_code is StatusCode.UNSET


def test_a_call_that_fails(watch, call):
    watched = watch(Refuse.internal())
    with pytest.raises(ServerError):
        call(watched.client, "encode", ["a"])
    for span in watched.exporter.get_finished_spans():
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes["error.type"] == "ServerError"
    [point] = watched.points("gen_ai.client.operation.duration")
    assert point.attributes["error.type"] == "ServerError"


def test_an_item_that_fails_is_no_lost_batch(watch):
    watched = watch(NoEmbedding(0))
    with pytest.raises(NoEmbeddingError):
        watched.client.encode(["a", "b"])
    [batch] = watched.spans("casdk.batch")
    assert batch.attributes["casdk.batch.outcome"] == "done"


def test_a_call_taken_back_leaves_no_span_open(watch):
    gate = Gate()
    watched = watch(Hold(gate))

    async def take_back():
        task = asyncio.ensure_future(watched.client.aencode(["a"]))
        await asyncio.to_thread(gate.wait_for, 1)
        task.cancel()
        closing = asyncio.ensure_future(watched.client.aclose())  # in the same breath: it was taken back all the same
        with pytest.raises(asyncio.CancelledError):
            await task
        await closing

    asyncio.run(take_back())
    [whole] = watched.spans("embeddings")
    [batch] = watched.spans("casdk.batch")
    assert whole.status.status_code is StatusCode.UNSET
    assert whole.attributes["error.type"] == "CancelledError"
    assert batch.attributes["casdk.batch.outcome"] == "abandoned"
    gate.open()
    assert watched.total("casdk.client.active_requests") == 0


def test_metrics(watch):
    gate = Gate()
    watched = watch(Hold(gate))
    thread = threading.Thread(target=watched.client.encode, args=(TEXTS,), kwargs={"batch_size": 5})
    thread.start()
    gate.wait_for(2)
    assert watched.total("casdk.client.active_requests") == 2
    gate.open()
    thread.join()
    assert watched.total("casdk.client.active_requests") == 0
    assert watched.total("casdk.client.rows") == 10
    assert watched.total("casdk.client.batches") == 2
    assert [point.count for point in watched.points("rpc.client.call.duration")] == [2]
    [whole] = watched.points("gen_ai.client.operation.duration")
    assert whole.count == 1
    assert 0 < whole.sum < 60
    assert whole.attributes["gen_ai.operation.name"] == "embeddings"


def test_merged_calls_are_linked_to_what_carried_them(watch):
    gate = Gate()
    watched = watch(Hold(gate), coalesce=True)

    async def together():
        first = []
        for i in range(2):
            first.append(asyncio.ensure_future(watched.client.aencode([f"first {i}"])))
            await asyncio.to_thread(gate.wait_for, i + 1)
        others = [asyncio.ensure_future(watched.client.aencode([f"other {i}"])) for i in range(3)]
        await asyncio.sleep(0)
        # The engine is asked last, so the calls before it have arrived there.
        arrived = asyncio.Event()
        loop = asyncio.get_running_loop()
        watched.client._session._engine.post(lambda: loop.call_soon_threadsafe(arrived.set))
        await arrived.wait()
        gate.open()
        await asyncio.gather(*first, *others)

    asyncio.run(together())
    calls, carriers = watched.spans("embeddings"), watched.spans("casdk.merged")
    assert len(calls) == 5
    assert len(carriers) == 3  # two went at once, each by itself; the others shared one
    linked = [link.context.span_id for span in calls for link in span.links]
    assert set(linked) == {span.context.span_id for span in carriers}
    assert sorted(linked.count(span.context.span_id) for span in carriers) == [1, 1, 3]
    assert watched.total("casdk.client.rows") == 5
    [point] = watched.points("gen_ai.client.operation.duration")
    assert point.count == 5


def test_other_verbs(watch):
    watched = watch()
    watched.client.rank([Document(text="q", matches=[Document(text="a"), Document(text="b")])])
    assert [span.attributes["gen_ai.operation.name"] for span in watched.spans("rank")] == ["rank"]
    for piece in watched.client.stream(TEXTS, batch_size=5):
        assert piece.shape == (5, 32)
    assert len(watched.spans("embeddings")) == 1
    watched.client.profile(quiet=True)
    [profile] = watched.spans("profile")
    assert profile.attributes["casdk.endpoint"] == "/"
    assert "gen_ai.request.model" not in profile.attributes


def test_providers_of_its_own_do_not_travel(watch):
    with pytest.raises(ConfigError, match="telemetry=True"):
        pickle.dumps(watch().client)
    client = Client("grpc://127.0.0.1:1", telemetry=True)
    assert pickle.loads(pickle.dumps(client))._settings.telemetry is True


def test_no_other_switch():
    with pytest.raises(ConfigError, match="not str"):
        Client("grpc://127.0.0.1:1", telemetry="yes")


WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
import casdk
casdk.Client("grpc://127.0.0.1:1")
assert not any(name.startswith("opentelemetry.") or name == "casdk._calls.telemetry" for name in sys.modules)
try:
    casdk.Client("grpc://127.0.0.1:1", telemetry=True)
except casdk.ConfigError as error:
    assert 'pip install "casdk[otel]"' in str(error)
else:
    sys.exit("no error")
"""


def test_off_means_that_nothing_is_imported():
    subprocess.run([sys.executable, "-c", WITHOUT], check=True)


def test_rows_are_the_same(watch):
    watched = watch()
    with Client(watched.server.address("grpc")) as plain:
        np.testing.assert_array_equal(watched.client.encode(TEXTS), plain.encode(TEXTS))
