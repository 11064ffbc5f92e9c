"""The http form of the wire's messages."""

from __future__ import annotations

import base64
import json
import math
from typing import Any, Final

import numpy as np
from google.protobuf import json_format

from casdk.server.wire import docarray_pb2, jina_pb2

__all__ = ["read_request", "write_reply"]

ARRAYS: Final = ("tensor", "embedding")
CAMEL: Final = {
    "request_id": "requestId",
    "exec_endpoint": "execEndpoint",
    "target_executor": "targetExecutor",
    "start_time": "startTime",
    "end_time": "endTime",
}


def read_request(body: bytes) -> jina_pb2.DataRequestProto:
    """Read a request.

    Raises:
        ValueError: It is no request.
    """
    tree = json.loads(body)
    if not isinstance(tree, dict):
        raise ValueError("the body must be an object")
    request = jina_pb2.DataRequestProto()
    header = tree.get("header") or {}
    request.header.request_id = header.get("request_id") or header.get("requestId") or ""
    request.header.exec_endpoint = tree.get("exec_endpoint") or tree.get("execEndpoint") or ""
    json_format.ParseDict(tree.get("parameters") or {}, request.parameters)
    data = tree.get("data") or []
    for item in data["docs"] if isinstance(data, dict) else data:
        _read_document(item, request.data.docs.docs.add())
    return request


def _read_document(tree: dict[str, Any], document: docarray_pb2.DocumentProto) -> None:
    known = docarray_pb2.DocumentProto.DESCRIPTOR.fields_by_name
    for name, value in tree.items():
        if value is None or name not in known:
            continue
        if name in ARRAYS:
            _read_array(value, getattr(document, name))
        elif name in ("chunks", "matches"):
            for inside in value:
                _read_document(inside, getattr(document, name).add())
        elif name == "blob":
            document.blob = base64.b64decode(value)
        elif name in ("tags", "scores", "evaluations", "location"):
            json_format.ParseDict({name: value}, document)
        else:
            setattr(document, name, value)


def _read_array(value: Any, target: docarray_pb2.NdArrayProto) -> None:
    array = np.array(value)
    target.dense.buffer = array.tobytes()
    target.dense.shape.extend(array.shape)
    target.dense.dtype = array.dtype.str


def write_reply(reply: jina_pb2.DataRequestProto) -> bytes:
    """Write a reply as jina's gateway does: camelCase outside the documents, snake_case inside."""
    status = reply.header.status
    tree = {
        "header": {
            "requestId": reply.header.request_id,
            "status": _write_status(status) if status.code else None,
            "execEndpoint": reply.header.exec_endpoint,
            "targetExecutor": "",
        },
        "parameters": json_format.MessageToDict(reply.parameters),
        "routes": [_write_route(route) for route in reply.routes],
        "data": [_write_document(document) for document in reply.data.docs.docs],
    }
    # Python writes NaN as such; it is no JSON, and what a careless server sends.
    return json.dumps(tree).encode()


def _write_status(status: jina_pb2.StatusProto) -> dict[str, Any]:
    tree: dict[str, Any] = json_format.MessageToDict(
        status, preserving_proto_field_name=True, use_integers_for_enums=True, always_print_fields_with_no_presence=True
    )
    tree.setdefault("exception", None)
    return tree


def _write_route(route: jina_pb2.RouteProto) -> dict[str, Any]:
    return {
        "executor": route.executor,
        "startTime": route.start_time.ToJsonString(),
        "endTime": route.end_time.ToJsonString(),
        "status": _write_status(route.status) if route.HasField("status") else None,
    }


def _write_document(document: docarray_pb2.DocumentProto) -> dict[str, Any]:
    tree: dict[str, Any] = dict.fromkeys(docarray_pb2.DocumentProto.DESCRIPTOR.fields_by_name)
    for field, value in document.ListFields():
        name = field.name
        if name in ARRAYS:
            array = np.frombuffer(value.dense.buffer, value.dense.dtype).reshape(tuple(value.dense.shape))
            tree[name] = array.tolist()
        elif name in ("chunks", "matches"):
            tree[name] = [_write_document(inside) for inside in value]
        elif name == "blob":
            tree[name] = base64.b64encode(value).decode()
        elif name in ("scores", "evaluations"):
            tree[name] = {key: _write_score(score) for key, score in value.items()}
        elif name == "tags":
            tree[name] = json_format.MessageToDict(value)
        elif name == "location":
            tree[name] = list(value)
        else:
            tree[name] = value
    return tree


def _write_score(score: docarray_pb2.NamedScoreProto) -> dict[str, Any]:
    value = score.value if math.isfinite(score.value) else None
    return {"value": value, "op_name": score.op_name, "description": score.description, "ref_id": score.ref_id}
