"""docarray's documents, told by their class alone; what reads and writes them is `casdk.interop.docarray`."""

from __future__ import annotations

import sys
from collections.abc import Iterable

__all__ = ["hold_documents", "is_array", "recognise"]


def recognise(item: object) -> bool:
    """Whether this is a document of docarray's, by the names of the modules its class comes from."""
    return "docarray" in sys.modules and _is_document(type(item))


def hold_documents(items: Iterable[object]) -> bool:
    """Whether one of these is a document of docarray's; each class is looked at once."""
    return "docarray" in sys.modules and any(map(_is_document, set(map(type, items))))


def _is_document(kind: type) -> bool:
    return any(base.__module__ in ("docarray.document", "docarray.base_doc.doc") for base in kind.__mro__)


def is_array(content: object) -> bool:
    """Whether this is an array of docarray's, which may hold no document to recognise."""
    return "docarray" in sys.modules and any(
        base.__module__.startswith("docarray.") and base.__name__ in ("DocumentArray", "DocList", "DocVec")
        for base in type(content).__mro__
    )
