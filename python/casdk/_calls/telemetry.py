"""What OpenTelemetry records: spans of calls, batches and attempts, metrics, and the context that goes to the server.

Imported by a client that was made with ``telemetry=``, and by nothing else. Names are those of OpenTelemetry's
conventions for generative AI, RPC and HTTP where they have one, and begin with ``casdk.`` where they have none.

::

    embeddings {model}              one call                     CLIENT
    └── casdk.batch                 items of one request         INTERNAL
        ├── jina.../process_single_data   one attempt            CLIENT
        └── jina.../process_single_data   sent again             CLIENT

A batch that is halved to find a bad item ends with an error; its halves are batches of the same call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from opentelemetry import context, propagate
from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider, get_tracer, set_span_in_context

from casdk._engine.logging import divert
from casdk._rust import __version__
from casdk._transport.address import Endpoint
from casdk._transport.codecs import read_error
from casdk.errors import CasdkError

if TYPE_CHECKING:
    from casdk._calls.batches import Batch
    from casdk._transport.channels.options import ExchangeOptions
    from casdk._transport.transport import Received, Transport

__all__ = ["Instruments", "Watch"]

OPERATIONS: Final = {"encode": "embeddings", "search": "retrieval"}
"""Verbs that OpenTelemetry has a value of ``gen_ai.operation.name`` for."""
HTTP_STATUS: Final = "http.response.status_code"
PROVIDER: Final = "clip-as-service"
METHODS: Final = {
    "grpc": ("grpc", "jina.JinaSingleDataRequestRPC/process_single_data"),
    "http": ("jina", "POST /post"),
    "websocket": ("jina", "jina.websocket"),
}
"""``rpc.system.name`` and ``rpc.method`` of each kind of channel."""
BUCKET_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60)
"""Bounds of the histograms; the SDK's own are meant for milliseconds."""


class Wire(NamedTuple):
    """The part of telemetry that is the same for all requests to one server.

    Attributes:
        method: The ``rpc.method`` of its requests.
        attributes: Attributes of the spans and metrics of its requests.
        status: Name of the attribute that has the status of an answer.
        success: The status of a successful answer; ``None`` if the protocol has none.
    """

    method: str
    attributes: dict[str, Any]
    status: str
    success: Any

    @classmethod
    def of(cls, endpoint: Endpoint) -> Wire:
        """Return the one of a server."""
        kind = endpoint.channel
        system, method = METHODS[kind]
        attributes: dict[str, Any] = {"rpc.system.name": system, "rpc.method": method, **_address_of(endpoint)}
        if kind == "http":
            attributes["http.request.method"] = "POST"
            attributes["url.full"] = f"{endpoint}/post"
        elif kind == "websocket":
            attributes["network.protocol.name"] = "websocket"
        status = HTTP_STATUS if kind == "http" else "rpc.response.status_code"
        return cls(method, attributes, status, {"grpc": "OK", "http": 200, "websocket": None}[kind])


def _address_of(endpoint: Endpoint) -> dict[str, Any]:
    return {"server.address": endpoint.host, "server.port": endpoint.port}


