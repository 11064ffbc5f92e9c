"""docarray's documents: ``docarray.Document`` up to 0.21, ``docarray.BaseDoc`` from 0.30 on.

A document is read into a `casdk.Document` that is sent in its place, and the server's results are written back to it,
so that the program keeps its own objects. docarray is never imported unless one of its objects is an item, or
`to_docarray` is called.

A ``BaseDoc`` is read by the names of its fields: ``text``; ``url`` or ``uri``; ``bytes_``, ``bytes`` or ``blob``;
``tensor``; ``embedding``; and, where its class has them, ``matches``, ``chunks``, ``tags``, ``scores``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, Union, get_args, get_origin

import numpy as np

from casdk.documents.fields import NamedScore
from casdk.documents.recognise import recognise
from casdk.errors import InputTypeError, ReplyError

if TYPE_CHECKING:
    from casdk.documents.model import Document, DocumentArray

__all__ = ["collect", "to_docarray", "to_document", "write_back"]

NAMES: Final[dict[str, tuple[str, ...]]] = {"uri": ("url", "uri"), "blob": ("bytes_", "bytes", "blob")}
"""The names that a field of a `casdk.Document` may have in a ``BaseDoc``, if they differ."""
ARRAYS: Final = ("tensor", "embedding")
NESTED: Final = ("matches", "chunks")
SCORES: Final = ("scores", "evaluations")
CONTENT: Final = ("id", "text", "uri", "blob", "tensor")
NOT_IMAGES: Final = ("Text", "Audio", "Video", "Mesh3D", "PointCloud3D")
"""How the names of docarray's types begin whose URLs and bytes are not images."""


def to_document(kind: type[Document], item: Any, *, candidates: str | None = None, whole: bool = False) -> Document:
    """Return the Document that is sent for one of docarray's; the item is not changed.

    Args:
        kind: `casdk.Document`, whose own file imports this one.
        item: What `casdk.documents.recognise.recognise` accepts.
        candidates: Attribute whose documents travel too, ``matches`` or ``chunks``; their ids are replaced by their
            positions, by which `write_back` finds them again.
        whole: Copy all fields, also nested documents and embeddings, and not only the content.

    Raises:
        InputTypeError: The item's class has no field for the server's result.
    """
    if not whole:
        _check_fields(item, candidates or "embedding")
    fields = {name: value for name in (kind.__struct_fields__ if whole else CONTENT) if _is(value := _get(item, name))}
    for name in ARRAYS:
        if name in fields:
            fields[name] = _as_array(fields[name])
    for name in SCORES:
        if name in fields:
            fields[name] = {key: _as_score(score) for key, score in fields[name].items()}
    for name in NESTED:
        if name in fields:
            fields[name] = [to_document(kind, nested, whole=True) for nested in fields[name]]
    if "tags" in fields:
        fields["tags"] = dict(fields["tags"])
    if candidates is not None and not whole:
        fields[candidates] = [_to_candidate(kind, nested, at) for at, nested in enumerate(_get(item, candidates) or ())]
    return kind(**fields)


def _to_candidate(kind: type[Document], item: Any, position: int) -> Document:
    if not recognise(item):
        raise InputTypeError(f"candidate {position} is a {type(item).__name__}, not a document of docarray's")
    fields = {name: value for name in CONTENT[1:] if _is(value := _get(item, name))}
    if "tensor" in fields:
        fields["tensor"] = _as_array(fields["tensor"])
    return kind(id=str(position), **fields)


def _check_fields(item: Any, name: str) -> None:
    if _is_first(item):
        return
    if name not in _fields(type(item)):
        raise InputTypeError(f"{type(item).__name__} has no field {name!r} to hold the result")
    if item.is_view():
        raise InputTypeError("documents of a DocVec cannot be changed one by one: give .to_doc_list()")


def _is_first(item: Any) -> bool:
    """Whether this is a document of docarray up to 0.21."""
    return hasattr(item, "non_empty_fields")


def _fields(kind: type[Any]) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(kind, "model_fields", None) or getattr(kind, "__fields__", {})
    return fields


