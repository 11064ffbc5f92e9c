"""Reads and applies the selectors between the brackets of a `casdk.DocumentArray`, which calls these functions.

::

    da['@m,c']      paths: comma-separated; each a row of steps from the documents outwards
    '@mc[:2]'       a step: r (the documents themselves), m (matches) or c (chunks), and perhaps [i] or [i:j:k] of
                    every group
    'tags__colour'  a column: a field, then keys of dicts, positions of lists or attributes, joined by two underscores
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, SupportsIndex, TypeGuard

import numpy as np
from numpy.typing import NDArray

from casdk._rust import are_consecutive

if TYPE_CHECKING:
    from casdk.documents.model import Document, DocumentArray

__all__ = [
    "assign",
    "flatten",
    "is_position",
    "positions",
    "read",
    "select",
    "stack",
    "traverse",
    "write",
    "write_column",
]

STEP: Final = re.compile(r"(?P<axis>[rmc])(?:\[(?P<part>[-\d:]+)\]|(?P<bare>[-\d:]+))?")
PART: Final = re.compile(r"(-?\d+)?(?::(-?\d+)?){0,2}")
GROUPS: Final = {"m": "matches", "c": "chunks"}


def is_position(index: object) -> TypeGuard[SupportsIndex]:
    """Whether this is one position; a bool is not, because it is a mask."""
    return isinstance(index, int | np.integer) and not isinstance(index, bool)


def select(documents: DocumentArray, index: Any) -> Any:
    """Return what brackets select, if they have more than one position: documents, a document by id, or columns.

    Raises:
        KeyError: No document has that id.
        TypeError: The brackets take no such thing.
    """
    if isinstance(index, tuple) and len(index) == 2 and _is_columns(index[1]):
        return _read_columns(documents, *index)
    if isinstance(index, str) and not index.startswith("@"):
        return documents[_position(documents, index)]
    if isinstance(index, str) and index == "@r":
        return documents
    return type(documents)(_choose(documents, index))


def _choose(documents: DocumentArray, index: Any) -> Iterable[Document]:
    if isinstance(index, slice):
        return list.__getitem__(documents, index)
    if isinstance(index, str):
        return traverse(documents, index)
    if index is Ellipsis:
        return flatten(documents)
    return [documents[position] for position in positions(documents, index)]


def _is_columns(value: object) -> TypeGuard[str | Sequence[str]]:
    return isinstance(value, str) or (
        isinstance(value, list | tuple) and bool(value) and all(isinstance(column, str) for column in value)
    )


def _position(documents: Sequence[Document], wanted: str) -> int:
    for position, document in enumerate(documents):
        if document.id == wanted:
            return position
    raise KeyError(f"no document has the id {wanted!r}")


def _read_columns(documents: DocumentArray, index: Any, columns: str | Sequence[str]) -> Any:
    if isinstance(columns, str) and isinstance(index, str) and columns in documents:
        return type(documents)([documents[index], documents[columns]])  # two ids
    chosen = documents[index]
    names = [columns] if isinstance(columns, str) else columns
    values = [_read_column(chosen, name) if isinstance(chosen, list) else read(chosen, name) for name in names]
    return values[0] if len(values) == 1 else values


def _read_column(documents: Sequence[Document], column: str) -> Any:
    if column in ("embedding", "tensor"):
        return stack(documents, column)
    if documents and column in documents[0].__struct_fields__:
        return list(map(attrgetter(column), documents))
    return [read(document, column) for document in documents]


def assign(documents: DocumentArray, index: Any, value: Any) -> None:
    """Replace the selected documents, or set columns of them.

    Raises:
        KeyError: No document has that id.
        TypeError: The brackets take no such thing.
        ValueError: More or fewer values than places.
    """
    if isinstance(index, tuple) and len(index) == 2 and _is_columns(index[1]):
        _write_columns(documents, *index, value)
    elif isinstance(index, str) and not index.startswith("@"):
        documents[_position(documents, index)] = value
    else:
        places = positions(documents, index)
        for position, document in zip(places, _as_many(type(documents)(value), len(places)), strict=True):
            documents[position] = document


def _write_columns(documents: DocumentArray, index: Any, columns: str | Sequence[str], value: Any) -> None:
    chosen = documents[index]
    names, values = ([columns], [value]) if isinstance(columns, str) else (columns, value)
    for name, one in zip(names, _as_many(values, len(names)), strict=True):
        if isinstance(chosen, list):
            write_column(chosen, name, one)
        else:
            write(chosen, name, one)


def write_column(documents: Sequence[Document], column: str, values: Any) -> None:
    """Set a field of all documents: to the elements of a list or an array, or to one value for all.

    Raises:
        ValueError: There are more or fewer values than documents.
    """
    if isinstance(values, list | tuple) or (isinstance(values, np.ndarray) and values.ndim):
        for document, value in zip(documents, _as_many(values, len(documents)), strict=True):
            write(document, column, value)
    else:
        for document in documents:
            write(document, column, values)


def _as_many(values: Any, count: int) -> Any:
    if len(values) != count:
        raise ValueError(f"{len(values)} values for {count}")
    return values


def traverse(documents: Sequence[Document], path: str) -> list[Document]:
    """Return the documents that a path such as ``@r,mm`` reaches, path by path, depth first.

    Raises:
        ValueError: The path is not valid; the message shows where.
    """
    parsed = [_parse(one, path) for one in re.sub(r"\s+", "", path[1:]).split(",")]
    return list(chain.from_iterable(_walk(documents, steps) for steps in parsed))


def _parse(one: str, path: str) -> list[tuple[str, slice]]:
    steps: list[tuple[str, slice]] = []
    at = 0
    while match := STEP.match(one, at):
        part = match["part"] or match["bare"] or ":"
        if not PART.fullmatch(part):
            raise ValueError(f"path {path!r}: {part!r} is no position and no slice")
        steps.append((match["axis"], _slice(part)))
        at = match.end()
    if not steps or at < len(one):
        raise ValueError(
            f"path {path!r} breaks at {one[at:]!r}: after the @ come steps r, m or c, "
            "each with [i:j] if wanted, and commas"
        )
    return steps


def _slice(part: str) -> slice:
    bounds = [int(bound) if bound else None for bound in part.split(":")]
    if len(bounds) > 1:
        return slice(*bounds)
    only = bounds[0]
    return slice(only, None if only in (None, -1) else only + 1)


def _walk(group: Sequence[Document], steps: list[tuple[str, slice]]) -> Iterator[Document]:
    if not steps:
        yield from group
        return
    (axis, part), rest = steps[0], steps[1:]
    if axis == "r":
        yield from _walk(group[part], rest)
        return
    for document in group:
        yield from _walk(getattr(document, GROUPS[axis])[part], rest)


def flatten(documents: Iterable[Document]) -> Iterator[Document]:
    """Yield every document once, after those nested in it: its chunks, then its matches."""
    seen: set[int] = set()

    def visit(document: Document) -> Iterator[Document]:
        if id(document) in seen:
            return
        seen.add(id(document))
        for nested in chain(document.chunks, document.matches):
            yield from visit(nested)
        yield document

    for document in documents:
        yield from visit(document)


def positions(documents: Sequence[Document], index: Any) -> list[int]:
    """Return the positions that an id, a mask, a row of positions or a row of ids selects.

    Raises:
        IndexError: A mask has another length, or a position is out of range.
        KeyError: No document has that id.
        TypeError: The selector is something else, or a mixture.
    """
    if isinstance(index, str) and not index.startswith("@"):
        return [_position(documents, index)]
    if not isinstance(index, list | tuple | np.ndarray):
        raise TypeError(f"a DocumentArray has no {index!r} here: see its docstring for what the brackets take")
    if isinstance(index, np.ndarray):
        if index.ndim != 1:
            raise IndexError(f"an array used as index must have one dimension, not {index.ndim}")
        index = index.tolist()
    kinds = {bool if isinstance(key, np.bool_) else int if isinstance(key, np.integer) else type(key) for key in index}
    count = len(documents)
    if not kinds:
        return []
    if kinds == {bool}:
        if len(index) != count:
            raise IndexError(f"a mask of {len(index)} for {count} documents")
        return [position for position, chosen in enumerate(index) if chosen]
    if kinds == {int}:
        return [_in_range(int(position), count) for position in index]
    if all(issubclass(kind, str) for kind in kinds):
        by_id: dict[str, int] = {}
        for position, document in enumerate(documents):
            by_id.setdefault(document.id, position)
        for key in index:
            if key not in by_id:
                raise KeyError(f"no document has the id {str(key)!r}")
        return [by_id[key] for key in index]
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise TypeError(f"documents are chosen by bools, by positions or by ids, not by {names}")


def _in_range(position: int, count: int) -> int:
    if not -count <= position < count:
        raise IndexError(f"position {position} of {count} documents")
    return position % count


def read(document: Document, column: str) -> Any:
    """Return one value of a document: a field, or a value inside of one, as ``tags__colour`` names it.

    Returns:
        ``None`` if a key is missing.

    Raises:
        AttributeError: Documents have no such field.
        IndexError: A list has no such position.
    """
    value: Any = document
    for name in _names(document, column):
        if value is None:
            return None
        value = _follow(value, name)
    return value


def _names(document: Document, column: str) -> list[str]:
    return [column] if column in document.__struct_fields__ else column.split("__")


def _follow(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return value[name] if name in value else value.get(int(name)) if name.lstrip("-").isdecimal() else None
    if isinstance(value, Sequence) and name.lstrip("-").isdecimal():
        return value[int(name)]
    return getattr(value, name)


def write(document: Document, column: str, value: Any) -> None:
    """Set the value that `read` would return; if the last key is missing, it is added.

    Raises:
        AttributeError: Documents have no such field.
        KeyError: A key before the last one is missing.
    """
    *way, last = _names(document, column)
    target: Any = document
    for name in way:
        target = None if target is None else _follow(target, name)
    if target is None:
        raise KeyError(f"{'__'.join(way)} is not there, {last} cannot be set on it")
    if isinstance(target, Mapping):
        target[last] = value  # type: ignore[index]  # a dict of the document's
    elif isinstance(target, list):
        target[int(last)] = value
    else:
        setattr(target, last, value)


def stack(documents: Sequence[Document], field: str) -> NDArray[Any] | None:
    """Return the ``embedding`` or ``tensor`` of all documents as one array ``[N, ...]``.

    Returns:
        A view if the rows are consecutive rows of one matrix, as they are after ``encode``; ``None`` if no
        document has one.

    Raises:
        ValueError: Some documents have one and some have none, or the shapes differ; the first is named.
    """
    rows: list[Any] = list(map(attrgetter(field), documents))
    if not rows:
        return np.empty((0, 0), dtype=np.float32)
    if are_consecutive(rows) and (view := _as_view(rows)) is not None:
        return view
    missing = [position for position, row in enumerate(rows) if row is None]
    if len(missing) == len(rows):
        return None
    if missing:
        raise ValueError(f"document {missing[0]} has no {field} ({len(missing)} of {len(rows)} have none)")
    rows = [np.asarray(row) for row in rows]
    for position, row in enumerate(rows):
        if row.shape != rows[0].shape:
            raise ValueError(
                f"{field}s differ: document 0 has {list(rows[0].shape)}, document {position} {list(row.shape)}"
            )
    return np.stack(rows)


def _as_view(rows: list[NDArray[Any]]) -> NDArray[Any] | None:
    """Return the part of a matrix that the rows are, if they are consecutive rows of one matrix."""
    first = rows[0]
    owner = first.base
    if not isinstance(owner, np.ndarray) or not owner.flags.c_contiguous or owner.dtype != first.dtype:
        return None
    start, apart = divmod(_address(first) - _address(owner), first.itemsize)
    stop = start + len(rows) * first.size
    # The array is alive, so memory within its memory belongs to it, and no row's `base` needs to be checked.
    if apart or start < 0 or stop > owner.size:
        return None
    return owner.reshape(-1)[start:stop].reshape(len(rows), *first.shape)


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
