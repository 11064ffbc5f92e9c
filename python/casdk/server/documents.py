"""Finds the documents of a request that an access path selects, and completes those that lack an id or a depth."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from casdk.wire.docarray_pb2 import DocumentProto
from casdk.wire.jina_pb2 import DataRequestProto
from casdk.wire.values import DEEPEST, MOST, shown

__all__ = ["Place", "count", "finish", "select"]

Place: TypeAlias = tuple[str, DocumentProto]
"""A document, after the name that errors have for it."""

PATHS = 16
"""The most access paths that a request may have."""
_PATHS = re.compile(r"@[rcm]+(,[rcm]+)*")
_STEP = {"c": "chunk", "m": "match"}


def finish(request: DataRequestProto) -> int:
    """Fill in what a client may leave out of a request, and return how many documents it has."""
    request.header.ClearField("status")
    request.ClearField("routes")
    request.parameters.SetInParent()
    request.data.docs.SetInParent()
    return complete(request.data.docs.docs)


def complete(documents: Iterable[DocumentProto]) -> int:
    """Fill in the ids of documents that have none, and the depth of nested ones; return the number of documents."""
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
    for step in path[: DEEPEST + 1]:  # no document lies deeper
        places = [inner for place in places for inner in _inside(place, step)]
    return places


def _inside(place: Place, step: str) -> Iterator[Place]:
    name, document = place
    for position, inner in enumerate(document.matches if step == "m" else document.chunks):
        yield f"{name}, {_STEP[step]} {position}", inner


def count(parameters: Mapping[str, object], name: str, default: int) -> int:
    """Return a parameter that has to be a positive whole number.

    Raises:
        ValueError: It is no whole number of at least 1.
    """
    value = parameters.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= MOST or value != int(value):
        raise ValueError(f"parameter {name!r} is {shown(value)}; it must be a whole number of at least 1")
    return int(value)
