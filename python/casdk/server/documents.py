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

__all__ = ["Place", "array_of", "complete", "count", "plain", "put_array", "select"]

Place: TypeAlias = tuple[str, DocumentProto]
"""How an error names a document, and the document."""

_PATHS = re.compile(r"@[rcm]+(,[rcm]+)*")
_STEP = {"c": "chunk", "m": "match"}


def complete(documents: Iterable[DocumentProto]) -> None:
    """Fill in what a server owes every document: an id, and the depth of what is nested in it."""
    for document in documents:
        if not document.id:
            document.id = uuid.uuid4().hex
        for chunk in document.chunks:
            chunk.granularity = chunk.granularity or document.granularity + 1
            chunk.parent_id = chunk.parent_id or document.id
        for match in document.matches:
            match.adjacency = match.adjacency or document.adjacency + 1
        complete(document.chunks)
        complete(document.matches)


def select(documents: Iterable[DocumentProto], paths: object) -> list[Place]:
    """Return the documents of an access path: ``@r`` the roots, ``@m`` their matches, ``@c`` their chunks.

    Steps follow each other (``@cm``: the matches of the chunks) and paths are joined by commas (``@r,m``).

    Raises:
        ValueError: The path is of another form.
    """
    if not isinstance(paths, str) or not _PATHS.fullmatch(paths):
        raise ValueError(f"access path {paths!r} is not of the form @r, @m, @c, @cm or @r,m")
    roots = [(f"document {position}", document) for position, document in enumerate(documents)]
    found = [place for path in paths[1:].split(",") for place in _walk(roots, path)]
    return found if "," not in paths else list({id(document): (name, document) for name, document in found}.values())


def _walk(places: list[Place], path: str) -> list[Place]:
    for step in path:
        if step != "r":
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
    try:
        dtype = np.dtype(dense.dtype)
    except (TypeError, SyntaxError) as error:
        raise ValueError(f"no dtype {dense.dtype!r}: {error}") from None
    if dtype.kind not in "biuf":
        raise ValueError(f"an array of dtype {dense.dtype!r} holds no numbers")
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
    if isinstance(given, bool) or not isinstance(given, (int, float)) or given != int(given) or given < 1:
        raise ValueError(f"parameter {name!r} is {given!r}; it must be a whole number of at least 1")
    return int(given)
