"""The two forms of a message, protobuf and JSON: how much memory it takes, how it is parsed, how a reply is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from casdk._rust import weigh_json, weigh_request
from casdk.server.documents import finish
from casdk.wire.jina_pb2 import DataRequestProto
from casdk.wire.json_form import TooDeepError, read_request, write_reply
from casdk.wire.values import DEEPEST

if TYPE_CHECKING:
    from casdk._rust import Weight

__all__ = ["BINARY", "SNAKE", "Form", "json_form", "request_bytes"]

DEEPEST_JSON = 2 * DEEPEST
"""JSON in JSON: a document in another one is an object in a list."""
DOCUMENT_BYTES = 1000
"""Memory of an empty document once it is parsed; it is sent as two bytes."""
VALUE_BYTES = 64
"""Memory of any other value once it is parsed; it is sent as two bytes."""
COPIES = 3
"""How often the bytes of a message are in memory: received, parsed, and partly copied for the executor."""


@dataclass(frozen=True, slots=True)
class Form:
    """How messages are written.

    Attributes:
        number_bytes: What one number of an embedding takes in a reply while it is written.
        weigh: Counts what parsing a message makes.
        read: Parses it, and counts its documents.
        write: Writes a reply, in pieces.
    """

    number_bytes: int
    weigh: Callable[[bytes], Weight]
    read: Callable[[bytes], tuple[DataRequestProto, int]]
    write: Callable[[DataRequestProto], list[bytes]]

    def reply_bytes(self, message: bytes, documents: int, dim: int) -> int:
        """Return the memory of a reply: an embedding for each document, and the contents that it repeats."""
        return documents * (dim * self.number_bytes + DOCUMENT_BYTES) + COPIES * len(message)


def request_bytes(message: bytes, weight: Weight) -> int:
    """Return the memory of a message while it is parsed and answered."""
    documents, values, _ = weight
    return COPIES * len(message) + DOCUMENT_BYTES * documents + VALUE_BYTES * values


def _weigh_binary(message: bytes) -> Weight:
    try:
        weight = weigh_request(message)
    except ValueError as error:
        raise DecodeError(str(error)) from None
    if weight[2] > DEEPEST:
        raise DecodeError(f"messages are nested {weight[2]} deep in it, and this server reads {DEEPEST}")
    return weight


def _read_binary(message: bytes) -> tuple[DataRequestProto, int]:
    request = DataRequestProto.FromString(message)
    if request.data.WhichOneof("documents") == "docs_bytes":
        request.data.docs.ParseFromString(request.data.docs_bytes)
    return request, finish(request)


def _weigh_json(message: bytes) -> Weight:
    weight = weigh_json(message)
    if weight[2] > DEEPEST_JSON:
        raise TooDeepError((), f"JSON nested {weight[2]} deep, and this server reads {DEEPEST_JSON}")
    return weight


def json_form(endpoint: str | None = None, *, camel: bool) -> Form:
    """Return a form of JSON, with camelCase or snake_case around the documents, for the endpoint in the path."""

    def read(message: bytes) -> tuple[DataRequestProto, int]:
        request = read_request(message, endpoint)
        return request, finish(request)

    return Form(64, _weigh_json, read, lambda reply: write_reply(reply, camel=camel))


BINARY: Form = Form(16, _weigh_binary, _read_binary, lambda reply: [reply.SerializeToString()])
SNAKE: Form = json_form(camel=False)