def _annotation(kind: type[Any], name: str) -> Any:
    """Return the type of a field without ``None``, as pydantic 1 or 2 has it."""
    field = _fields(kind)[name]
    annotation = getattr(field, "outer_type_", None) or field.annotation
    if get_origin(annotation) in (Union, UnionType):
        return next(one for one in get_args(annotation) if one is not NoneType)
    return annotation


def _get(item: Any, name: str) -> Any:
    """Return a value, or ``None``. An empty field of a document of 0.21 is not read, because that would fill it."""
    if _is_first(item):
        return getattr(item, name) if name in item.non_empty_fields else None
    for theirs in NAMES.get(name, (name,)):
        if theirs in _fields(type(item)):
            value = getattr(item, theirs)
            if name not in NAMES:
                return value
            if value is not None and _may_be_image(item, value):
                return bytes(value) if name == "blob" else str(value)
    return None


def _is(value: Any) -> bool:
    return value is not None and (isinstance(value, np.ndarray) or hasattr(value, "__array__") or bool(value))


def _may_be_image(item: Any, value: Any) -> bool:
    if any(base.__module__ == "docarray.documents.text" for base in type(item).__mro__):
        return False  # its bytes are a text
    kind = type(value)
    return not (kind.__module__.startswith("docarray.") and kind.__name__.startswith(NOT_IMAGES))


def _as_array(value: Any) -> np.ndarray[Any, Any]:
    return value.view(np.ndarray) if isinstance(value, np.ndarray) else np.asarray(value)


def _as_score(score: Any) -> NamedScore:
    if isinstance(score, int | float):
        return NamedScore(float(score))
    names = NamedScore.__struct_fields__
    fields = score if isinstance(score, Mapping) else {name: getattr(score, name, None) for name in names}
    return NamedScore(**{name: value for name in names if (value := fields.get(name)) is not None})


def write_back(
    foreign: Any,
    document: Document,
    *,
    candidates: str | None = None,
    owners: dict[int, Any] | None = None,
    matches: bool = False,
) -> None:
    """Write the server's results to the program's own document.

    Args:
        foreign: The document that `to_document` has read.
        document: The document that `to_document` has returned, after the call.
        candidates: As for `to_document`: these documents get their scores, and the order of
            ``document``'s. A ``BaseDoc`` without a field ``scores`` gets the order only.
        owners: Which document was the first to have a candidate, by the candidate's ``id()``; passed on from one
            document of a call to the next: the others get copies, since each has scores of its own.
        matches: Replace the matches by ``document``'s, as after a search.

    Raises:
        InputTypeError: The class of a ``BaseDoc`` has no field for a result.
    """
    if document.embedding is not None and candidates is None:
        _require_field(foreign, "embedding")
        foreign.embedding = document.embedding
    if candidates is not None:
        nested = list(getattr(foreign, candidates))
        ranked = [nested[int(candidate.id)] for candidate in getattr(document, candidates)]
        if len(ranked) != len(nested):
            raise ReplyError(f"{len(nested)} candidates were sent, {len(ranked)} came back")
        if owners is not None:
            ranked = [
                theirs if owners.setdefault(id(theirs), foreign) is foreign else _copy(theirs) for theirs in ranked
            ]
        for theirs, ours in zip(ranked, getattr(document, candidates), strict=True):
            _write_scores(theirs, ours.scores)
        setattr(foreign, candidates, _array_like(getattr(foreign, candidates), ranked))
    if matches:
        _require_field(foreign, "matches")
        if _is_first(foreign):
            foreign.matches = to_docarray(document.matches)
        else:
            foreign.matches = _to_base_docs(type(foreign), document.matches)


def _copy(foreign: Any) -> Any:
    if _is_first(foreign):
        return type(foreign)(foreign, copy=True)
    return foreign.model_copy() if hasattr(foreign, "model_copy") else foreign.copy()


