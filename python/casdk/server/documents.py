"""Documents of a request: which ones an access path means, and what each one holds."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
from google.protobuf.struct_pb2 import Struct, Value
from numpy.typing import NDArray

from casdk.server.wire.docarray_pb2 import DenseNdArrayProto, DocumentProto, NdArrayProto
from casdk.server.wire.jina_pb2 import DataRequestProto

__all__ = ["DEEPEST", "MOST", "Place", "array_of", "count", "finish", "plain", "put_array", "select", "shown"]

Place: TypeAlias = tuple[str, DocumentProto]
"""How an error names a document, and the document."""

DEEPEST = 90
"""Messages in each other, of a request: protobuf reads 100, and what is indexed stands deeper when it is found."""
MOST = 2**32 - 1
"""Largest number of a ``uint32``."""
AXES = 8
"""Of an array: an image has three."""
PATHS = 16
"""Access paths of a request."""
SHOWN_CHARACTERS = 100
"""Characters of a client's value that an error repeats."""
_PATHS = re.compile(r"@[rcm]+(,[rcm]+)*")
_DTYPE = re.compile(r"[<>=|]?[biufUSOVcMm]\d{0,2}|[a-z]+\d{0,3}")
_STEP = {"c": "chunk", "m": "match"}


def shown(value: object) -> str:
    """Return a client's value as an error repeats it."""
    text = repr(value[: SHOWN_CHARACTERS + 1] if isinstance(value, (str, list)) else value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def finish(request: DataRequestProto) -> int:
    """Fill in what a server owes every request that it has read, and return how many documents it has."""
    request.header.ClearField("status")
    request.ClearField("routes")
    request.parameters.SetInParent()
    request.data.docs.SetInParent()
    return complete(request.data.docs.docs)


def complete(documents: Iterable[DocumentProto]) -> int:
    """Fill in what a server owes every document: an id, and the depth of what is nested in it. Return their number."""
    found = 0
    for document in documents:
        if not document.id:
            document.id = uuid.uuid4().hex
        for chunk in document.chunks:
            chunk.granularity = chunk.granularity or min(document.granularity + 1, MOST)
            chunk.parent_id = chunk.parent_id or document.id
        for match in document.matches:
            match.adjacency = match.adjacency or min(document.adjacency + 1, MOST)
        found += 1 + complete(document.chunks) + complete(document.matches)
    return found


def select(documents: Iterable[DocumentProto], paths: object) -> list[Place]:
    """Return the documents of an access path: ``@r`` the roots, ``@m`` their matches, ``@c`` their chunks.

    Steps follow each other (``@cm``: the matches of the chunks) and paths are joined by commas (``@r,m``).

    Raises:
        ValueError: The path is of another form, or of too many others.
    """
    if not isinstance(paths, str) or paths.count(",") >= PATHS or not _PATHS.fullmatch(paths):
        raise ValueError(
            f"access path {shown(paths)} is not of the form @r, @m, @c, @cm or @r,m (at most {PATHS} of them)"
        )
    roots = [(f"document {position}", document) for position, document in enumerate(documents)]
    found = [place for path in paths[1:].split(",") for place in _walk(roots, path.replace("r", ""))]
    return found if "," not in paths else list({id(document): (name, document) for name, document in found}.values())


def _walk(places: list[Place], path: str) -> list[Place]:
    for step in path[: DEEPEST + 1]:  # beyond which there is nothing
        places = [inner for place in places for inner in _inside(place, step)]
    return places


def _inside(place: Place, step: str) -> Iterator[Place]:
    name, document = place
    for position, inner in enumerate(document.matches if step == "m" else document.chunks):
        yield f"{name}, {_STEP[step]} {position}", inner


def array_of(proto: NdArrayProto) -> NDArray[np.generic]:
    """Return the array of a dense message, read-only, without a copy.

    Raises:
        ValueError: The array is sparse, of a dtype that holds no numbers, or its bytes do not fill its shape.
    """
    if proto.WhichOneof("content") != "dense":
        raise ValueError("the array is not dense")
    dense = proto.dense
    if len(dense.shape) > AXES:
        raise ValueError(f"an array of {len(dense.shape)} axes; at most {AXES} are read")
    if not _DTYPE.fullmatch(dense.dtype):  # NumPy reads a whole language there
        raise ValueError(f"no dtype {shown(dense.dtype)}")
    try:
        dtype = np.dtype(dense.dtype)
    except TypeError as error:
        raise ValueError(f"no dtype {shown(dense.dtype)}: {error}") from None
    if dtype.kind not in "biuf":
        raise ValueError(f"an array of dtype {shown(dense.dtype)} holds no numbers")
    return np.frombuffer(dense.buffer, dtype).reshape(tuple(dense.shape))


def put_array(proto: NdArrayProto, array: NDArray[np.generic]) -> None:
    """Write an array of any shape into a message."""
    proto.dense.CopyFrom(
        DenseNdArrayProto(buffer=array.tobytes(), shape=array.shape, dtype=array.dtype.str),
    )
    proto.cls_name = "numpy"


def plain(parameters: Struct) -> dict[str, object]:
    """Return a Struct as Python values; every number is a float."""
    return {key: _value(value) for key, value in parameters.fields.items()}


def _value(value: Value) -> object:
    match value.WhichOneof("kind"):
        case "struct_value":
            return plain(value.struct_value)
        case "list_value":
            return [_value(item) for item in value.list_value.values]
        case "number_value":
            return value.number_value
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
    return None


def count(parameters: Mapping[str, object], name: str, default: int) -> int:
    """Return a parameter that counts something.

    Raises:
        ValueError: It is no whole number of at least 1.
    """
    given = parameters.get(name, default)
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 1 <= given <= MOST or given != int(given):
        raise ValueError(f"parameter {name!r} is {shown(given)}; it must be a whole number of at least 1")
    return int(given)