class Instruments:
    """A client's tracer and meters.

    Args:
        endpoints: The servers.
        tracer_provider: By default the process's global one.
        meter_provider: By default the process's global one.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        divert("opentelemetry")
        # A call names its server if the client has only one; if it has several, each request names its own.
        self.server: Final[dict[str, Any]] = _address_of(endpoints[0]) if len(endpoints) == 1 else {}
        self._wires: Final[dict[Endpoint, Wire]] = {}
        self.tracer: Final = get_tracer("casdk", __version__, tracer_provider)
        meter = get_meter("casdk", __version__, meter_provider)
        self.calls: Final = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", "Calls, from the first item to the last row.",
            explicit_bucket_boundaries_advisory=BUCKET_SECONDS,
        )  # fmt: skip
        self.attempts: Final = meter.create_histogram(
            "rpc.client.call.duration", "s", "Requests, from being sent to the reply.",
            explicit_bucket_boundaries_advisory=BUCKET_SECONDS,
        )  # fmt: skip
        self.rows: Final = meter.create_counter("casdk.client.rows", "{row}", "Items that got a result.")
        self.batches: Final = meter.create_counter("casdk.client.batches", "{batch}", "Batches that came to an end.")
        self.retries: Final = meter.create_counter("casdk.client.retries", "{request}", "Requests sent again.")
        self.in_flight: Final = meter.create_up_down_counter(
            "casdk.client.active_requests", "{request}", "Requests sent and not answered."
        )

    def wire_to(self, endpoint: Endpoint) -> Wire:
        """Return the part of telemetry that is the same for all requests to a server."""
        wire = self._wires.get(endpoint)
        if wire is None:
            wire = self._wires[endpoint] = Wire.of(endpoint)
        return wire

    def watch(self, verb: str, endpoint: str, total: int | None, merged: bool = False) -> Watch:
        """Return a `Watch`, which records one call.

        Args:
            verb: ``encode``, ``rank``...
            endpoint: Endpoint of the executor, with the model's name at its end if the call names one.
            total: Items in all, if known.
            merged: Whether it carries the items of several calls, each of which counts its own items.
        """
        return Watch(self, verb, endpoint, total, merged)


class Watch:
    """Records one call: its spans and metrics. It is the context manager around the call, on the engine."""

    def __init__(self, instruments: Instruments, verb: str, endpoint: str, total: int | None, merged: bool) -> None:
        self._instruments = instruments
        self._merged = merged
        operation = OPERATIONS.get(verb, verb)
        model = endpoint.removeprefix(f"/{verb}").removeprefix("/")
        self._names: dict[str, Any] = {"gen_ai.operation.name": operation, "gen_ai.provider.name": PROVIDER}
        if model:
            self._names["gen_ai.request.model"] = model
        self._title = "casdk.merged" if merged else f"{operation} {model}".rstrip()
        self._attributes: dict[str, Any] = {"casdk.endpoint": endpoint}
        if total is not None:
            self._attributes["casdk.items"] = total
        self._open: dict[Batch, Span] = {}
        self._width = 0
        self._rows = 0

    def __enter__(self) -> Watch:
        instruments = self._instruments
        attributes = {**self._names, **instruments.server, **self._attributes}
        kind = SpanKind.INTERNAL if self._merged else SpanKind.CLIENT
        self.span = instruments.tracer.start_span(self._title, kind=kind, attributes=attributes)
        self._token = context.attach(set_span_in_context(self.span))
        self._began = perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        instruments, span = self._instruments, self.span
        context.detach(self._token)
        for batch in tuple(self._open):
            self._end(batch, "abandoned")
        labels = {**self._names, **instruments.server}
        span.set_attribute("casdk.rows", self._rows)
        if self._width:
            span.set_attribute("gen_ai.embeddings.dimension.count", self._width)
        if error is not None:
            labels["error.type"] = _fail(span, error)
        span.end()
        if not self._merged:
            instruments.calls.record(perf_counter() - self._began, labels)
            instruments.rows.add(self._rows, self._names)

    def link(self, merged: Watch) -> None:
        """Point to the merged call that this one's items travelled in."""
        self.span.add_link(merged.span.get_span_context())

    def count(self, rows: int) -> None:
        """Note how many items got a result."""
        self._rows = rows

    # batches

    def begin(self, batch: Batch) -> None:
        """Note that a batch is about to be packed, for the first time or again."""
        if batch not in self._open:
            attributes = {"casdk.batch.items": len(batch), "casdk.batch.first_index": batch.indices[0]}
            self._open[batch] = self._instruments.tracer.start_span("casdk.batch", attributes=attributes)

    def succeed(self, batch: Batch, rows: int) -> None:
        """Note that the rows of a batch's reply were stored."""
        self._open[batch].set_attribute("casdk.rows", rows)
        self._end(batch, "done")

    def fail(self, batch: Batch, error: CasdkError, outcome: str, wait: float) -> None:
        """Note that a batch failed.

        Args:
            batch: The batch.
            error: Why it failed.
            outcome: What happens next with it, as `Call.fail` has decided.
            wait: Seconds until it is sent again, if it is.
        """
        span = self._open[batch]
        if outcome in ("move", "repeat", "wait"):
            self._instruments.retries.add(1, {**self._names, "error.type": type(error).__name__})
            span.add_event("casdk.retry", {"error.type": type(error).__name__, "casdk.retry.wait": wait})
            return
        _fail(span, error)
        self._end(batch, outcome)

    def _end(self, batch: Batch, outcome: str) -> None:
        span = self._open.pop(batch)
        span.set_attribute("casdk.batch.outcome", outcome)
        span.end()
        self._instruments.batches.add(1, {**self._names, "casdk.batch.outcome": outcome})

    # attempts

    async def exchange(
        self,
        transport: Transport,
        batch: Batch,
        request_id: str,
        message: bytes | memoryview,
        options: ExchangeOptions,
    ) -> Received:
        """Send one request with its span's context, and record the attempt; as `Transport.exchange` does otherwise."""
        instruments, wire = self._instruments, self._instruments.wire_to(transport.endpoint)
        attributes: dict[str, Any] = {
            **wire.attributes,
            "casdk.request.id": request_id,
            "casdk.request.bytes": len(message),
            "casdk.request.attempt": batch.attempts,
        }
        if batch.attempts > 1 and "http.request.method" in wire.attributes:
            attributes["http.request.resend_count"] = batch.attempts - 1
        span = instruments.tracer.start_span(
            wire.method, set_span_in_context(self._open[batch]), SpanKind.CLIENT, attributes
        )
        carrier: dict[str, str] = {}
        propagate.inject(carrier, set_span_in_context(span))
        labels = dict(wire.attributes)
        began = perf_counter()
        instruments.in_flight.add(1, wire.attributes)
        try:
            options = msgspec.structs.replace(options, context=tuple(carrier.items()))
            received = await transport.exchange(request_id, message, options)
            self._width = received.reply.width or self._width
            span.set_attribute("casdk.reply.bytes", received.size)
            if wire.success is not None:
                labels[wire.status] = wire.success
                span.set_attribute(wire.status, wire.success)
            if (refused := read_error(received.reply)) is not None:
                labels["error.type"] = _fail(span, refused)
            return received
        except BaseException as error:
            labels["error.type"] = _fail(span, error)
            if code := getattr(error, "code", ""):
                labels[wire.status] = int(code) if wire.status == HTTP_STATUS else code
                span.set_attribute(wire.status, labels[wire.status])
            raise
        finally:
            span.end()
            instruments.in_flight.add(-1, wire.attributes)
            instruments.attempts.record(perf_counter() - began, labels)


def _fail(span: Span, error: BaseException) -> str:
    """Mark a span with an error, and return the error's name. The status of a cancelled call is no error."""
    name = getattr(error, "name", "") or type(error).__name__
    span.set_attribute("error.type", name)
    if not isinstance(error, asyncio.CancelledError):
        span.set_status(Status(StatusCode.ERROR, str(error)))
    return str(name)