def _require_field(foreign: Any, name: str) -> None:
    if not _is_first(foreign) and name not in _fields(type(foreign)):
        raise InputTypeError(f"{type(foreign).__name__} has no field {name!r} to hold the result")


def _array_like(array: Any, documents: list[Any]) -> Any:
    if documents and _is_first(documents[0]):
        return import_module("docarray").DocumentArray(documents)
    kind: Any = type(array)
    return kind(documents)


def _write_scores(foreign: Any, scores: Mapping[str, NamedScore]) -> None:
    if not scores:
        return
    if _is_first(foreign):
        their_score = import_module("docarray.score").NamedScore
        for name, score in scores.items():
            foreign.scores[name] = their_score(**_as_fields(score))
    elif "scores" in _fields(type(foreign)):
        foreign.scores = {**(foreign.scores or {}), **{name: _as_fields(score) for name, score in scores.items()}}


def _as_fields(score: NamedScore) -> dict[str, Any]:
    return {"value": score.value} | {
        name: value for name in score.__struct_fields__[1:] if (value := getattr(score, name))
    }


def collect(items: Sequence[Any], like: object = None) -> Any:
    """Return docarray's documents in docarray's kind of array.

    Args:
        items: Documents of one version of docarray.
        like: The content of the call; for a ``DocList`` the result is a ``DocList`` of the same type.

    Returns:
        ``docarray.DocumentArray``, or a ``docarray.DocList`` of the class that the items have in common.
    """
    docarray = import_module("docarray")
    their_list = getattr(docarray, "DocList", None)
    if their_list is None:
        return docarray.DocumentArray(items)
    if isinstance(like, their_list):
        kind: Any = type(like)
        return kind(items)
    kinds = {type(item) for item in items}
    return their_list[kinds.pop()](items) if len(kinds) == 1 else their_list(items)


def to_docarray(documents: Iterable[Document]) -> Any:
    """Return a ``docarray.DocumentArray`` (docarray up to 0.21) of copies.

    A document of docarray has only one of text, blob and tensor; it gets the first that is set.

    Raises:
        ImportError: docarray is missing, or is of another version.
    """
    try:
        docarray = import_module("docarray")
        their_array, their_score = docarray.DocumentArray, import_module("docarray.score").NamedScore
    except (ImportError, AttributeError) as error:
        raise ImportError("a docarray.DocumentArray takes docarray 0.21: pip install 'docarray<0.30'") from error

    def copy(document: Document) -> Any:
        fields = _content(document)
        for name in document.__struct_fields__:
            if name not in ("text", "blob", "tensor", *NESTED, *SCORES) and _is(value := getattr(document, name)):
                fields[name] = value.copy() if isinstance(value, dict | list) else value
        theirs = docarray.Document(**fields)
        for name in SCORES:
            for key, score in getattr(document, name).items():
                getattr(theirs, name)[key] = their_score(**_as_fields(score))
        for name in NESTED:
            if nested := getattr(document, name):
                setattr(theirs, name, their_array([copy(one) for one in nested]))
        return theirs

    return their_array([copy(document) for document in documents])


def _content(document: Document) -> dict[str, Any]:
    kind = document.content_type
    return {} if kind is None else {kind: document.content}


def _to_base_docs(kind: type[Any], documents: DocumentArray) -> Any:
    """Return our documents in the class of the ``matches`` of a ``BaseDoc``."""
    array = _annotation(kind, "matches")
    inner = getattr(array, "doc_type", None)
    if inner is None:
        raise InputTypeError(f"{kind.__name__}.matches must be a DocList[...] of documents to hold the matches")
    return array([_to_base_doc(inner, document) for document in documents])


def _to_base_doc(kind: type[Any], document: Document) -> Any:
    known = _fields(kind)
    values: dict[str, Any] = {}
    for name in (*CONTENT, "embedding", "tags"):
        value = getattr(document, name)
        theirs = next((theirs for theirs in NAMES.get(name, (name,)) if theirs in known), None)
        if theirs is not None and _is(value):
            values[theirs] = value
    made = kind(**values)
    _write_scores(made, document.scores)
    return made
