"""Recognises docarray's documents by their classes alone; `casdk.documents.docarray` reads and writes them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, Final

__all__ = ["hold_documents", "is_array", "origins", "recognise"]

# Read by `type` itself, because a metaclass of the caller's may define these attributes in its own way.
BASES: Final[Callable[[type], tuple[type, ...]]] = type.__dict__["__mro__"].__get__
MODULE: Final[Callable[[type], Any]] = type.__dict__["__module__"].__get__
NAME: Final[Callable[[type], str]] = type.__dict__["__name__"].__get__


def origins(kind: type) -> Iterable[tuple[str, str]]:
    """Yield module and name of a class and of each of its bases; ``""`` for a module that is not a ``str``."""
    for base in BASES(kind):
        module = MODULE(base)
        yield module if type(module) is str else "", NAME(base)


def recognise(item: object) -> bool:
    """Whether this is a document of docarray's, by the modules of its class and its bases."""
    return "docarray" in sys.modules and _is_document(type(item))


def hold_documents(items: Iterable[object]) -> bool:
    """Whether one of these is a document of docarray's; each class is checked once."""
    return "docarray" in sys.modules and any(map(_is_document, set(map(type, items))))


def _is_document(kind: type) -> bool:
    return any(module in ("docarray.document", "docarray.base_doc.doc") for module, _ in origins(kind))


def is_array(content: object) -> bool:
    """Whether this is an array of docarray's, which may be empty, so that no document shows it."""
    return "docarray" in sys.modules and any(
        module.startswith("docarray.") and name in ("DocumentArray", "DocList", "DocVec")
        for module, name in origins(type(content))
    )
