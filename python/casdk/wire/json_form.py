"""Requests and replies as JSON: camelCase around the documents over http, snake_case over a websocket.

The fields of a document are those of its protobuf message; how one is written in JSON follows from its type.
"""

from __future__ import annotations

import math
import uuid
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from casdk.wire.docarray_pb2 import DocumentProto, NamedScoreProto, NdArrayProto
from casdk.wire.jina_pb2 import DataRequestProto, RouteProto, StatusProto
from casdk.wire.values import DEEPEST, array_of, plain, put_array

__all__ = ["FormError", "TooDeepError", "read_request", "status_form", "write_reply"]

Form: TypeAlias = dict[str, Any]
"""A JSON object; its values are checked where they are read."""

DOCUMENTS_DEPTH = 3
"""Levels of messages around the first documents: the request, its data, its array of documents."""

_SCORE_WORDS = ("op_name", "description", "ref_id")


class FormError(ValueError):
    """The JSON does not have the form of a request.

    Attributes:
        place: Keys and positions that lead to the wrong value.
    """

    def __init__(self, place: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.place = place

    @property
    def detail(self) -> Form:
        """The error in the form in which FastAPI answers."""
        return {"loc": ["body", *self.place], "msg": str(self), "type": "value_error"}


class TooDeepError(FormError):
    """The JSON has the form of a request, but is nested more deeply than any server reads."""


def read_request(body: bytes, endpoint: str | None = None, *, keep_id: bool = False) -> DataRequestProto:
    """Return the request of a JSON text.

    Args:
        body: ``{"data": [...], "parameters": {...}, "execEndpoint": "/encode", "targetExecutor": ""}``; the last
            two in camelCase or snake_case. ``data`` may be ``{"docs": [...]}``, and any of them may be missing.
        endpoint: The endpoint, where the path says it.
        keep_id: Whether its id is the one in ``header.request_id``. jina gives it a new one, since over http the
            exchange itself pairs request and reply.

    Raises:
        FormError: The text is of another form.
    """
    try:
        form = msgspec.json.decode(body) if body else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormError((), f"JSON decode error: {error}") from None
    if form == []:
        form = {}
    _expect(form, dict, (), "an object")
    request = DataRequestProto()
    request.header.request_id = (keep_id and _id_of(form)) or uuid.uuid4().hex
    request.header.exec_endpoint = endpoint or _either(form, "exec_endpoint", "execEndpoint") or "/"
    request.header.target_executor = _either(form, "target_executor", "targetExecutor")
    parameters = form.get("parameters")
    if parameters is not None:
        _expect(parameters, dict, ("parameters",), "an object")
        _put_struct(request.parameters, parameters, ("parameters",), depth=1)
    data = form.get("data")
    if isinstance(data, dict):
        data = data.get("docs")
    request.data.docs.SetInParent()
    if data is not None:
        _read_documents(request.data.docs.docs, data, ("data",), DOCUMENTS_DEPTH)
    return request


def _id_of(form: Form) -> str:
    header = form.get("header")
    return _either(header, "request_id", "requestId") if isinstance(header, dict) else ""


def _either(form: Form, snake: str, camel: str) -> str:
    value = form.get(snake, form.get(camel))
    return str(_expect(value, str, (camel,), "a string")) if value is not None else ""


def _expect(value: object, kind: type | tuple[type, ...], place: tuple[str | int, ...], what: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise FormError(place, f"value is not {what}")
    return value


def _put_struct(struct: Any, values: Form, place: tuple[str | int, ...], depth: int) -> None:
    _check_depth(depth + _levels(values), place)
    try:
        struct.update(values)
    except (ValueError, OverflowError) as error:
        raise FormError(place, str(error)) from None


def _levels(value: object) -> int:
    """Return how many messages a Struct's value is: a Struct, its entry and the entry's Value, and so on."""
    if isinstance(value, dict):
        return 3 + max(map(_levels, value.values()), default=0)
    if isinstance(value, list):
        return 2 + max(map(_levels, value), default=0)
    return 0


def _check_depth(depth: int, place: tuple[str | int, ...]) -> None:
    """Refuse values nested so deeply that no reader of the protobuf message would read them."""
    if depth > DEEPEST:
        raise TooDeepError(place, f"nested too deeply: of messages in messages, {DEEPEST} are read")


def _read_documents(target: Any, forms: object, place: tuple[str | int, ...], depth: int) -> None:
    _expect(forms, list, place, "a list of documents")
    _check_depth(depth + 1, place)
    for position, form in enumerate(forms):  # type: ignore[arg-type,var-annotated]
        at = (*place, position)
        _read_document(target.add(), _expect(form, dict, at, "an object"), at, depth + 1)


def _read_document(document: DocumentProto, form: Form, place: tuple[str | int, ...], depth: int) -> None:
    for key, value in form.items():
        kind = _KINDS.get(key)
        if value is None or kind is None:  # unknown keys are ignored, as jina does
            continue
        try:
            kind.read(document, key, value, (*place, key), depth)
        except (OverflowError, TypeError) as error:
            raise FormError((*place, key), str(error)) from None


def _read_word(document: DocumentProto, key: str, value: object, place: tuple[str | int, ...], depth: int) -> None:
    setattr(document, key, _expect(value, str, place, "a string"))


def _read_count(document: DocumentProto, key: str, value: object, place: tuple[str | int, ...], depth: int) -> None:
    try:
        setattr(document, key, _expect(value, int, place, "a whole number"))
    except ValueError as error:
        raise FormError(place, str(error)) from None


def _read_number(document: DocumentProto, key: str, value: object, place: tuple[str | int, ...], depth: int) -> None:
    setattr(document, key, _expect(value, (int, float), place, "a number"))


def _read_numbers(document: DocumentProto, key: str, value: object, place: tuple[str | int, ...], depth: int) -> None:
    getattr(document, key).extend(_expect(value, list, place, "a list of numbers"))


def _read_blob(document: DocumentProto, key: str, value: object, place: tuple[str | int, ...], depth: int) -> None:
    try:
        setattr(document, key, b64decode(_expect(value, str, place, "a string of base64"), validate=True))
    except (Base64Error, ValueError) as error:
        raise FormError(place, f"not standard base64: {error}") from None


def _read_array(document: DocumentProto, key: str, value: object, place: tuple[str | int, ...], depth: int) -> None:
    try:
        array = np.asarray(_expect(value, list, place, "a list"))
        if array.dtype.kind not in "biuf":
            raise ValueError("its items are not numbers")
    except ValueError as error:
        raise FormError(place, f"not an array: {error}") from None
    put_array(getattr(document, key), array)


def _read_struct(document: DocumentProto, key: str, value: object, place: tuple[str | int, ...], depth: int) -> None:
    _put_struct(getattr(document, key), _expect(value, dict, place, "an object"), place, depth)


def _read_nested(document: DocumentProto, key: str, value: object, place: tuple[str | int, ...], depth: int) -> None:
    _read_documents(getattr(document, key), value, place, depth)


def _read_scores(document: DocumentProto, key: str, value: object, place: tuple[str | int, ...], depth: int) -> None:
    target = getattr(document, key)
    for name, form in _expect(value, dict, place, "an object").items():
        _expect(form, dict, (*place, name), "an object")
        score = {field: form[field] for field in ("value", *_SCORE_WORDS) if form.get(field) is not None}
        target[name].CopyFrom(NamedScoreProto(**score))


def write_reply(
    reply: DataRequestProto, *, camel: bool, encode: Callable[[object], bytes] = msgspec.json.encode
) -> list[bytes]:
    """Return the JSON text of a reply, a document in each piece: as Python objects, numbers take ten times as much.

    Args:
        reply: The reply.
        camel: Whether the keys around the documents are written in camelCase.
        encode: The encoder of objects, lists and numbers. msgspec writes ``null`` for a number that is not finite,
            which JSON cannot express.
    """
    header = reply.header
    status = status_form(header.status) if header.HasField("status") else None
    around = {
        "request_id": header.request_id,
        "status": status,
        "exec_endpoint": header.exec_endpoint,
        "target_executor": header.target_executor,
    }
    routes = [_route_form(route, camel=camel) for route in reply.routes]
    head = encode(
        {
            "header": {_camel(key): value for key, value in around.items()} if camel else _without_none(around),
            "parameters": plain(reply.parameters),
            "routes": routes,
        }
    )
    pieces = [head[:-1], b',"data":[']
    for document in reply.data.docs.docs:
        pieces += (encode(_document_form(document)), b",")
    pieces[-1] = b"]}" if reply.data.docs.docs else b',"data":[]}'
    return pieces


def status_form(status: StatusProto) -> Form:
    """Return a status as JSON has it."""
    exception = None
    if status.HasField("exception"):
        exception = {
            "name": status.exception.name,
            "args": list(status.exception.args),
            "stacks": list(status.exception.stacks),
            "executor": status.exception.executor,
        }
    return {"code": status.code, "description": status.description, "exception": exception}


def _without_none(form: Form) -> Form:
    return {key: value for key, value in form.items() if value is not None}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.title() for other in others)


def _route_form(route: RouteProto, *, camel: bool) -> Form:
    form = {
        "executor": route.executor,
        "start_time": _time(route.start_time, camel=camel),
        "end_time": _time(route.end_time, camel=camel) if route.HasField("end_time") else None,
        "status": status_form(route.status) if route.HasField("status") else None,
    }
    return {_camel(key): value for key, value in form.items()} if camel else _without_none(form)


def _time(time: Timestamp, *, camel: bool) -> str:
    written = time.ToDatetime(UTC).isoformat(timespec="microseconds")
    return written if camel else written.replace("+00:00", "Z")


def _document_form(document: DocumentProto) -> Form:
    return {name: kind.write(getattr(document, name)) for name, kind in _KINDS.items()}


def _write_plain(value: object) -> object:
    return value or None


def _write_numbers(numbers: Iterable[float]) -> list[float] | None:
    """Return the numbers, if there are any and all are finite: a ``null`` among them would break the reply."""
    listed = list(numbers)
    return listed if listed and all(map(math.isfinite, listed)) else None


def _write_blob(value: bytes) -> str | None:
    return b64encode(value).decode() if value else None


def _write_array(proto: NdArrayProto) -> list[Any] | None:
    # A field that is not set reads as an empty message, which has no array to write.
    if proto.WhichOneof("content") is None:
        return None
    listed: list[Any] = array_of(proto).tolist()
    return listed


def _write_struct(struct: Struct) -> Form | None:
    return plain(struct) or None


def _write_nested(documents: Iterable[DocumentProto]) -> list[Form] | None:
    return [_document_form(document) for document in documents] or None


def _write_scores(scores: Mapping[str, NamedScoreProto]) -> Form | None:
    return {
        name: {"value": score.value or None, **{word: getattr(score, word) or None for word in _SCORE_WORDS}}
        for name, score in scores.items()
    } or None


class _Kind(NamedTuple):
    """How the fields of one type are read from JSON and written in it."""

    read: Callable[[DocumentProto, str, object, tuple[str | int, ...], int], None]
    write: Callable[[Any], object]


def _kind_of(field: Any) -> _Kind:  # types-protobuf has no one type of descriptors
    message = field.message_type
    if message is None:
        return _REPEATED[field.type] if field.is_repeated else _PLAIN[field.type]
    if message.GetOptions().map_entry:
        message = message.fields_by_name["value"].message_type
    return _MESSAGES[message.name]


_PLAIN = {
    FieldDescriptor.TYPE_STRING: _Kind(_read_word, _write_plain),
    FieldDescriptor.TYPE_UINT32: _Kind(_read_count, _write_plain),
    FieldDescriptor.TYPE_FLOAT: _Kind(_read_number, _write_plain),
    FieldDescriptor.TYPE_BYTES: _Kind(_read_blob, _write_blob),
}
_REPEATED = {FieldDescriptor.TYPE_FLOAT: _Kind(_read_numbers, _write_numbers)}
_MESSAGES = {
    "NdArrayProto": _Kind(_read_array, _write_array),
    "NamedScoreProto": _Kind(_read_scores, _write_scores),
    "DocumentProto": _Kind(_read_nested, _write_nested),
    "Struct": _Kind(_read_struct, _write_struct),
}
_ORDER = (
    "id parent_id granularity adjacency blob tensor mime_type text weight uri tags offset location embedding modality "
    "evaluations scores chunks matches"
)
"""jina's order of a document's fields; any other field comes after these."""


def _kinds() -> dict[str, _Kind]:
    order = _ORDER.split()
    fields = DocumentProto.DESCRIPTOR.fields_by_name
    names = sorted(fields, key=lambda name: order.index(name) if name in order else len(order))
    return {name: _kind_of(fields[name]) for name in names if not name.startswith("_")}


_KINDS: dict[str, _Kind] = _kinds()
"""Fields of a document; ``_metadata`` is internal to docarray, and is not part of the JSON."""
