"""docarray's documents, told by their class alone; what reads and writes them is `casdk.interop.docarray`."""

from __future__ import annotations

import sys

__all__ = ["is_array", "recognise"]


def recognise(item: object) -> bool:
    """Whether this is a document of docarray's, by the names of the modules its class comes from."""
    return "docarray" in sys.modules and any(
        base.__module__ in ("docarray.document", "docarray.base_doc.doc") for base in type(item).__mro__
    )


def is_array(content: object) -> bool:
    """Whether this is an array of docarray's, which may hold no document to recognise."""
    return "docarray" in sys.modules and any(
        base.__module__.startswith("docarray.") and base.__name__ in ("DocumentArray", "DocList", "DocVec")
        for base in type(content).__mro__
    )
